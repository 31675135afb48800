"""Training cameras of score distillation: groups of four views around the object, z up."""

from __future__ import annotations

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

N_VIEW = 4


@dataclass(frozen=True)
class CameraRanges:
    """Where cameras are drawn from; degrees, and distances over 1 / tan(fovy / 2)."""

    elevation: tuple[float, float] = (0.0, 30.0)
    azimuth: tuple[float, float] = (-180.0, 180.0)
    fovy: tuple[float, float] = (15.0, 60.0)
    distance: tuple[float, float] = (0.8, 1.0)


@dataclass(frozen=True)
class Draws:
    """Uniform numbers in [0, 1), one a group of views, in the published order."""

    elevation: Tensor
    azimuth: Tensor
    fovy: Tensor
    distance: Tensor


@dataclass(frozen=True)
class Cameras:
    """Cameras (B,); the views of a group lie next to each other.

    Attributes:
        c2w: (B, 4, 4) camera-to-world, OpenGL axes, world z up, front +x.
        elevation, azimuth, fovy: (B,) degrees.
        distance: (B,).
    """

    c2w: Tensor
    elevation: Tensor
    azimuth: Tensor
    fovy: Tensor
    distance: Tensor


def place_cameras(draws: Draws, ranges: CameraRanges, *, on_sphere: bool) -> Cameras:
    """Turn uniform draws into cameras.

    Args:
        draws: one of each a group.
        ranges: where they lie.
        on_sphere: elevations by area of the sphere (as published, up to 19.5 degrees for 0..30)
            instead of by angle.
    """
    low, high = ranges.elevation
    if on_sphere:
        first, last = (low + 90) / 180, (high + 90) / 180
        share = draws.elevation * (last - first) + first
        elevation = torch.asin(2 * share - 1).rad2deg()
    else:
        elevation = draws.elevation * (high - low) + low
    view = torch.arange(N_VIEW)
    turn = (draws.azimuth[:, None] + view) / N_VIEW
    azimuth = (turn * (ranges.azimuth[1] - ranges.azimuth[0]) + ranges.azimuth[0]).reshape(-1)
    fovy = draws.fovy * (ranges.fovy[1] - ranges.fovy[0]) + ranges.fovy[0]
    relative = draws.distance * (ranges.distance[1] - ranges.distance[0]) + ranges.distance[0]
    distance = relative / torch.tan(fovy.deg2rad() / 2)
    each = [value.repeat_interleave(N_VIEW) for value in (elevation, fovy, distance)]
    return Cameras(look_at(each[0], azimuth, each[2]), each[0], azimuth, each[1], each[2])


def look_at(elevation: Tensor, azimuth: Tensor, distance: Tensor) -> Tensor:
    """Return camera-to-world matrices (B, 4, 4) that look at the origin; angles in degrees."""
    e, a = elevation.deg2rad(), azimuth.deg2rad()
    position = torch.stack([e.cos() * a.cos(), e.cos() * a.sin(), e.sin()], dim=-1)
    position = position * distance[:, None]
    forward = F.normalize(-position, dim=-1)
    up = torch.tensor([0.0, 0.0, 1.0]).to(position).expand_as(position)
    right = F.normalize(torch.linalg.cross(forward, up), dim=-1)
    matrices = torch.zeros(len(position), 4, 4).to(position)
    matrices[:, :3, 0] = right
    matrices[:, :3, 1] = F.normalize(torch.linalg.cross(right, forward), dim=-1)
    matrices[:, :3, 2] = -forward
    matrices[:, :3, 3] = position
    matrices[:, 3, 3] = 1
    return matrices


def draw_cameras(groups: int, ranges: CameraRanges, generator: torch.Generator) -> Cameras:
    """Draw cameras for ``groups`` groups of four views."""
    on_sphere = bool(torch.rand(1, generator=generator) >= 0.5)
    numbers = [torch.rand(groups, generator=generator) for _ in range(4)]
    return place_cameras(Draws(*numbers), ranges, on_sphere=on_sphere)


def camera_rays(cameras: Cameras, size: int) -> tuple[Tensor, Tensor]:
    """Return origins and unit directions (B, S, S, 3) of the pixels."""
    focal = 0.5 * size / torch.tan(cameras.fovy.deg2rad() / 2)
    centre = torch.arange(size, dtype=torch.float32) + 0.5 - size / 2
    y, x = torch.meshgrid(-centre, centre, indexing="ij")
    plane = torch.stack([x, y, torch.zeros_like(x)], dim=-1) / focal[:, None, None, None]
    plane = plane - torch.tensor([0.0, 0.0, 1.0])
    directions = torch.einsum("bhwc,bdc->bhwd", plane, cameras.c2w[:, :3, :3])
    directions = F.normalize(directions, dim=-1)
    origins = cameras.c2w[:, None, None, :3, 3].expand_as(directions)
    return origins, directions


def scheduled(value: tuple[float, float, float, float], step: int) -> float:
    """Interpolate (start step, start value, end value, end step) linearly, constant outside."""
    start, first, last, end = value
    share = max(min(1.0, (step - start) / (end - start)), 0.0)
    return first + (last - first) * share
