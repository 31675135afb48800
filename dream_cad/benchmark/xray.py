"""All crossings of a mesh with a grid of parallel rays: walls, insides and volumes.

The rays run along an axis through the cells of a square grid. They stand off the cell centres by an
irrational part of a cell, so that they hit neither vertices nor edges of regular meshes.
"""

from __future__ import annotations

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
    u, v = (axis + 1) % 3, (axis + 2) % 3
    flat = (corners[:, :, [u, v]] - low[[u, v]]) * (grid / side) - np.array(_OFFSET)
    depth = corners[:, :, axis]
    first, last = np.ceil(flat.min(axis=1)), np.floor(flat.max(axis=1))
    first = np.clip(first, 0, grid).astype(np.int64)
    size = np.maximum(np.clip(last, -1, grid - 1).astype(np.int64) - first + 1, 0)
    rays, positions, faces = [], [], []
    for part in batches(size.prod(axis=1), _BATCH):
        face, column, row = _cells(part, first, size)
        weights, is_inside = _weights(flat[face], column, row)
        face, weights = face[is_inside], weights[is_inside]
        rays.append(row[is_inside] * grid + column[is_inside])
        positions.append(np.einsum("nk,nk->n", weights, depth[face]))
        faces.append(face)
    ray = np.concatenate([*rays, np.zeros(0, dtype=np.int64)])
    position = np.concatenate([*positions, np.zeros(0)])
    order = np.lexsort((position, ray))
    joined = np.concatenate([*faces, np.zeros(0, dtype=np.int64)])
    return Crossings(ray[order], position[order], joined[order], grid)


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


def _cells(part: slice, first: Ints, size: Ints) -> tuple[Ints, Ints, Ints]:
    count = size[part].prod(axis=1)
    face = np.repeat(np.arange(part.start, part.stop), count)
    slot = count_up(count)
    width = size[face, 0]
    return face, first[face, 0] + slot % width, first[face, 1] + slot // width


def _weights(flat: Floats, column: Ints, row: Ints) -> tuple[Floats, NDArray[np.bool_]]:
    """Return barycentric weights (N, 3) of grid points in triangles (N, 3, 2), and which hold."""
    offset = flat - np.stack([column, row], axis=1)[:, None].astype(np.float64)
    following = np.roll(offset, -1, axis=1)
    cross = offset[..., 0] * following[..., 1] - offset[..., 1] * following[..., 0]
    total = cross.sum(axis=1, keepdims=True)
    weights = np.divide(cross, total, out=np.full_like(cross, -1.0), where=total != 0)
    return np.roll(weights, -1, axis=1), (weights >= 0).all(axis=1)
