"""Evaluate an implicit field on a grid: everywhere, or coarse to fine near its surface.

Grid points are ``-bounds + index * 2 * bounds / resolution`` for index 0 ... resolution on every
axis; logits are positive inside.
"""

from __future__ import annotations

from typing import Protocol

import numpy as np
import torch
from torch import Tensor

UNKNOWN = -10000.0
"""Marks grid points that were not evaluated while a grid is refined; NaN in the final grid."""

_KNOWN_ABOVE = -9000.0
_NARROW_LOGIT = 0.95


class VolumeSampler(Protocol):
    """A field that is asked for a whole coarse grid first, then for chosen points.

    The two kinds of query are apart because an approximation may share work inside each.
    """

    def coarse(self, points: Tensor) -> Tensor:
        """Return logits (n, n, n) of a dense grid of points (n, n, n, 3)."""

    def fine(self, points: Tensor) -> Tensor:
        """Return logits (P,) of points (P, 3), in lexicographic order of their grid indices."""


def grid_points(resolution: int, bounds: float, device: torch.device | str = "cpu") -> Tensor:
    """Return (R + 1, R + 1, R + 1, 3) float32 points, indexed [x][y][z]."""
    axis = torch.from_numpy(np.linspace(-bounds, bounds, resolution + 1, dtype=np.float32))
    axis = axis.to(device)
    return torch.stack(torch.meshgrid(axis, axis, axis, indexing="ij"), dim=-1)


def near_surface_mask(grid: Tensor, level: float = 0.0) -> Tensor:
    """Mark the points of a grid (X, Y, Z) whose sign differs from a neighbour's; bool.

    The sign is that of ``grid + level``. Neighbours are the six along the axes, the edge being
    its own; points not evaluated mark nobody and are never marked.
    """
    values = grid + level
    known = values > _KNOWN_ABOVE
    signs = values.sign()
    marked = torch.zeros_like(known)
    for axis in range(3):
        count = grid.shape[axis]
        low, high = signs.narrow(axis, 0, count - 1), signs.narrow(axis, 1, count - 1)
        both = known.narrow(axis, 0, count - 1) & known.narrow(axis, 1, count - 1)
        differs = (low != high) & both
        marked.narrow(axis, 0, count - 1).logical_or_(differs)
        marked.narrow(axis, 1, count - 1).logical_or_(differs)
    return marked


def dilate(mask: Tensor, times: int = 1) -> Tensor:
    """Grow a bool mask (X, Y, Z) by its 3 x 3 x 3 neighbourhood, ``times`` times."""
    for _ in range(times):
        for axis in range(3):
            count = mask.shape[axis]
            grown = mask.clone()
            grown.narrow(axis, 1, count - 1).logical_or_(mask.narrow(axis, 0, count - 1))
            grown.narrow(axis, 0, count - 1).logical_or_(mask.narrow(axis, 1, count - 1))
            mask = grown
    return mask


def refinement_levels(resolution: int, min_resolution: int, cells: int) -> list[int]:
    """Return the grids' resolutions, coarsest first.

    The coarsest is the last halving that is not below ``min_resolution``, moved so that its
    points divide into ``cells`` along an axis; each further one is twice the one before, so the
    finest may fall short of ``resolution`` (384 gives 95, 190, 380).
    """
    coarsest, halvings = resolution, 0
    while coarsest // 2 >= min_resolution:
        coarsest //= 2
        halvings += 1
    start = max(round(coarsest / cells), 1) * cells - 1
    return [start * 2**index for index in range(halvings + 1)]


def adaptive_volume(
    sampler: VolumeSampler,
    resolution: int,
    *,
    bounds: float = 1.01,
    min_resolution: int = 63,
    cells: int = 4,
    level: float = 0.0,
    device: torch.device | str = "cpu",
) -> Tensor:
    """Evaluate a dense coarse grid, then only near the surface, level by level.

    What the coarsest grid does not see is missed: a part or a gap thinner than its cell.

    Args:
        sampler: the field.
        resolution: cells along an axis that are wanted; see ``refinement_levels`` for what is
            delivered.
        bounds: half side of the cube.
        min_resolution: coarsest grid allowed.
        cells: the coarsest grid's points divide into so many parts along an axis.
        level: added to the logits before their signs are compared.
        device: where the grid lives.

    Returns:
        Logits (R + 1, R + 1, R + 1) float32, NaN where nothing was evaluated. Where a grid shows
        nothing to refine, that grid, so that the logits can be told.
    """
    levels = refinement_levels(resolution, min_resolution, cells)
    grid = sampler.coarse(grid_points(levels[0], bounds, device)).float()
    for index, finer in enumerate(levels[1:], start=1):
        is_last = index == len(levels) - 1
        chosen = _refine(grid, finer, level, is_last=is_last)
        if not len(chosen):
            break
        points = chosen.float() * (2 * bounds / finer) - bounds
        grid = torch.full((finer + 1,) * 3, UNKNOWN, device=device)
        grid[chosen.unbind(-1)] = sampler.fine(points).float()
    return torch.where(grid == UNKNOWN, torch.nan, grid)


def _refine(grid: Tensor, finer: int, level: float, *, is_last: bool) -> Tensor:
    """Return the indices (P, 3) of the finer grid that are worth evaluating."""
    selected = near_surface_mask(grid, level) | (grid.abs() < _NARROW_LOGIT)
    if not is_last:
        selected = dilate(selected)
    target = torch.zeros((finer + 1,) * 3, dtype=torch.bool, device=grid.device)
    target[tuple(2 * axis for axis in selected.nonzero(as_tuple=True))] = True
    return dilate(target, 2 if is_last else 1).nonzero()
