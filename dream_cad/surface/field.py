"""What surface extraction asks of a field: protocols, and the way to query a grid by index."""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol, runtime_checkable

import torch
from torch import Tensor

ProgressCallback = Callable[[float, str], None]
"""Called with (fraction in [0, 1], stage name); may raise GenerationCancelledError to stop."""


def ignore_progress(fraction: float, stage: str) -> None:
    """Progress callback that does nothing."""


@runtime_checkable
class ImplicitField(Protocol):
    """A density in the cube [-radius, radius]^3: ``exp(raw_density + density_bias)``."""

    @property
    def radius(self) -> float:
        """Half side of the cube, in units of the model frame."""
        ...

    @property
    def density_bias(self) -> float:
        """Added to the raw density before ``exp``."""
        ...

    def raw_density(self, points: Tensor) -> Tensor:
        """Density (P,) before activation at points (P, 3) float32 of the model frame."""
        ...


class GridSampler(Protocol):
    """Raw density at nodes of the regular N^3 grid, by their index."""

    def raw_density(self, indices: Tensor) -> Tensor:
        """Raw density (P,) float32 at flat indices (P,) int64, ``(ix * N + iy) * N + iz``."""
        ...


@runtime_checkable
class GridField(ImplicitField, Protocol):
    """A field that knows a faster way to its values on a regular grid."""

    def grid_sampler(self, resolution: int) -> GridSampler:
        """Return a sampler of the grid with ``resolution`` nodes a side, faces included."""
        ...


def grid_axis(resolution: int, radius: float, device: torch.device) -> Tensor:
    """Coordinates (N,) float32 of the grid nodes along each axis, both faces included."""
    return torch.linspace(0, 1, resolution, device=device) * (2 * radius) - radius


def unflatten(indices: Tensor, resolution: int) -> tuple[Tensor, Tensor, Tensor]:
    """Split flat indices (P,) into ix, iy, iz, each (P,)."""
    rows = indices // resolution
    return rows // resolution, rows % resolution, indices % resolution


class PointSampler:
    """Samples any field through its points; needs nothing but ``raw_density``.

    Args:
        field: queried as it is, with points on ``device``.
        resolution: N, nodes a side.
        radius: half side of the cube that the grid spans.
        device: where the points are made.
    """

    def __init__(
        self, field: ImplicitField, resolution: int, radius: float, device: torch.device
    ) -> None:
        self._field = field
        self._resolution = resolution
        self._axis = grid_axis(resolution, radius, device)

    def raw_density(self, indices: Tensor) -> Tensor:
        """Raw density (P,) at flat indices (P,)."""
        columns = unflatten(indices.to(self._axis.device), self._resolution)
        return self._field.raw_density(torch.stack([self._axis[c] for c in columns], dim=-1))
