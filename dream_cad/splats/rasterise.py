"""Pictures of Gaussians by the published 3DGS maths, exact: every Gaussian at every pixel.

The plain reference: (rows of the picture at a time) all Gaussians, near to far, without sorting
into tiles. ``dream_cad.splats.tiles`` is the fast twin.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from dream_cad.mesh.views import View
from dream_cad.splats.cloud import GaussianCloud
from dream_cad.splats.projection import (
    MAX_ALPHA,
    MIN_ALPHA,
    MIN_TRANSMITTANCE,
    PLAIN_FILTER,
    ProjectedSplats,
    ScreenFilter,
    project,
)

_PAIRS_PER_CHUNK = 4_000_000

FloatArray = NDArray[np.float64]


@dataclass(frozen=True)
class SplatPicture:
    """What a camera sees.

    Attributes:
        image: (3, S, S) float32 in [0, 1], over the background.
        alpha: (S, S) float32.
        depth: (S, S) float32, summed, not divided by alpha.
        radii: (G,) int64 three deviations in pixels; 0 for Gaussians that are not drawn.
    """

    image: NDArray[np.float32]
    alpha: NDArray[np.float32]
    depth: NDArray[np.float32]
    radii: NDArray[np.int64]


def rasterise(
    cloud: GaussianCloud,
    world_to_camera: NDArray[np.floating[Any]],
    *,
    size: int,
    fovy_deg: float,
    background: tuple[float, float, float] = (1.0, 1.0, 1.0),
    scale_modifier: float = 1.0,
    screen_filter: ScreenFilter = PLAIN_FILTER,
) -> SplatPicture:
    """Draw a cloud.

    Args:
        cloud: the Gaussians.
        world_to_camera: (4, 4), OpenCV axes: x right, y down, z forward.
        size: S, pixels a side; centres lie at whole numbers.
        fovy_deg: field of view.
        background: RGB in [0, 1].
        scale_modifier: factor of the scales.
        screen_filter: how Gaussians are widened and cut.

    Raises:
        ShapeError: the matrix is not (4, 4).
    """
    view = View(world_to_camera.astype(np.float64), fovy_deg)
    seen = project(cloud, view, size, screen_filter, scale_modifier)
    pixels = np.stack(np.meshgrid(np.arange(size), np.arange(size)), axis=-1).reshape(-1, 2)
    color, depth, alpha, left = blend_pixels(seen, pixels)
    image = np.clip(color + left[:, None] * np.asarray(background), 0, 1)
    square = (size, size)
    return SplatPicture(
        image.T.reshape(3, *square).astype(np.float32),
        alpha.reshape(square).astype(np.float32),
        depth.reshape(square).astype(np.float32),
        seen.radii.numpy(),
    )


def blend_pixels(
    seen: ProjectedSplats, pixels: NDArray[np.int64]
) -> tuple[FloatArray, FloatArray, FloatArray, FloatArray]:
    """Return colour (P, 3), depth, alpha and remaining transmittance (P,) at pixels (P, 2)."""
    rows = max(_PAIRS_PER_CHUNK // max(len(seen.mean), 1), 1)
    parts = [
        _blend(seen, pixels[start : start + rows].astype(np.float64))
        for start in range(0, len(pixels), rows)
    ]
    color, depth, alpha, left = (np.concatenate(part) for part in zip(*parts, strict=True))
    return color, depth, alpha, left


def _blend(
    seen: ProjectedSplats, pixels: FloatArray
) -> tuple[FloatArray, FloatArray, FloatArray, FloatArray]:
    mean, low, high = seen.mean.numpy(), seen.low.numpy(), seen.high.numpy()
    x, y = (mean[:, axis] - pixels[:, axis, None] for axis in (0, 1))
    conic = np.linalg.inv(seen.covariance.numpy())
    power = -0.5 * (conic[:, 0, 0] * x * x + conic[:, 1, 1] * y * y) - conic[:, 0, 1] * x * y
    alpha = np.minimum(MAX_ALPHA, seen.opacity.numpy() * np.exp(np.minimum(power, 0)))
    outside = np.zeros(alpha.shape, bool)
    for axis in (0, 1):
        at = pixels[:, axis, None]
        outside |= (at < low[:, axis]) | (at >= high[:, axis])
    alpha[outside | (power > 0) | (alpha < MIN_ALPHA)] = 0
    left = np.cumprod(1 - alpha, axis=1)
    # the Gaussian that would cross the limit is not drawn any more, nor those behind it
    alpha[left < MIN_TRANSMITTANCE] = 0
    before = np.cumprod(np.concatenate([np.ones((len(alpha), 1)), 1 - alpha], axis=1), axis=1)
    weights = alpha * before[:, :-1]
    color = weights @ seen.color.double().numpy()
    return color, weights @ seen.depth.numpy(), weights.sum(axis=1), before[:, -1]
