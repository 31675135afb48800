"""Volume rendering of the radiance field, differentiable and in pure torch."""

from __future__ import annotations

from dataclasses import dataclass, replace

import torch
from torch import Tensor

from dream_cad.models.mvdream.sds_field import RadianceField
from dream_cad.models.mvdream.sds_shading import Light, orientation_penalty

_TINY = 1e-10


@dataclass(frozen=True)
class Rendered:
    """What rays see.

    Attributes:
        weights: (R, S) share of each sample.
        opacity: (R,).
        depth: (R,) summed, not divided by the opacity.
        color: (R, 3) over the background.
        z_variance: (R,) of the samples' distances.
        orientation: mean of the orientation penalty over rays; 0 without light.
    """

    weights: Tensor
    opacity: Tensor
    depth: Tensor
    color: Tensor
    z_variance: Tensor
    orientation: Tensor | float = 0.0


def composite(edges: Tensor, density: Tensor, color: Tensor, background: Tensor) -> Rendered:
    """Sum samples along rays (the published quadrature).

    Args:
        edges: (R, S + 1) distances between which the samples lie.
        density: (R, S).
        color: (R, S, 3).
        background: (R, 3) or (3,).
    """
    step = edges[:, 1:] - edges[:, :-1]
    optical = density * step
    before = torch.cumsum(optical, dim=1) - optical
    weights = torch.exp(-before) * (1 - torch.exp(-optical))
    middle = (edges[:, 1:] + edges[:, :-1]) / 2
    opacity, depth = weights.sum(dim=1), (weights * middle).sum(dim=1)
    seen = (weights[..., None] * color).sum(dim=1) + (1 - opacity[:, None]) * background
    variance = (weights * (middle - depth[:, None]) ** 2).sum(dim=1)
    return Rendered(weights, opacity, depth, seen, variance)


def box_span(origins: Tensor, directions: Tensor, radius: float) -> tuple[Tensor, Tensor]:
    """Return where rays (R, 3) enter and leave the box; equal where they miss it."""
    safe = torch.where(directions.abs() < _TINY, _TINY, directions)
    first, second = (-radius - origins) / safe, (radius - origins) / safe
    near = torch.minimum(first, second).amax(dim=1).clamp(min=0)
    far = torch.maximum(first, second).amin(dim=1)
    return near, torch.maximum(near, far)


def render_rays(
    field: RadianceField,
    origins: Tensor,
    directions: Tensor,
    background: Tensor,
    samples: int,
    occupied: Tensor | None = None,
    jitter: torch.Generator | None = None,
    light: Light | None = None,
    has_normals: bool = False,
) -> Rendered:
    """Render rays (R, 3) with ``samples`` even steps through the box each.

    Args:
        field: density and colour.
        origins: (R, 3).
        directions: (R, 3) unit.
        background: (R, 3).
        samples: S.
        occupied: (G, G, G) bool over the box; samples elsewhere count as empty.
        jitter: moves the samples of each ray by one random part of a step.
        light: on the colours; its views have the same number of rays each.
        has_normals: work out normals and their penalty; a light needs them anyway.
    """
    near, far = box_span(origins, directions, field.config.radius)
    steps = torch.arange(samples + 1, device=origins.device) / samples
    edges = near[:, None] + (far - near)[:, None] * steps
    if jitter is not None:
        shift = torch.rand(len(edges), 1, generator=jitter).to(edges) - 0.5
        edges = edges + shift * (far - near)[:, None] / samples
    middle = (edges[:, 1:] + edges[:, :-1]) / 2
    points = origins[:, None] + directions[:, None] * middle[..., None]
    flat = points.reshape(-1, 3)
    inside = (flat.abs() <= field.config.radius).all(dim=1) & (far > near).repeat_interleave(
        samples
    )
    if occupied is not None:
        inside = inside & _is_occupied(occupied, flat, field.config.radius)
    index = inside.nonzero()[:, 0]
    if light is None and not has_normals:
        density, color = field(flat[index])
        normals = None
    else:
        density, color, normals = field.with_normals(flat[index])
    if light is not None and normals is not None:
        view = index // (len(flat) // len(light.position))
        color = light.shade(color, normals, flat[index], view)
    all_density = flat.new_zeros(len(flat)).index_put((index,), density[:, 0])
    all_color = torch.zeros_like(flat).index_put((index,), color)
    shape = (len(origins), samples)
    seen = composite(edges, all_density.view(shape), all_color.view(*shape, 3), background)
    if normals is None:
        return seen
    all_normals = torch.zeros_like(flat).index_put((index,), normals).view(*shape, 3)
    penalty = orientation_penalty(seen.weights, all_normals, directions)
    return replace(seen, orientation=penalty)


def _is_occupied(occupied: Tensor, points: Tensor, radius: float) -> Tensor:
    size = len(occupied)
    cell = ((points / radius + 1) / 2 * size).long().clamp(0, size - 1)
    return occupied[cell[:, 0], cell[:, 1], cell[:, 2]]
