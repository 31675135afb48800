"""What surface extraction asks of a field: protocols, and how a regular lattice is queried."""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol, runtime_checkable

import torch
from torch import Tensor

ProgressCallback = Callable[[float, str], None]
"""Called with (fraction in [0, 1], stage name); may raise GenerationCancelledError to stop."""

LatticeSampler = Callable[[Tensor, Tensor, Tensor], Tensor]
"""Raw density (P,) of the nodes with indices i, j, k, each (P,) int64, along x, y, z."""


def ignore_progress(fraction: float, stage: str) -> None:
    """Progress callback that does nothing."""


class ImplicitField(Protocol):
    """A density in the cube [-radius, radius]^3: ``exp(raw_density + density_bias)``.

    Points are on the CPU unless the field has an attribute ``device`` or a tensor ``planes``.
    """

    radius: float
    density_bias: float

    def raw_density(self, points: Tensor) -> Tensor:
        """Density (P,) before activation at points (P, 3) float32 of the model frame."""
        ...


@runtime_checkable
class LatticeField(Protocol):
    """A field that knows a faster way to its values on a regular lattice."""

    def on_lattice(self, axis: Tensor) -> LatticeSampler:
        """Prepare for the nodes (axis[i], axis[j], axis[k]); ``axis`` is (N,) float32."""
        ...


def device_of(field: ImplicitField) -> torch.device:
    """Where the field takes its points."""
    owner = getattr(field, "planes", field)
    return torch.device(getattr(owner, "device", "cpu"))


def lattice_axis(resolution: int, radius: float, device: torch.device) -> Tensor:
    """Coordinates (N,) float32 of the nodes along each axis, both faces of the cube included."""
    return torch.linspace(0, 1, resolution, device=device) * (2 * radius) - radius


def lattice_sampler(field: ImplicitField, axis: Tensor) -> LatticeSampler:
    """Return the field's own sampler of the lattice, or one that asks for points."""
    if isinstance(field, LatticeField):
        return field.on_lattice(axis)
    return point_sampler(field, axis)


def point_sampler(field: ImplicitField, axis: Tensor) -> LatticeSampler:
    """Return a sampler of the lattice that asks the field for points."""

    def sample(i: Tensor, j: Tensor, k: Tensor) -> Tensor:
        return field.raw_density(torch.stack([axis[i], axis[j], axis[k]], dim=-1))

    return sample
