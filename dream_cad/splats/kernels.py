"""Gaussians widened for a grid: what both the density and the colours are sums of.

A term is ``o exp(-m / 2)`` with ``m = (x - mu)^T (Sigma + (kappa h)^2 I)^-1 (x - mu)``, dropped
beyond ``m > cutoff``. The widening keeps thin splats from falling between the nodes.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor

from dream_cad.splats.cloud import GaussianCloud

KAPPA = 0.5
CUTOFF = 16.0

# Terms that are evaluated at once: few enough to stay in a core's cache, which is several times as
# fast, and for torch not to wake other threads for each small step.
_NODES_PER_CHUNK = 32_768
_SIDE_STEP = 4


@dataclass(frozen=True)
class Lattice:
    """A cube of nodes: ``size`` a side over [-radius, radius], indexed [x, y, z].

    Attributes:
        size: N, nodes a side.
        radius: half side of the cube.
    """

    size: int
    radius: float = 1.0

    @property
    def spacing(self) -> float:
        """Distance of two nodes, h."""
        return 2 * self.radius / (self.size - 1)


@dataclass(frozen=True)
class Boxes:
    """Gaussians with boxes of nodes of one shape.

    Attributes:
        rows: (G,) their numbers in the cloud.
        start: (G, 3) int64 first node of each box.
        shape: nodes along x, y, z of every box.
    """

    rows: Tensor
    start: Tensor
    shape: tuple[int, int, int]

    def nodes(self, strides: tuple[int, int]) -> Tensor:
        """Return the flat numbers (G, kx * ky * kz) of the nodes in an array [x, y, z].

        Args:
            strides: entries between neighbours in x and in y.
        """
        x, y, z = (torch.arange(n) for n in self.shape)
        offset = x[:, None, None] * strides[0] + y[:, None] * strides[1] + z
        first = self.start @ torch.tensor([*strides, 1])
        return first[:, None] + offset.reshape(-1)


class Kernels:
    """The widened Gaussians of a cloud over a lattice.

    Args:
        cloud: the Gaussians, in the lattice's frame.
        lattice: the nodes.
        kappa: widening in nodes.
        cutoff: largest m of a term.
    """

    def __init__(
        self,
        cloud: GaussianCloud,
        lattice: Lattice,
        kappa: float = KAPPA,
        cutoff: float = CUTOFF,
    ) -> None:
        covariance = cloud.covariances() + (kappa * lattice.spacing) ** 2 * np.eye(3)
        self.lattice = lattice
        self.positions = torch.from_numpy(cloud.positions)
        self.opacities = torch.from_numpy(cloud.opacities)
        self._precision = torch.from_numpy(-0.5 * np.linalg.inv(covariance)).float()
        self._least = math.exp(-0.5 * cutoff)
        # A term lives where m <= cutoff: in a box of so many deviations along each axis.
        self._reach = np.sqrt(cutoff * np.einsum("gii->gi", covariance))
        self._means = cloud.positions.astype(np.float64)

    def boxes(
        self,
        low: NDArray[np.float64],
        step: float,
        counts: tuple[int, int, int],
        margin: float = 0.0,
    ) -> Iterator[Boxes]:
        """Group the Gaussians by the shape of the boxes of nodes that their terms reach.

        Args:
            low: (3,) position of node 0.
            step: distance of nodes.
            counts: nodes along x, y, z; boxes end there.
            margin: nodes so far beyond a term's reach count too.
        """
        reach = self._reach + margin
        ends_at = np.array(counts) - 1
        first = np.ceil((self._means - reach - low) / step).astype(np.int64).clip(0)
        last = np.minimum(np.floor((self._means + reach - low) / step).astype(np.int64), ends_at)
        seen = np.flatnonzero((last >= first).all(axis=1))
        # Few shapes make few calls: sides are rounded up, what they add is cut off as a term.
        side = -(-(last - first + 1) // _SIDE_STEP) * _SIDE_STEP
        side = np.minimum(side, ends_at + 1)
        first = np.minimum(first, ends_at + 1 - side)
        shapes, group = np.unique(side[seen], axis=0, return_inverse=True)
        order = np.argsort(group.reshape(-1), kind="stable")
        ends = np.cumsum(np.bincount(group.reshape(-1), minlength=len(shapes)))
        for shape, rows in zip(shapes.tolist(), np.split(seen[order], ends[:-1]), strict=True):
            count = max(_NODES_PER_CHUNK // math.prod(shape), 1)
            for begin in range(0, len(rows), count):
                part = rows[begin : begin + count]
                yield Boxes(torch.from_numpy(part), torch.from_numpy(first[part]), tuple(shape))

    def terms_on_nodes(self, boxes: Boxes, low: NDArray[np.float64], step: float) -> Tensor:
        """Return the terms (G, kx, ky, kz) at the nodes of boxes; zero beyond the cut."""
        begin = low + step * boxes.start.numpy() - self._means[boxes.rows.numpy()]
        start = torch.from_numpy(begin.astype(np.float32))
        x, y, z = (
            start[:, axis, None] + step * torch.arange(count)
            for axis, count in enumerate(boxes.shape)
        )
        a = self._precision[boxes.rows][:, :, :, None]
        plane = (a[:, 0, 0] * x * x)[:, :, None] + (a[:, 1, 1] * y * y)[:, None]
        plane += 2 * (a[:, 0, 1] * x)[:, :, None] * y[:, None]
        slope = 2 * ((a[:, 0, 2] * x)[:, :, None] + (a[:, 1, 2] * y)[:, None])
        power = plane[..., None] + (a[:, 2, 2] * z * z)[:, None, None]
        power.addcmul_(slope[..., None], z[:, None, None])
        terms: Tensor = F.threshold(power.exp_(), self._least, 0.0, inplace=True)
        return terms.mul_(self.opacities[boxes.rows][:, None, None, None])

    def terms_at(self, rows: Tensor, points: Tensor) -> Tensor:
        """Return the terms (Q,) of Gaussians (Q,) at points (Q, 3), pair by pair."""
        offset = points - self.positions[rows]
        turned = torch.bmm(self._precision[rows], offset[:, :, None])[:, :, 0]
        power = (turned * offset).sum(dim=1)
        terms: Tensor = F.threshold(power.exp_(), self._least, 0.0, inplace=True)
        return terms.mul_(self.opacities[rows])
