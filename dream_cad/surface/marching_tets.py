"""Marching tetrahedra on a tetrahedral grid (Stable Fast 3D spec, section 9.2)."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

from dream_cad.exceptions import ShapeError
from dream_cad.surface.marching import SurfaceMesh
from dream_cad.surface.tet_grid import TetGrid

OffsetFunction = Callable[[NDArray[np.intp]], NDArray[np.float32]]

_EDGES = np.array([[0, 1], [0, 2], [0, 3], [1, 2], [1, 3], [2, 3]])
_ONE, _TWO = 1, 2
# Triangles by local edges for the 16 cases; bit k is set where vertex k is inside.
_TRIANGLES: tuple[tuple[tuple[int, int, int], ...], ...] = (
    (),
    ((1, 0, 2),),
    ((4, 0, 3),),
    ((1, 4, 2), (1, 3, 4)),
    ((3, 1, 5),),
    ((2, 3, 0), (2, 5, 3)),
    ((1, 4, 0), (1, 5, 4)),
    ((4, 2, 5),),
    ((4, 5, 2),),
    ((4, 1, 0), (4, 5, 1)),
    ((3, 2, 0), (3, 5, 2)),
    ((1, 3, 5),),
    ((4, 1, 2), (4, 3, 1)),
    ((3, 0, 4),),
    ((2, 0, 1),),
    (),
)
_COUNT = np.array([len(triangles) for triangles in _TRIANGLES], dtype=np.int8)
_TABLE = np.array([[*triangles, *[(0, 0, 0)] * (2 - len(triangles))] for triangles in _TRIANGLES])


def march_tets(
    grid: TetGrid, level: NDArray[np.float32], offsets: OffsetFunction | None = None
) -> SurfaceMesh:
    """Extract the surface where ``level`` is zero.

    Args:
        grid: the grid.
        level: (V,) positive inside.
        offsets: gives raw offsets (K, 3) of grid vertices (K,), which move by ``tanh`` of them
            over the resolution; asked only for the ends of edges that the surface crosses.

    Returns:
        Vertices in the grid's unit cube, ordered by the ends of their edges, and faces that
        **wind inwards**, as published; open where the surface meets the cube.

    Raises:
        ShapeError: ``level`` is not finite or not one number for each vertex.
    """
    if level.shape != (len(grid.vertices),) or not np.isfinite(level).all():
        raise ShapeError(
            f"The level set has shape {level.shape}; ({len(grid.vertices)},) finite was expected."
        )
    is_inside = (level > 0).view(np.uint8)
    case = sum(is_inside[grid.tets[:, corner]] << corner for corner in range(4))
    active = np.flatnonzero(_COUNT[case])
    cases = np.asarray(case)[active]
    tets = grid.tets[active].astype(np.int64)
    ends = np.sort(tets[:, _EDGES], axis=2)
    is_crossed = is_inside[ends[..., 0]] != is_inside[ends[..., 1]]
    codes = ends[..., 0] * len(grid.vertices) + ends[..., 1]
    edges, number = np.unique(codes[is_crossed], return_inverse=True)
    vertex = np.full(codes.shape, -1, dtype=np.int32)
    vertex[is_crossed] = number
    faces = [
        np.take_along_axis(
            vertex[has], _TABLE[cases[has], :count].reshape(-1, 3 * count), axis=1
        ).reshape(-1, 3)
        for count in (_ONE, _TWO)
        for has in [_COUNT[cases] == count]
    ]
    a, b = np.divmod(edges, len(grid.vertices))
    return SurfaceMesh(_cross(grid, level, a, b, offsets), np.concatenate(faces))


def _cross(
    grid: TetGrid,
    level: NDArray[np.float32],
    a: NDArray[np.int64],
    b: NDArray[np.int64],
    offsets: OffsetFunction | None,
) -> NDArray[np.float32]:
    """Return where the level set crosses the edges between vertices a and b, (E, 3)."""
    ends = grid.vertices[a], grid.vertices[b]
    if offsets is not None:
        used, where = np.unique(np.concatenate([a, b]), return_inverse=True)
        moved = np.tanh(offsets(used)).astype(np.float32) / np.float32(grid.resolution)
        shift = moved[where]
        ends = ends[0] + shift[: len(a)], ends[1] + shift[len(a) :]
    level_a, level_b = level[a, None], level[b, None]
    crossing: NDArray[np.float32] = (ends[1] * level_a - ends[0] * level_b) / (level_a - level_b)
    return crossing.astype(np.float32, copy=False)
