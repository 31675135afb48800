"""The implicit field of one scene code, as surface extraction and texture baking query it."""

from __future__ import annotations

import copy
from typing import Self

import torch
from torch import Tensor

from dream_cad.exceptions import ShapeError
from dream_cad.models.triposr.network import NeRFMLP
from dream_cad.nn.triplane import sample_triplane


class TriplaneField:
    """Density and colour of one object at points of the model frame (spec, section 7).

    Args:
        planes: (3, C, H, W) scene code of one object.
        decoder: takes 3 * C features; on the device of ``planes``.
        radius: half side of the box that the planes cover.
        density_bias: added to the raw density before ``exp``.
    """

    def __init__(
        self, planes: Tensor, decoder: NeRFMLP, *, radius: float, density_bias: float
    ) -> None:
        if planes.ndim != 4 or planes.shape[0] != 3:
            raise ShapeError(f"The scene code has shape {tuple(planes.shape)}, not (3, C, H, W).")
        self.planes = planes
        self.decoder = decoder
        self.radius = radius
        self.density_bias = density_bias

    def to(self, device: torch.device | str) -> Self:
        """Return a copy on another device; the decoder's weights are copied, not moved."""
        return type(self)(
            self.planes.to(device),
            copy.deepcopy(self.decoder).to(device),
            radius=self.radius,
            density_bias=self.density_bias,
        )

    @torch.no_grad()
    def raw(self, points: Tensor) -> Tensor:
        """Decoder output (P, 4) at points (P, 3): raw density, raw red, green and blue."""
        features = sample_triplane(self.planes[None], points[None] / self.radius)
        out: Tensor = self.decoder(features[0])
        return out

    def raw_density(self, points: Tensor) -> Tensor:
        """Density (P,) before the activation ``exp(raw + density_bias)``, at points (P, 3)."""
        return self.raw(points)[:, 0]

    def density(self, points: Tensor) -> Tensor:
        """Activated density (P,) at points (P, 3)."""
        return torch.exp(self.raw_density(points) + self.density_bias)

    def color(self, points: Tensor) -> Tensor:
        """Colour (P, 3) in [0, 1] at points (P, 3)."""
        return torch.sigmoid(self.raw(points)[:, 1:])

    def query(self, points: Tensor) -> tuple[Tensor, Tensor]:
        """Raw density (P,) and colour (P, 3) in one pass over points (P, 3)."""
        raw = self.raw(points)
        return raw[:, 0], torch.sigmoid(raw[:, 1:])
