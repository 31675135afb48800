"""Marching cubes on the regular grid of a field, with the errors and frames of this package."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from skimage.measure import marching_cubes
from torch import Tensor

from dream_cad.exceptions import GenerationError

# exp(80) = 5.5e34 still fits float32 with room for differences. Far above every threshold the
# vertex lies on the outer node whatever the value, so the limit moves no vertex.
MAX_EXPONENT = 80.0


@dataclass(frozen=True)
class SurfaceMesh:
    """An iso-surface.

    Attributes:
        vertices: (V, 3) float32, model frame.
        faces: (F, 3) int32, counter-clockwise seen from outside (from the low density).
    """

    vertices: NDArray[np.float32]
    faces: NDArray[np.int32]


def activate(raw: Tensor, density_bias: float) -> NDArray[np.float32]:
    """Density ``exp(min(raw + density_bias, 80))`` as float32, on the CPU.

    Args:
        raw: raw density (P,), any device.
        density_bias: added before ``exp``.

    Raises:
        GenerationError: a value is NaN.
    """
    density = (raw.float() + density_bias).clamp(max=MAX_EXPONENT).exp().cpu()
    if torch.isnan(density).any():
        raise GenerationError(
            "The field gave densities that are not a number.",
            hint="The scene code or the decoder is damaged; precision 'fp32' may help.",
        )
    array: NDArray[np.float32] = density.numpy()
    return array


def march(
    density: NDArray[np.float32],
    threshold: float,
    radius: float,
    mask: NDArray[np.bool_] | None = None,
) -> SurfaceMesh:
    """Extract the surface ``density == threshold``, linear between nodes (spec, section 8).

    Args:
        density: (N, N, N) float32, indexed [ix, iy, iz].
        threshold: level; higher is inside.
        radius: half side of the cube; node i lies at ``i / (N - 1) * 2 * radius - radius``.
        mask: (N, N, N), cells with a corner outside may be left out. None = the whole grid.

    Returns:
        The mesh, open where the surface meets the box; empty arrays if nothing crosses.
    """
    if not density.min() <= threshold < density.max():
        return SurfaceMesh(np.zeros((0, 3), np.float32), np.zeros((0, 3), np.int32))
    vertices, faces, _, _ = marching_cubes(
        density, threshold, gradient_direction="ascent", mask=mask
    )
    scale = 2 * radius / (density.shape[0] - 1)
    return SurfaceMesh(
        (vertices.astype(np.float64) * scale - radius).astype(np.float32),
        np.ascontiguousarray(faces, dtype=np.int32),
    )
