"""Halve, restore and subdivide voxel sets (TRELLIS spec, section 9)."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from dream_cad.nn.sparse.tensor import SparseTensor, VoxelSet, voxel_keys


@dataclass(frozen=True)
class Halving:
    """A voxel set and its half-resolution parents.

    Attributes:
        fine: the voxels.
        coarse: their parents, sorted by (batch, x, y, z).
        parent: (N,) int64 row of each fine voxel's parent.
    """

    fine: VoxelSet
    coarse: VoxelSet
    parent: Tensor

    @classmethod
    def of(cls, fine: VoxelSet) -> Halving:
        """Compute the parents of a voxel set once."""
        places = fine.coords.clone()
        places[:, 1:] //= 2
        side = int(places[:, 1:].max()) + 1 if len(fine) else 1
        keys, parent = torch.unique(voxel_keys(places, side), return_inverse=True)
        coords = places.new_empty(len(keys), 4)
        coords[parent] = places
        return cls(fine, VoxelSet(coords), parent)

    def down(self, x: SparseTensor) -> SparseTensor:
        """Pool (N, C) to the parents as sum / (count + 1), as the weights were trained."""
        total = x.feats.new_zeros(len(self.coarse), x.feats.shape[1])
        total = total.float().index_add_(0, self.parent, x.feats.float())
        counts = torch.bincount(self.parent, minlength=len(self.coarse))[:, None]
        return SparseTensor(self.coarse, (total / (counts + 1)).to(x.feats.dtype))

    def up(self, x: SparseTensor) -> SparseTensor:
        """Copy each parent's row back to its fine voxels."""
        return SparseTensor(self.fine, x.feats[self.parent])


def subdivide_voxels(voxels: VoxelSet) -> VoxelSet:
    """Replace each voxel by its 8 children, consecutive, z fastest."""
    corners = torch.arange(2, device=voxels.coords.device)
    steps = torch.cartesian_prod(corners, corners, corners)
    steps = torch.cat((torch.zeros_like(steps[:, :1]), steps), dim=1)
    base = voxels.coords * torch.tensor((1, 2, 2, 2), device=steps.device)
    return VoxelSet((base[:, None] + steps).flatten(0, 1))


def subdivide(x: SparseTensor, children: VoxelSet | None = None) -> SparseTensor:
    """Copy each row to its 8 children; ``children`` reuses an earlier ``subdivide_voxels``."""
    children = subdivide_voxels(x.voxels) if children is None else children
    return SparseTensor(children, x.feats.repeat_interleave(8, dim=0))
