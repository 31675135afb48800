"""Marching cubes on a part of the lattice of a field, in the model frame."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from skimage.measure import marching_cubes


@dataclass(frozen=True)
class SurfaceMesh:
    """An iso-surface.

    Attributes:
        vertices: (V, 3) float32, model frame.
        faces: (F, 3) int32, counter-clockwise seen from outside (from the low density).
    """

    vertices: NDArray[np.float32]
    faces: NDArray[np.int32]


def march(
    density: NDArray[np.float32],
    threshold: float,
    *,
    start: tuple[int, int, int],
    spacing: float,
    radius: float,
) -> SurfaceMesh:
    """Extract the surface ``density == threshold``, linear between nodes (spec, section 8).

    Args:
        density: (X, Y, Z) float32 activated density, indexed [ix, iy, iz].
        threshold: level; higher is inside.
        start: lattice index of ``density[0, 0, 0]``.
        spacing: distance of nodes; node i of the lattice lies at ``i * spacing - radius``.
        radius: half side of the cube.

    Returns:
        The mesh, open where the surface meets the box; empty arrays if nothing crosses.
    """
    if min(density.shape) < 2 or not density.min() <= threshold < density.max():
        return SurfaceMesh(np.zeros((0, 3), np.float32), np.zeros((0, 3), np.int32))
    vertices, faces, _, _ = marching_cubes(density, threshold, gradient_direction="ascent")
    world = (vertices.astype(np.float64) + start) * spacing - radius
    return SurfaceMesh(world.astype(np.float32), np.ascontiguousarray(faces, dtype=np.int32))
