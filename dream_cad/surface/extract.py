"""The door of this package: check the arguments, choose the path, return a mesh."""

from __future__ import annotations

import math
from typing import Literal

import torch

from dream_cad.exceptions import InvalidConfigError
from dream_cad.surface.dense import extract_dense
from dream_cad.surface.field import ImplicitField, ProgressCallback, ignore_progress
from dream_cad.surface.marching import SurfaceMesh

MAX_RESOLUTION = 1024


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
    """Extract the surface where ``exp(raw_density + density_bias)`` equals ``threshold``."""
    radius = field.radius if radius is None else radius
    _check(resolution, threshold, radius, chunk_size)
    return extract_dense(
        field,
        resolution=resolution,
        threshold=threshold,
        radius=radius,
        chunk_size=chunk_size,
        device=_device_of(field),
        progress=progress,
    )


def _device_of(field: ImplicitField) -> torch.device:
    planes = getattr(field, "planes", None)
    return planes.device if isinstance(planes, torch.Tensor) else torch.device("cpu")


def _check(resolution: int, threshold: float, radius: float, chunk_size: int) -> None:
    if not 2 <= resolution <= MAX_RESOLUTION:
        raise InvalidConfigError(
            f"The resolution is {resolution}; it must be from 2 to {MAX_RESOLUTION}.",
            hint="256 shows all that a field of 64 x 64 planes has.",
        )
    if not (math.isfinite(threshold) and threshold > 0):
        raise InvalidConfigError(f"The threshold is {threshold}; it must be positive and finite.")
    if not (math.isfinite(radius) and radius > 0):
        raise InvalidConfigError(f"The radius is {radius}; it must be positive and finite.")
    if chunk_size < 1:
        raise InvalidConfigError(f"The chunk size is {chunk_size}; it must be at least 1.")
