"""The readable reference: evaluate the whole grid, then march over it."""

from __future__ import annotations

import numpy as np
import torch

from dream_cad.surface.field import (
    ImplicitField,
    PointSampler,
    ProgressCallback,
    ignore_progress,
)
from dream_cad.surface.marching import SurfaceMesh, activate, march


def extract_dense(
    field: ImplicitField,
    *,
    resolution: int,
    threshold: float,
    radius: float,
    chunk_size: int,
    device: torch.device,
    progress: ProgressCallback = ignore_progress,
) -> SurfaceMesh:
    """Query all N^3 nodes in chunks and march (spec, section 8).

    Args:
        field: the density.
        resolution: N, nodes a side.
        threshold: level of activated density.
        radius: half side of the cube.
        chunk_size: nodes a query.
        device: where ``field`` takes its points.
        progress: called before each chunk.

    Returns:
        The mesh; empty if the threshold is not crossed.

    Raises:
        GenerationError: the field gave NaN.
    """
    sampler = PointSampler(field, resolution, radius, device)
    count = resolution**3
    density = np.empty(count, np.float32)
    for start in range(0, count, chunk_size):
        progress(start / count, "surface")
        stop = min(start + chunk_size, count)
        raw = sampler.raw_density(torch.arange(start, stop, device=device))
        density[start:stop] = activate(raw, field.density_bias)
    return march(density.reshape((resolution,) * 3), threshold, radius)
