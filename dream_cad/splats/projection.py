"""Gaussians on the picture plane, by the published 3DGS maths."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from dream_cad.mesh.views import View
from dream_cad.splats.cloud import GaussianCloud

NEAR = 0.2
MAX_ALPHA = 0.99
MIN_ALPHA = 1 / 255
MIN_TRANSMITTANCE = 1e-4
_FRUSTUM = 1.3
_TINY = 1e-6

FloatArray = NDArray[np.float64]


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
    """The M Gaussians that a view may show, near to far.

    Attributes:
        mean: (M, 2) places in pixels; the centres of pixels lie at whole numbers.
        covariance: (M, 2, 2) in squared pixels, widened.
        opacity: (M,) at the centre.
        depth: (M,) along the axis.
        low: (M, 2) int64 first column and row that may be drawn.
        high: (M, 2) int64 one beyond the last.
        index: (M,) numbers in the cloud.
        radii: (G,) int64 of all Gaussians: three deviations in pixels, 0 where nothing is drawn.
    """

    mean: FloatArray
    covariance: FloatArray
    opacity: FloatArray
    depth: FloatArray
    low: NDArray[np.int64]
    high: NDArray[np.int64]
    index: NDArray[np.intp]
    radii: NDArray[np.int64]


def project(
    cloud: GaussianCloud,
    view: View,
    size: int,
    screen_filter: ScreenFilter = PLAIN_FILTER,
    scale_modifier: float = 1.0,
) -> ProjectedSplats:
    """Project a cloud into a view of ``size`` pixels a side and sort it by depth."""
    at = view.to_camera(cloud.positions)
    z = np.where(at[:, 2] > NEAR, at[:, 2], 1.0)
    mean = ((at[:, :2] / (z[:, None] * view.tangent) + 1) * size - 1) / 2
    plain = _flatten(cloud, view, at, z, size, scale_modifier)
    wide = plain + screen_filter.blur * np.eye(2)
    determinant = _determinant(wide)
    drawn = (at[:, 2] > NEAR) & (determinant > 0)
    middle = (wide[:, 0, 0] + wide[:, 1, 1]) / 2
    largest = middle + np.sqrt(np.maximum(0.1, middle**2 - determinant))
    radii = np.where(drawn, np.ceil(3 * np.sqrt(largest)), 0).astype(np.int64)
    opacity = cloud.opacities.astype(np.float64)
    if screen_filter.keeps_weight:
        opacity = opacity * _weight_kept(_determinant(plain), determinant)
    low, high = _bounds(mean, radii, size, screen_filter.tile)
    index = np.flatnonzero(drawn & (high > low).all(axis=1))
    index = index[np.argsort(at[index, 2], kind="stable")]
    return ProjectedSplats(
        mean[index],
        wide[index],
        opacity[index],
        at[index, 2],
        low[index],
        high[index],
        index,
        radii,
    )


def _flatten(
    cloud: GaussianCloud, view: View, at: FloatArray, z: FloatArray, size: int, modifier: float
) -> FloatArray:
    """Return the covariances (G, 2, 2) on the picture, in squared pixels."""
    focal = size / (2 * view.tangent)
    # the projection's slope is taken inside a slightly wider frustum, where it is tame
    reach = _FRUSTUM * view.tangent
    bounded = z[:, None] * np.clip(at[:, :2] / z[:, None], -reach, reach)
    slope = np.zeros((len(cloud), 2, 3))
    slope[:, 0, 0] = slope[:, 1, 1] = focal / z
    slope[:, :, 2] = -focal * bounded / (z * z)[:, None]
    axes = cloud.rotation_matrices() * (modifier * cloud.scales[:, None, :].astype(np.float64))
    turned = slope @ view.world_to_camera[:3, :3] @ axes
    flat: FloatArray = turned @ turned.transpose(0, 2, 1)
    return flat


def _determinant(matrices: FloatArray) -> FloatArray:
    a, b, d = matrices[:, 0, 0], matrices[:, 0, 1], matrices[:, 1, 1]
    product: FloatArray = a * d - b * b
    return product


def _weight_kept(plain: FloatArray, wide: FloatArray) -> FloatArray:
    """Factor of the opacity that keeps a Gaussian's weight when it is widened."""
    before, after = np.maximum(plain, _TINY), np.maximum(wide, _TINY)
    factor = np.sqrt(before / (after + _TINY) + _TINY)
    return np.where((before <= _TINY) | (after <= _TINY), 0.0, factor)


def _bounds(
    mean: FloatArray, radii: NDArray[np.int64], size: int, tile: int | None
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    if tile is None:
        low = np.zeros(mean.shape, np.int64)
        return low, np.full(mean.shape, size, np.int64)
    tiles = -(-size // tile)
    radius = radii[:, None]
    # bounded first: places just in front of the camera lie beyond any integer
    places = np.clip(mean, -1e6, 1e6)
    first = np.clip(np.trunc((places - radius) / tile), 0, tiles).astype(np.int64)
    last = np.clip(np.trunc((places + radius + tile - 1) / tile), 0, tiles).astype(np.int64)
    return first * tile, last * tile
