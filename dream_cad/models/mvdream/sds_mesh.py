"""The optimised radiance field to a mesh: a coarse pass for the box, a fine one inside it."""

from __future__ import annotations

import numpy as np
import torch
from numpy.typing import NDArray
from skimage.measure import marching_cubes
from torch import Tensor

from dream_cad.exceptions import GenerationError
from dream_cad.mesh.cleanup import remove_floaters
from dream_cad.mesh.data import MeshData
from dream_cad.models.mvdream.sds_field import RadianceField

_CHUNK = 65_536
_GROWTH = 0.1


def field_mesh(
    field: RadianceField, resolution: int, threshold: float, min_component: float = 0.01
) -> MeshData:
    """Extract the surface of a field in its own frame (z up, front +x), without colours.

    Args:
        field: the density.
        resolution: points a side of both passes.
        threshold: density of the surface.
        min_component: parts with fewer faces than this share of the largest part's are dropped.

    Raises:
        GenerationError: the density nowhere reaches the threshold; says how high it gets.
    """
    radius = field.config.radius
    box = np.array([[-radius] * 3, [radius] * 3])
    coarse = _march(field, box, resolution, threshold)
    low, high = coarse.vertices.min(axis=0), coarse.vertices.max(axis=0)
    margin = _GROWTH * (high - low)
    tight = np.stack([np.maximum(low - margin, box[0]), np.minimum(high + margin, box[1])])
    return remove_floaters(_march(field, tight, resolution, threshold), min_component)


def field_colors(field: RadianceField, points: NDArray[np.float32]) -> NDArray[np.float32]:
    """Return the colours (P, 3) in [0, 1] at points (P, 3) of the field's frame."""
    device = next(field.parameters()).device
    with torch.no_grad():
        parts = [
            field.features(part.to(device)).sigmoid().cpu()
            for part in torch.split(torch.from_numpy(np.ascontiguousarray(points)), _CHUNK)
        ]
    return torch.cat(parts).numpy()


@torch.no_grad()
def _march(
    field: RadianceField, box: NDArray[np.float64], resolution: int, threshold: float
) -> MeshData:
    device = next(field.parameters()).device
    axes = [torch.linspace(float(a), float(b), resolution) for a, b in box.T]
    nodes = torch.stack(torch.meshgrid(*axes, indexing="ij"), dim=-1).reshape(-1, 3)
    parts: list[Tensor] = [
        field.density(part.to(device)).cpu() for part in torch.split(nodes, _CHUNK)
    ]
    density = torch.cat(parts).view(resolution, resolution, resolution).numpy()
    if not np.isfinite(density).all():
        raise GenerationError("The field gave a density that is not finite.")
    if not density.max() > threshold:
        raise GenerationError(
            f"There is no surface: the density reaches {density.max():.3g}, below the threshold "
            f"of {threshold:g}.",
            hint="Lower density_threshold, or let the optimisation run longer.",
        )
    padded = np.pad(density, 1)  # the surface is closed where the object meets the box
    vertices, faces, _, _ = marching_cubes(padded, threshold, gradient_direction="ascent")
    spacing = (box[1] - box[0]) / (resolution - 1)
    world = box[0] + (vertices.astype(np.float64) - 1) * spacing
    return MeshData(world.astype(np.float32), np.ascontiguousarray(faces, dtype=np.int32))
