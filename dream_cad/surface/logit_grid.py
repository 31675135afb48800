"""Marching cubes on a grid of logits that may hold NaN where nothing is known."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from skimage.measure import marching_cubes

from dream_cad.surface.marching import SurfaceMesh


def march_logits(
    grid: NDArray[np.float32], *, bounds: float, level: float = 0.0, divisor: int | None = None
) -> SurfaceMesh:
    """Extract the surface ``grid == level``; higher is inside.

    Cubes with a NaN corner give no faces.

    Args:
        grid: (X, Y, Z) float32 logits, indexed [x][y][z].
        bounds: half side of the cube that the grid spans.
        level: the surface's logit.
        divisor: what index becomes position by, ``index / divisor * 2 * bounds - bounds``; None
            is exact, the last index of each axis. Hunyuan3D as published divides by its
            octree_resolution + 1, whatever the grid's size, and so shrinks and shifts its meshes.

    Returns:
        The mesh, counter-clockwise seen from outside; empty arrays if nothing crosses.
    """
    known = grid[np.isfinite(grid)]
    if min(grid.shape) < 2 or known.size == 0 or not known.min() <= level < known.max():
        return SurfaceMesh(np.zeros((0, 3), np.float32), np.zeros((0, 3), np.int32))
    vertices, faces, _, _ = marching_cubes(grid, level)
    steps = np.array(grid.shape, np.float64) - 1 if divisor is None else float(divisor)
    world = vertices.astype(np.float64) / steps * (2 * bounds) - bounds
    faces = faces[np.isfinite(world).all(axis=1)[faces].all(axis=1)]
    used, compact = np.unique(faces, return_inverse=True)
    return SurfaceMesh(
        world[used].astype(np.float32),
        np.ascontiguousarray(compact.reshape(-1, 3)[:, ::-1], dtype=np.int32),
    )
