"""Light on the radiance field while it is optimised: shapes that only colours fake look wrong.

The published shading variant: ambient light until the milestone, then in three of four steps a
point light near each camera, half of these without colours; and a loss that turns normals away
from the camera's back. The reference states these numbers, but not where the light stands; that is
DreamFusion's (Poole et al. 2022, appendix A.2): a normal draw around the camera, brought to 0.8 to
1.5 from the object.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor


@dataclass(frozen=True)
class ShadingConfig:
    """How the field is lit; the defaults are MVDream-threestudio's.

    Attributes:
        diffuse_chance: share of the lit steps after the milestone that have a point light.
        textureless_chance: share of those without colours.
        distance: range of the light's distance.
        orientation: (start step, weight, weight, end step) of the orientation loss.
    """

    diffuse_chance: float = 0.75
    textureless_chance: float = 0.5
    distance: tuple[float, float] = (0.8, 1.5)
    orientation: tuple[float, float, float, float] = (0, 10.0, 1000.0, 5000)


@dataclass(frozen=True)
class Light:
    """A point light for each view, and how strong it is.

    Attributes:
        position: (B, 3).
        diffuse: its share, 0..1; the rest is ambient.
        has_colors: whether surfaces keep their colours, or all are white.
    """

    position: Tensor
    diffuse: float
    has_colors: bool

    def shade(self, albedo: Tensor, normals: Tensor, points: Tensor, view: Tensor) -> Tensor:
        """Return the lit colours (P, 3).

        Args:
            albedo: (P, 3) colours.
            normals: (P, 3) unit, outwards.
            points: (P, 3).
            view: (P,) int64, the view that each point is seen in.
        """
        towards = F.normalize(self.position.to(points)[view] - points, dim=1)
        facing = (normals * towards).sum(dim=1, keepdim=True).clamp(min=0)
        brightness = 1 - self.diffuse + self.diffuse * facing
        return brightness * albedo if self.has_colors else brightness.expand_as(albedo)


def draw_light(
    config: ShadingConfig, positions: Tensor, generator: torch.Generator
) -> Light | None:
    """Draw how a step after the milestone is lit; None leaves the field's colours as they are.

    Args:
        config: chances and ranges.
        positions: (B, 3) of the cameras, on the CPU.
        generator: of the CPU.
    """
    chance, white, diffuse = torch.rand(3, generator=generator).tolist()
    around = positions + torch.randn(positions.shape, generator=generator)
    low, high = config.distance
    distance = low + (high - low) * torch.rand(len(positions), 1, generator=generator)
    if chance >= config.diffuse_chance:
        return None
    place = F.normalize(around, dim=1) * distance
    return Light(place, diffuse, has_colors=white >= config.textureless_chance)


def orientation_penalty(weights: Tensor, normals: Tensor, directions: Tensor) -> Tensor:
    """Return the mean over rays of the squared part of normals that looks away from the camera.

    Args:
        weights: (R, S) shares of the samples; the gradient does not reach them.
        normals: (R, S, 3) unit, outwards; zero where nothing is.
        directions: (R, 3) unit, away from the camera.
    """
    away = (normals * directions[:, None]).sum(dim=2).clamp(min=0).square()
    return (weights.detach() * away).sum(dim=1).mean()
