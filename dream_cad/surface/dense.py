"""The readable reference: evaluate every node of the lattice, then march over it."""

from __future__ import annotations

import torch
from torch import Tensor

from dream_cad.surface.density import activate
from dream_cad.surface.field import (
    ImplicitField,
    ProgressCallback,
    device_of,
    ignore_progress,
    lattice_axis,
)


def dense_density(
    field: ImplicitField,
    *,
    resolution: int,
    radius: float,
    chunk_size: int,
    progress: ProgressCallback = ignore_progress,
) -> Tensor:
    """Query the field at the points of all N^3 nodes (spec, section 8).

    Args:
        field: the density.
        resolution: N, nodes a side.
        radius: half side of the cube.
        chunk_size: nodes a query.
        progress: called before each chunk with (fraction, "surface").

    Returns:
        Activated density (N, N, N) float32 on the CPU, indexed [ix, iy, iz].

    Raises:
        GenerationError: the field gave NaN.
    """
    axis = lattice_axis(resolution, radius, device_of(field))
    count = resolution**3
    density = torch.empty(count, dtype=torch.float32)
    for start in range(0, count, chunk_size):
        progress(0.95 * start / count, "surface")
        stop = min(start + chunk_size, count)
        node = torch.arange(start, stop, device=axis.device)
        column = node // resolution
        index = (column // resolution, column % resolution, node % resolution)
        points = torch.stack([axis[i] for i in index], dim=-1)
        density[start:stop] = activate(field.raw_density(points), field.density_bias)
    return density.view(resolution, resolution, resolution)
