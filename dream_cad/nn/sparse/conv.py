"""Submanifold convolution and group norm on voxel sets (TRELLIS spec, section 9)."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from dream_cad.exceptions import InvalidConfigError
from dream_cad.nn.sparse.tensor import SparseTensor


def submanifold_conv(x: SparseTensor, weight: Tensor, bias: Tensor) -> Tensor:
    """Cross-correlate with a 3x3x3 kernel at occupied voxels only.

    Args:
        x: features (N, C).
        weight: (C', 3, 3, 3, C), axes (out, x, y, z, in).
        bias: (C',).

    Returns:
        (N, C'); work and memory are linear in the occupied neighbour pairs.
    """
    taps = weight.flatten(1, 3).permute(1, 2, 0)
    out = bias.expand(len(x.voxels), -1).clone()
    for (rows, sources), tap in zip(x.voxels.neighbours, taps, strict=True):
        if len(rows):
            out.index_add_(0, rows, x.feats[sources] @ tap)
    return out


def dense_masked_conv(x: SparseTensor, weight: Tensor, bias: Tensor) -> Tensor:
    """Readable twin of ``submanifold_conv``: a dense convolution read at the occupied voxels."""
    batch, i, j, k = x.voxels.coords.unbind(1)
    side = int(x.voxels.coords[:, 1:].max()) + 1
    items = int(batch.max()) + 1
    grid = x.feats.new_zeros(items, x.feats.shape[1], side, side, side)
    grid[batch, :, i, j, k] = x.feats
    dense = F.conv3d(grid, weight.permute(0, 4, 1, 2, 3), bias, padding=1)
    return dense[batch, :, i, j, k]


class SparseKernel(nn.Module):
    """Weight (out, x, y, z, in) and bias (out,) of a sparse convolution."""

    def __init__(self, in_channels: int, out_channels: int, size: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.empty(out_channels, size, size, size, in_channels))
        self.bias = nn.Parameter(torch.zeros(out_channels))
        nn.init.normal_(self.weight, std=(size**3 * in_channels) ** -0.5)


class SparseConv3d(nn.Module):
    """Submanifold convolution; state-dict keys ``conv.weight`` (out, x, y, z, in), ``conv.bias``.

    Args:
        in_channels: C.
        out_channels: C'.
        kernel_size: 3, or 1. The published 1x1x1 weights were trained with their memory read as
            an (in, out) matrix, not transposed, so that is what this does.
    """

    def __init__(self, in_channels: int, out_channels: int, kernel_size: int = 3) -> None:
        super().__init__()
        if kernel_size not in (1, 3):
            raise InvalidConfigError(f"kernel_size is {kernel_size}; expected 1 or 3")
        self.conv = SparseKernel(in_channels, out_channels, kernel_size)

    def forward(self, x: SparseTensor) -> SparseTensor:
        """Map (N, C) to (N, C') on the same voxels."""
        weight, bias = self.conv.weight, self.conv.bias
        if weight.shape[1] == 3:
            return x.with_feats(submanifold_conv(x, weight, bias))
        return x.with_feats(x.feats @ weight.reshape(weight.shape[-1], -1) + bias)


class SparseGroupNorm(nn.GroupNorm):
    """Group norm with the statistics of each batch item over its voxels, in float32."""

    def forward(self, x: SparseTensor) -> SparseTensor:  # type: ignore[override]
        """Normalise (N, C)."""
        parts = [self._item(x.feats[rows]) for rows in x.voxels.items()]
        return x.with_feats(torch.cat(parts)) if parts else x

    def _item(self, feats: Tensor) -> Tensor:
        if not len(feats):
            return feats
        channels_first = feats.float().T[None]
        out = F.group_norm(channels_first, self.num_groups, self.weight, self.bias, self.eps)
        return out[0].T.to(feats.dtype)
