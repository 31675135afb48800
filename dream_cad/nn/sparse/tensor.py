"""Voxel sets with their precomputed maps, and features on them (TRELLIS spec, section 9)."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property

import torch
from torch import Tensor

from dream_cad.exceptions import ShapeError
from dream_cad.nn.sparse.groups import Bucket, bucket_groups

_PAIRS = tuple[Tensor, Tensor]


def voxel_keys(coords: Tensor, side: int) -> Tensor:
    """One int64 per row of (N, 4) coords, ordered as (batch, x, y, z); values in [0, side)."""
    batch, x, y, z = coords.long().unbind(1)
    return ((batch * side + x) * side + y) * side + z


class VoxelSet:
    """Occupied voxels of a batch; every map is computed once and shared by all layers and steps.

    Args:
        coords: (N, 4) integers (batch, x, y, z), each not negative; rows grouped by batch item.

    Raises:
        ShapeError: if ``coords`` is not (N, 4), is negative or not grouped by batch item.
    """

    def __init__(self, coords: Tensor) -> None:
        if coords.ndim != 2 or coords.shape[1] != 4 or coords.is_floating_point():
            raise ShapeError(
                f"voxel coordinates are {tuple(coords.shape)} {coords.dtype}; expected integers "
                "(N, 4) of (batch, x, y, z)"
            )
        self.coords = coords.long()
        if len(coords) and (int(coords.min()) < 0 or bool((coords[:, 0].diff() < 0).any())):
            raise ShapeError("voxel coordinates must not be negative, rows grouped by batch item")
        self._buckets: dict[tuple[int, int], list[Bucket]] = {}

    def __len__(self) -> int:
        return len(self.coords)

    @property
    def batch(self) -> Tensor:
        """(N,) int64 batch item of each voxel."""
        return self.coords[:, 0]

    @cached_property
    def counts(self) -> list[int]:
        """Voxels of each batch item, up to the last one that has any."""
        return [int(count) for count in torch.bincount(self.batch)]

    def items(self) -> Iterator[slice]:
        """The rows of each batch item."""
        start = 0
        for count in self.counts:
            yield slice(start, start + count)
            start += count

    @cached_property
    def neighbours(self) -> list[_PAIRS]:
        """For each of the 27 taps, x slowest: rows that have that neighbour, and its rows.

        Memory is linear in the voxels: at most 27 pairs of int64 each.
        """
        side = int(self.coords[:, 1:].max()) + 3 if len(self) else 3
        lift = torch.tensor((0, 1, 1, 1), device=self.coords.device)
        keys = voxel_keys(self.coords + lift, side)
        ordered, order = keys.sort()
        taps = [
            (a * side + b) * side + c for a in (-1, 0, 1) for b in (-1, 0, 1) for c in (-1, 0, 1)
        ]
        return [_matches(keys + tap, ordered, order) for tap in taps]

    def buckets(self, window: int = 0, shift: int = 0) -> list[Bucket]:
        """Groups that attend to each other: batch items (window 0) or shifted windows.

        The window of a voxel is floor((coordinate + shift) / window) on each axis.
        """
        if (window, shift) not in self._buckets:
            self._buckets[window, shift] = bucket_groups(self.window_labels(window, shift))
        return self._buckets[window, shift]

    def window_labels(self, window: int, shift: int) -> Tensor:
        """(N,) int64 label of each voxel's window; equal labels attend to each other."""
        if window == 0:
            return self.batch
        places = self.coords.clone()
        places[:, 1:] = (places[:, 1:] + shift) // window
        return voxel_keys(places, int(places[:, 1:].max()) + 1 if len(self) else 1)


def _matches(wanted: Tensor, ordered: Tensor, order: Tensor) -> _PAIRS:
    places = torch.searchsorted(ordered, wanted).clamp(max=max(len(ordered) - 1, 0))
    rows = torch.nonzero(ordered[places] == wanted).flatten()
    return rows, order[places[rows]]


@dataclass(frozen=True)
class SparseTensor:
    """Features (N, C) on a voxel set.

    Attributes:
        voxels: where the rows are.
        feats: (N, C) float.
    """

    voxels: VoxelSet
    feats: Tensor

    def __post_init__(self) -> None:
        """Refuse features that do not fit the voxels."""
        if self.feats.ndim != 2 or len(self.feats) != len(self.voxels):
            raise ShapeError(
                f"features are {tuple(self.feats.shape)} for {len(self.voxels)} voxels; "
                "expected (N, C)"
            )

    def with_feats(self, feats: Tensor) -> SparseTensor:
        """Return the same voxels, and their maps, with other features (N, C')."""
        return SparseTensor(self.voxels, feats)
