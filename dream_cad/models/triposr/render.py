"""Volume rendering of a scene code, for previews of the field itself (spec, section 11)."""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor

FieldQuery = Callable[[Tensor], tuple[Tensor, Tensor]]
"""Points (P, 3) in the model frame to raw density (P,) and colour (P, 3) in [0, 1]."""

# The rendered box is a little smaller than the field, away from its half-zero border.
_BOX_SHRINK = 0.999
_MIN_SEGMENT = 0.01
_MIN_DIRECTION = 1e-6
_TRANSMITTANCE_EPS = 1e-10
_RAYS_PER_CHUNK = 4096


def orbit_rays(
    n_views: int,
    *,
    elevation_deg: float = 0.0,
    distance: float = 1.9,
    fovy_deg: float = 40.0,
    height: int = 256,
    width: int = 256,
) -> tuple[Tensor, Tensor]:
    """Return the rays of cameras on a circle around the z axis that look at the origin.

    View k stands at azimuth ``360 k / n_views`` degrees; azimuth 0 is on +x, the front.

    Returns:
        Origins and unit directions, both (n_views, height, width, 3) float32, model frame.
    """
    azimuth = torch.arange(n_views, dtype=torch.float32) * (2 * math.pi / n_views)
    elevation = torch.full_like(azimuth, math.radians(elevation_deg))
    outward = torch.stack(
        (elevation.cos() * azimuth.cos(), elevation.cos() * azimuth.sin(), elevation.sin()), dim=-1
    )
    right = F.normalize(torch.linalg.cross(-outward, _up(n_views), dim=-1), dim=-1)
    up = torch.linalg.cross(right, -outward, dim=-1)
    focal = 0.5 * height / math.tan(math.radians(fovy_deg) / 2)
    x = (torch.arange(width) + 0.5 - width / 2) / focal
    y = (torch.arange(height) + 0.5 - height / 2) / focal
    directions = (
        x[None, None, :, None] * right[:, None, None]
        - y[None, :, None, None] * up[:, None, None]
        - outward[:, None, None]
    )
    origins = (distance * outward)[:, None, None].expand_as(directions)
    return origins.contiguous(), F.normalize(directions, dim=-1)


def _up(n_views: int) -> Tensor:
    return torch.tensor([0.0, 0.0, 1.0]).expand(n_views, 3)


def intersect_box(origins: Tensor, directions: Tensor, radius: float) -> tuple[Tensor, ...]:
    """Intersect rays with the box [-radius, radius]^3, slightly shrunken.

    Args:
        origins: (R, 3).
        directions: (R, 3) unit.
        radius: half side of the box.

    Returns:
        ``near`` and ``far`` (R, 1), distances with near >= 0 and both 0 for a miss, and
        ``valid`` (R,) bool: whether the ray is inside for more than 0.01.
    """
    tiny = directions.abs() < _MIN_DIRECTION
    safe = torch.where(tiny, torch.full_like(directions, _MIN_DIRECTION), directions)
    half = radius * _BOX_SHRINK
    first, second = (half - origins) / safe, (-half - origins) / safe
    near = torch.minimum(first, second).amax(dim=-1, keepdim=True).clamp_min(0.0)
    far = torch.maximum(first, second).amin(dim=-1, keepdim=True)
    valid = far - near > _MIN_SEGMENT
    return near * valid, far * valid, valid[:, 0]


def render_rays(
    query: FieldQuery,
    origins: Tensor,
    directions: Tensor,
    *,
    radius: float,
    density_bias: float = -1.0,
    num_samples: int = 128,
) -> Tensor:
    """Integrate colour along rays on a white background; rays that miss the box are white.

    Args:
        query: the field, on the device of the rays.
        origins: (..., 3) model frame.
        directions: (..., 3) unit.
        radius: half side of the field's box.
        density_bias: added to the raw density before ``exp``.
        num_samples: mid-points of each ray's segment. The step is ``1 / num_samples`` of the
            segment whatever its length, as in the published model.

    Returns:
        Colours (..., 3) in [0, 1].
    """
    flat_origins, flat_directions = origins.reshape(-1, 3), directions.reshape(-1, 3)
    near, far, valid = intersect_box(flat_origins, flat_directions, radius)
    colors = torch.ones_like(flat_origins)
    steps = (torch.arange(num_samples, device=origins.device) + 0.5) / num_samples
    for rays in torch.split(valid.nonzero()[:, 0], _RAYS_PER_CHUNK):
        distances = near[rays] + (far[rays] - near[rays]) * steps
        points = flat_origins[rays, None] + distances[..., None] * flat_directions[rays, None]
        raw, color = query(points.reshape(-1, 3))
        density = torch.exp(raw + density_bias).view(-1, num_samples)
        colors[rays] = _composite(density, color.view(-1, num_samples, 3))
    return colors.view(origins.shape)


def _composite(density: Tensor, color: Tensor) -> Tensor:
    """Blend samples (R, S) and (R, S, 3) front to back over white; returns (R, 3)."""
    alpha = 1 - torch.exp(-density / density.shape[1])
    passed = torch.cumprod(1 - alpha + _TRANSMITTANCE_EPS, dim=1)
    transmittance = torch.cat((torch.ones_like(passed[:, :1]), passed[:, :-1]), dim=1)
    weights = (alpha * transmittance)[..., None]
    return (weights * color).sum(dim=1) + 1 - weights.sum(dim=1)
