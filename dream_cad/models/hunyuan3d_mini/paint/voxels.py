"""Where in space the cells of the views lie (spec section 9).

The published turbo pipeline hands these to its UNet, whose published code does not look at them;
neither does ours. They are here for a network that does.
"""

from __future__ import annotations

import torch
from torch import Tensor

_FEWEST_PIXELS = 5
_REACH = 1.73


def cell_positions(positions: Tensor, grid: int) -> Tensor:
    """Mean position of the object in each cell of each view.

    Args:
        positions: (B, n, 3, H, W) position maps in [0, 1], float16; background is 1.
        grid: cells a side; divides H and W.

    Returns:
        (B, n * grid * grid, 3) float16; 0 where a cell shows fewer than 5 pixels of the object.
    """
    batch, views, _, height, width = positions.shape
    is_object = (positions != 1).all(dim=2, keepdim=True)
    cells = (batch, views, -1, grid, height // grid, grid, width // grid)
    totals = (positions * is_object).reshape(cells).sum(dim=(4, 6))
    counts = is_object.reshape(cells).sum(dim=(4, 6))
    means = totals / counts.clamp(min=1).to(totals)
    means = torch.where(counts < _FEWEST_PIXELS, torch.zeros_like(means), means)
    return means.flatten(3).permute(0, 1, 3, 2).reshape(batch, -1, 3)


def neighbour_mask(positions: Tensor, grid: int) -> Tensor:
    """Which cells lie close to each other: (B, N, N) bool for the N cells of all views."""
    cells = cell_positions(positions, grid)
    distance: Tensor = (cells[:, :, None] - cells[:, None]).norm(dim=-1)
    return distance < _REACH / grid


def voxel_indices(positions: Tensor, grid: int, resolution: int) -> Tensor:
    """Voxel (B, N, 3) int64 of each cell in a cube of ``resolution`` a side."""
    cells = cell_positions(positions, grid).clamp(0, 1)
    return (cells * (resolution - 1)).round().long()
