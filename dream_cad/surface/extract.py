"""The door of this package: check the arguments, choose the path, return a mesh."""

from __future__ import annotations

import math
from typing import Literal

import torch

from dream_cad.exceptions import InvalidConfigError
from dream_cad.surface.dense import dense_density
from dream_cad.surface.density import NodeDensity
from dream_cad.surface.field import ImplicitField, ProgressCallback, ignore_progress
from dream_cad.surface.marching import SurfaceMesh, march
from dream_cad.surface.sparse import sparse_density

MAX_RESOLUTION = 1024
# The published planes have 64 texels a side: a coarse sample for each of them.
COARSE_CELLS = 64


@torch.inference_mode()
def extract_surface(
    field: ImplicitField,
    *,
    resolution: int,
    threshold: float,
    radius: float | None = None,
    method: Literal["sparse", "dense"] = "sparse",
    margin: int = 1,
    coarse_stride: int | None = None,
    chunk_size: int = 8192,
    progress: ProgressCallback = ignore_progress,
) -> SurfaceMesh:
    """Extract the surface where ``exp(raw_density + density_bias)`` equals ``threshold``.

    "sparse" evaluates every ``coarse_stride``-th node, the blocks near the surface seen there, and
    wherever the surface goes on from them. Its mesh is the one of "dense" (positions within 1e-5,
    the same faces) but for separate components, cavities and tunnels that hold no coarse node and
    lie further than ``margin`` blocks from what was seen; see ``dream_cad.surface.sparse``.

    Args:
        field: the density; fields of ``LatticeField``, and those with triplanes, are faster.
        resolution: N, nodes a side, faces of the box included.
        threshold: level of activated density; higher is inside.
        radius: half side of the box; None = ``field.radius``.
        method: "dense" is the reference that queries all N^3 points.
        margin: blocks around those that the coarse pass found; more misses less.
        coarse_stride: nodes from one coarse node to the next; None = 64 coarse cells a side, but
            at least 2 nodes. 1 evaluates everything.
        chunk_size: nodes a query; about 8192 stay in a CPU's cache, a GPU wants 2^18 or more.
        progress: called between queries with (fraction, "surface"); may raise to stop.

    Returns:
        The mesh in the model frame, open where it meets the box; empty arrays if the threshold
        is not crossed.

    Raises:
        InvalidConfigError: an argument is out of range.
        GenerationError: the field gave NaN.
    """
    radius = field.radius if radius is None else radius
    stride = max(2, round(resolution / COARSE_CELLS)) if coarse_stride is None else coarse_stride
    _check_level(threshold, radius)
    _check_counts(resolution, chunk_size, margin, stride)
    if method == "dense":
        density = dense_density(
            field, resolution=resolution, radius=radius, chunk_size=chunk_size, progress=progress
        )
        start = (0, 0, 0)
    elif method == "sparse":
        nodes = NodeDensity(field, resolution, threshold, chunk_size, progress, radius)
        density, start = sparse_density(nodes, stride=stride, margin=margin)
    else:
        raise InvalidConfigError(f"The method is {method!r}; it must be 'sparse' or 'dense'.")
    progress(0.95, "surface")
    spacing = 2 * radius / (resolution - 1)
    return march(density.cpu().numpy(), threshold, start=start, spacing=spacing, radius=radius)


def _check_level(threshold: float, radius: float) -> None:
    for name, value in (("threshold", threshold), ("radius", radius)):
        if not (math.isfinite(value) and value > 0):
            raise InvalidConfigError(f"The {name} is {value}; it must be positive and finite.")


def _check_counts(resolution: int, chunk_size: int, margin: int, stride: int) -> None:
    if not 2 <= resolution <= MAX_RESOLUTION:
        raise InvalidConfigError(
            f"The resolution is {resolution}; it must be from 2 to {MAX_RESOLUTION}.",
            hint="256 shows all that a field of 64 x 64 planes has.",
        )
    for name, value, least in (
        ("chunk_size", chunk_size, 1),
        ("margin", margin, 0),
        ("coarse_stride", stride, 1),
    ):
        if value < least:
            raise InvalidConfigError(f"{name} is {value}; it must be at least {least}.")
