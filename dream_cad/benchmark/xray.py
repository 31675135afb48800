"""All crossings of a mesh with a grid of parallel rays: walls, insides and volumes.

The rays run along an axis through the cells of a square grid. They stand off the cell centres by an
irrational part of a cell, so that they hit neither vertices nor edges of regular meshes.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from dream_cad.benchmark.welded import Floats, Ints
from dream_cad.mesh.ragged import batches, count_up

_OFFSET = (0.5 + 0.0012345678 * 2**0.5, 0.5 - 0.0012345678 * 3**0.5)
_BATCH = 200_000


@dataclass(frozen=True)
class Crossings:
    """Where rays meet faces, sorted by ray and by position along it.

    Attributes:
        ray: (N,) int64, row * grid + column.
        position: (N,) float64 along the axis.
        face: (N,) int64.
        grid: rays a side.
    """

    ray: Ints
    position: Floats
    face: Ints
    grid: int


def cross_rays(corners: Floats, axis: int, low: Floats, side: float, grid: int) -> Crossings:
    """Cut faces with ``grid`` x ``grid`` rays along ``axis``.

    Args:
        corners: (F, 3, 3) finite corner positions.
        axis: 0, 1 or 2.
        low: (3,) smallest corner of the cube that the rays fill.
        side: its length.
        grid: rays a side.
    """
    depth = corners[:, :, axis].T
    rays, positions, faces = [np.zeros(0, np.int64)], [np.zeros(0)], [np.zeros(0, np.int64)]
    for ray, face, weights in _hits(corners, axis, low, side, grid):
        rays.append(ray)
        positions.append((weights * depth[:, face]).sum(axis=0) / weights.sum(axis=0))
        faces.append(face)
    ray, position = np.concatenate(rays), np.concatenate(positions)
    order = np.lexsort((position, ray))
    return Crossings(ray[order], position[order], np.concatenate(faces)[order], grid)


def count_crossings(corners: Floats, axis: int, low: Floats, side: float, grid: int) -> Ints:
    """Return (grid * grid,) how many faces each ray of ``cross_rays`` meets."""
    count = np.zeros(grid * grid, dtype=np.int64)
    for ray, _, _ in _hits(corners, axis, low, side, grid):
        np.add.at(count, ray, 1)
    return count


def _hits(
    corners: Floats, axis: int, low: Floats, side: float, grid: int
) -> Iterator[tuple[Ints, Ints, Floats]]:
    """Yield batches of rays (N,), faces (N,) and weights of the corners (3, N), not normalised."""
    u, v = (axis + 1) % 3, (axis + 2) % 3
    flat = (corners[:, :, [u, v]] - low[[u, v]]) * (grid / side) - np.array(_OFFSET)
    first = np.clip(np.ceil(flat.min(axis=1)), 0, grid)
    last = np.clip(np.floor(flat.max(axis=1)), -1, grid - 1)
    size = np.maximum(last - first + 1, 0).astype(np.int64)
    shadow = _shadows(flat - first[:, None])
    size[shadow.is_line] = 0  # seen edge on
    start = first[:, 1] * grid + first[:, 0]
    for part in batches(size.prod(axis=1), _BATCH):
        face, column, row, weights = _inside(shadow, part, size)
        yield (start[face] + row * grid + column).astype(np.int64), face, weights


def occupancy(corners: Floats, low: Floats, side: float, grid: int) -> NDArray[np.bool_]:
    """Return (grid, grid, grid) bool over x, y, z: cells whose centre the surface winds around.

    Rays run along z; a cell is inside where the crossings below it do not cancel out, so
    overlapping parts count once. Only closed meshes have an inside.
    """
    hits = cross_rays(corners, 2, low, side, grid)
    a, b, c = corners[hits.face].transpose(1, 0, 2)
    across, along = b - a, c - a
    facing = np.sign(across[:, 0] * along[:, 1] - across[:, 1] * along[:, 0]).astype(np.int32)
    layer = np.clip(np.ceil((hits.position - low[2]) * (grid / side) - 0.5), 0, grid)
    winding = np.zeros((grid * grid, grid + 1), dtype=np.int32)
    np.add.at(winding, (hits.ray, layer.astype(np.int64)), -facing)
    inside = np.cumsum(winding[:, :-1], axis=1) != 0
    cells: NDArray[np.bool_] = inside.reshape(grid, grid, grid).transpose(1, 0, 2)
    return cells


@dataclass(frozen=True)
class _Shadows:
    """Triangles seen along an axis, each from the first cell of its bounding box.

    The weight of corner k at (x, y) is ``(constant + x along + y across)[k]``, not negative inside;
    the three add up to twice the area of the shadow.

    Attributes:
        constant, along, across: (3, F) float64.
        is_line: (F,) bool, whether the shadow has no area.
    """

    constant: Floats
    along: Floats
    across: Floats
    is_line: NDArray[np.bool_]


def _shadows(corners: Floats) -> _Shadows:
    """Return the weights' coefficients of (F, 3, 2) corners."""
    x, y = corners[..., 0].T, corners[..., 1].T
    following, last = [1, 2, 0], [2, 0, 1]
    constant = x[following] * y[last] - y[following] * x[last]
    along, across = y[following] - y[last], x[last] - x[following]
    total = constant.sum(axis=0)
    sign = np.where(total < 0, -1.0, 1.0)
    return _Shadows(constant * sign, along * sign, across * sign, total == 0)


def _inside(shadow: _Shadows, part: slice, size: Ints) -> tuple[Ints, Floats, Floats, Floats]:
    """Return the grid points inside triangles: face (N,), column, row (N,) and weights (3, N).

    Points outside one side are dropped before the next is looked at.
    """
    count = size[part].prod(axis=1)
    face = np.repeat(np.arange(part.start, part.stop), count)
    slot, width = count_up(count).astype(np.float64), size[face, 0]
    row = np.floor((slot + 0.5) / width)  # exact for boxes of less than 2^51 cells
    column = slot - row * width
    found: list[Floats] = []
    for k in range(3):
        weight = shadow.constant[k, face]
        weight += column * shadow.along[k, face]
        weight += row * shadow.across[k, face]
        keep = np.flatnonzero(weight >= 0)
        face, column, row = face[keep], column[keep], row[keep]
        found = [*(former[keep] for former in found), weight[keep]]
    return face, column, row, np.stack(found)
