"""Gaussians on the picture plane, by the published 3DGS maths, in double precision."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor

from dream_cad.mesh.views import View
from dream_cad.splats.cloud import GaussianCloud

NEAR = 0.2
MAX_ALPHA = 0.99
MIN_ALPHA = 1 / 255
MIN_TRANSMITTANCE = 1e-4
_FRUSTUM = 1.3
_TINY = 1e-6


@dataclass(frozen=True)
class ScreenFilter:
    """How Gaussians are widened to the size of pixels, and how far they are drawn.

    Attributes:
        blur: variance in squared pixels that every Gaussian is widened by.
        keeps_weight: lower the opacity as much as the widening raised the area (mip-splatting).
        tile: a Gaussian is drawn in the tiles of so many pixels that the square of three
            deviations touches, and there only; None: wherever it is visible.
    """

    blur: float = 0.3
    keeps_weight: bool = False
    tile: int | None = None


PLAIN_FILTER = ScreenFilter()
MIP_FILTER = ScreenFilter(blur=0.1, keeps_weight=True, tile=16)
"""What TRELLIS's Gaussians were trained with (its spec, section 11a)."""


@dataclass(frozen=True)
class ProjectedSplats:
    """The M Gaussians that a view may show, near to far; tensors on one device.

    Attributes:
        mean: (M, 2) float64 places in pixels; the centres of pixels lie at whole numbers.
        covariance: (M, 2, 2) float64 in squared pixels, widened.
        opacity: (M,) float64 at the centre.
        depth: (M,) float64 along the axis.
        color: (M, 3) float32.
        low: (M, 2) int64 first column and row that may be drawn.
        high: (M, 2) int64 one beyond the last.
        radii: (G,) int64 of all Gaussians: three deviations in pixels, 0 where nothing is drawn.
    """

    mean: Tensor
    covariance: Tensor
    opacity: Tensor
    depth: Tensor
    color: Tensor
    low: Tensor
    high: Tensor
    radii: Tensor


def project(
    cloud: GaussianCloud,
    view: View,
    size: int,
    screen_filter: ScreenFilter = PLAIN_FILTER,
    scale_modifier: float = 1.0,
    device: str | torch.device = "cpu",
) -> ProjectedSplats:
    """Project a cloud into a view of ``size`` pixels a side and sort it by depth."""
    matrix = torch.from_numpy(view.world_to_camera).to(device)
    at = _tensor(cloud.positions, device) @ matrix[:3, :3].T + matrix[:3, 3]
    z = torch.where(at[:, 2] > NEAR, at[:, 2], 1.0)
    mean = ((at[:, :2] / (z[:, None] * view.tangent) + 1) * size - 1) / 2
    axes = _axes(_tensor(cloud.rotations, device), _tensor(cloud.scales, device) * scale_modifier)
    plain = _flatten(matrix[:3, :3] @ axes, at, z, size, view.tangent)
    wide = plain + screen_filter.blur * torch.eye(2, dtype=plain.dtype, device=device)
    determinant = _determinant(wide)
    drawn = (at[:, 2] > NEAR) & (determinant > 0)
    middle = (wide[:, 0, 0] + wide[:, 1, 1]) / 2
    largest = middle + (middle**2 - determinant).clamp(min=0.1).sqrt()
    radii = torch.where(drawn, (3 * largest.sqrt()).ceil(), 0.0).long()
    opacity = _tensor(cloud.opacities, device)
    if screen_filter.keeps_weight:
        opacity = opacity * _weight_kept(_determinant(plain), determinant)
    low, high = _bounds(mean, radii, size, screen_filter.tile)
    index = (drawn & (high > low).all(dim=1)).nonzero()[:, 0]
    index = index[at[index, 2].argsort(stable=True)]
    return ProjectedSplats(
        mean=mean[index],
        covariance=wide[index],
        opacity=opacity[index],
        depth=at[index, 2],
        color=torch.from_numpy(cloud.colors).to(device)[index],
        low=low[index],
        high=high[index],
        radii=radii,
    )


def _tensor(values: NDArray[np.float32], device: str | torch.device) -> Tensor:
    return torch.from_numpy(np.ascontiguousarray(values)).to(device).double()


def _axes(rotations: Tensor, scales: Tensor) -> Tensor:
    """Return (G, 3, 3): the columns are the Gaussians' axes, as long as their deviations."""
    w, x, y, z = F.normalize(rotations, dim=1).unbind(1)
    rows = (
        torch.stack((1 - 2 * (y * y + z * z), 2 * (x * y - w * z), 2 * (x * z + w * y)), -1),
        torch.stack((2 * (x * y + w * z), 1 - 2 * (x * x + z * z), 2 * (y * z - w * x)), -1),
        torch.stack((2 * (x * z - w * y), 2 * (y * z + w * x), 1 - 2 * (x * x + y * y)), -1),
    )
    return torch.stack(rows, dim=1) * scales[:, None]


def _flatten(axes: Tensor, at: Tensor, z: Tensor, size: int, tangent: float) -> Tensor:
    """Return the covariances (G, 2, 2) on the picture, in squared pixels, of axes (G, 3, 3)."""
    focal = size / (2 * tangent)
    # the projection's slope is taken inside a slightly wider frustum, where it is tame
    reach = _FRUSTUM * tangent
    bounded = (at[:, :2] / z[:, None]).clamp(-reach, reach)
    turned = (axes[:, :2] - bounded[:, :, None] * axes[:, 2:]) * (focal / z)[:, None, None]
    return turned @ turned.transpose(1, 2)


def _determinant(matrices: Tensor) -> Tensor:
    return matrices[:, 0, 0] * matrices[:, 1, 1] - matrices[:, 0, 1] ** 2


def _weight_kept(plain: Tensor, wide: Tensor) -> Tensor:
    """Factor of the opacity that keeps a Gaussian's weight when it is widened."""
    before, after = plain.clamp(min=_TINY), wide.clamp(min=_TINY)
    factor = (before / (after + _TINY) + _TINY).sqrt()
    return torch.where((before <= _TINY) | (after <= _TINY), 0.0, factor)


def _bounds(mean: Tensor, radii: Tensor, size: int, tile: int | None) -> tuple[Tensor, Tensor]:
    if tile is None:
        low = torch.zeros_like(mean, dtype=torch.int64)
        return low, torch.full_like(low, size)
    tiles = -(-size // tile)
    radius = radii[:, None]
    # bounded first: places just in front of the camera lie beyond any integer
    places = mean.clamp(-1e6, 1e6)
    first = ((places - radius) / tile).trunc().clamp(0, tiles).long()
    last = ((places + radius + tile - 1) / tile).trunc().clamp(0, tiles).long()
    return first * tile, last * tile
