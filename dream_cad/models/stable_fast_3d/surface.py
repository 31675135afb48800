"""The surface of a field: densities on the tetrahedral grid, and the mesh (spec section 9)."""

from __future__ import annotations

import numpy as np
import torch
from numpy.typing import NDArray

from dream_cad.exceptions import GenerationError
from dream_cad.models.base import ProgressCallback, ignore_progress
from dream_cad.models.stable_fast_3d.field import SceneField
from dream_cad.surface.marching import SurfaceMesh
from dream_cad.surface.marching_tets import march_tets
from dream_cad.surface.tet_grid import tet_grid

_POINTS_PER_REPORT = 131_072


def extract(
    field: SceneField,
    *,
    resolution: int,
    threshold: float,
    progress: ProgressCallback = ignore_progress,
) -> SurfaceMesh:
    """Extract the surface where the density reaches the threshold.

    The offsets of grid vertices are asked for only beside the surface, which gives the same mesh.

    Args:
        field: of one object.
        resolution: of the grid, a multiple of four.
        threshold: density of the surface.
        progress: called with (fraction, stage) between chunks.

    Returns:
        Vertices in the model frame; the faces **wind inwards**, as published.

    Raises:
        GenerationError: the density is not finite, or nowhere reaches the threshold.
        InvalidConfigError: the resolution is none that a grid can have.
    """
    progress(0.0, "grid")
    grid = tet_grid(resolution)
    radius = np.float32(field.radius)

    def positions(numbers: slice | NDArray[np.intp]) -> torch.Tensor:
        return torch.from_numpy(2 * radius * grid.vertices[numbers] - radius)

    level = np.empty(len(grid.vertices), dtype=np.float32)
    for start in range(0, len(level), _POINTS_PER_REPORT):
        progress(start / len(level), "density")
        part = slice(start, start + _POINTS_PER_REPORT)
        level[part] = field.query(positions(part), "density")["density"][:, 0].numpy()
    level -= np.float32(threshold)
    if not np.isfinite(level).all():
        raise GenerationError(
            "The field gave densities that are not finite.",
            hint="Where half precision overflowed, precision 'bf16' or 'fp32' helps.",
        )
    if not (level > 0).any():
        raise GenerationError(
            f"There is no surface at threshold {threshold:g}: the density reaches "
            f"{level.max() + threshold:.3g}.",
            hint="Lower the threshold, or give a picture that shows one object clearly.",
        )

    def offsets(numbers: NDArray[np.intp]) -> NDArray[np.float32]:
        return field.query(positions(numbers), "vertex_offset")["vertex_offset"].numpy()

    progress(0.95, "surface")
    made = march_tets(grid, level, offsets)
    return SurfaceMesh(2 * radius * made.vertices - radius, made.faces)
