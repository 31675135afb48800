"""Pictures of Gaussians by the published 3DGS maths, exact: every Gaussian at every pixel.

The plain reference: (rows of the picture at a time) all Gaussians, near to far, without tiles.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from dream_cad.exceptions import ShapeError
from dream_cad.splats.cloud import GaussianCloud

NEAR = 0.2
_BLUR = 0.3
_MAX_ALPHA = 0.99
_MIN_ALPHA = 1 / 255
_MIN_TRANSMITTANCE = 1e-4
_FRUSTUM = 1.3
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


@dataclass(frozen=True)
class _Projected:
    """Gaussians on the picture, near to far: centres, inverse covariances, depths, numbers."""

    mean: FloatArray
    conic: FloatArray
    depth: FloatArray
    index: NDArray[np.intp]
    radii: NDArray[np.int64]


def rasterise(
    cloud: GaussianCloud,
    world_to_camera: NDArray[np.floating[Any]],
    *,
    size: int,
    fovy_deg: float,
    background: tuple[float, float, float] = (1.0, 1.0, 1.0),
    scale_modifier: float = 1.0,
) -> SplatPicture:
    """Draw a cloud.

    Args:
        cloud: the Gaussians.
        world_to_camera: (4, 4), OpenCV axes: x right, y down, z forward.
        size: S, pixels a side; centres lie at whole numbers.
        fovy_deg: field of view.
        background: RGB in [0, 1].
        scale_modifier: factor of the scales.

    Raises:
        ShapeError: the matrix is not (4, 4).
    """
    if world_to_camera.shape != (4, 4):
        raise ShapeError(f"The camera has shape {world_to_camera.shape}; (4, 4) was expected.")
    view = world_to_camera.astype(np.float64)
    tangent = math.tan(math.radians(fovy_deg) / 2)
    seen = _project(cloud, view, size, tangent, scale_modifier)
    pixels = np.stack(np.meshgrid(np.arange(size), np.arange(size)), axis=-1).reshape(-1, 2)
    rows = max(_PAIRS_PER_CHUNK // max(len(seen.index), 1), 1)
    parts = [
        _blend(cloud, seen, pixels[start : start + rows].astype(np.float64))
        for start in range(0, len(pixels), rows)
    ]
    color, depth, alpha, left = (np.concatenate(part) for part in zip(*parts, strict=True))
    image = np.clip(color + left[:, None] * np.asarray(background), 0, 1)
    square = (size, size)
    return SplatPicture(
        image.T.reshape(3, *square).astype(np.float32),
        alpha.reshape(square).astype(np.float32),
        depth.reshape(square).astype(np.float32),
        seen.radii,
    )


def _project(
    cloud: GaussianCloud, view: FloatArray, size: int, tangent: float, modifier: float
) -> _Projected:
    focal = size / (2 * tangent)
    at = cloud.positions.astype(np.float64) @ view[:3, :3].T + view[:3, 3]
    z = np.where(at[:, 2] > NEAR, at[:, 2], 1.0)
    mean = ((at[:, :2] / (z[:, None] * tangent) + 1) * size - 1) / 2
    # the projection's slope is taken inside a slightly wider frustum, where it is tame
    bounded = z[:, None] * np.clip(at[:, :2] / z[:, None], -_FRUSTUM * tangent, _FRUSTUM * tangent)
    slope = np.zeros((len(cloud), 2, 3))
    slope[:, 0, 0] = slope[:, 1, 1] = focal / z
    slope[:, :, 2] = -focal * bounded / (z * z)[:, None]
    turned = slope @ view[:3, :3]
    spread = turned @ (modifier**2 * cloud.covariances()) @ turned.transpose(0, 2, 1)
    spread += _BLUR * np.eye(2)
    determinant = np.linalg.det(spread)
    drawn = (at[:, 2] > NEAR) & (determinant > 0)
    middle = (spread[:, 0, 0] + spread[:, 1, 1]) / 2
    largest = middle + np.sqrt(np.maximum(0.1, middle**2 - determinant))
    radii = np.where(drawn, np.ceil(3 * np.sqrt(largest)), 0).astype(np.int64)
    index = np.flatnonzero(drawn)
    index = index[np.argsort(at[index, 2], kind="stable")]
    conic = np.asarray(np.linalg.inv(spread[index]), dtype=np.float64)
    return _Projected(mean[index], conic, at[index, 2], index, radii)


def _blend(
    cloud: GaussianCloud, seen: _Projected, pixels: FloatArray
) -> tuple[FloatArray, FloatArray, FloatArray, FloatArray]:
    """Return colour (P, 3), depth, alpha and remaining transmittance (P,) at pixels (P, 2)."""
    offset = seen.mean - pixels[:, None]
    power = -0.5 * np.einsum("pgi,gij,pgj->pg", offset, seen.conic, offset)
    opacity = cloud.opacities[seen.index].astype(np.float64)
    alpha = np.minimum(_MAX_ALPHA, opacity * np.exp(np.minimum(power, 0)))
    alpha[(power > 0) | (alpha < _MIN_ALPHA)] = 0
    left = np.cumprod(1 - alpha, axis=1)
    # the Gaussian that would cross the limit is not drawn any more, nor those behind it
    alpha[left < _MIN_TRANSMITTANCE] = 0
    before = np.cumprod(np.concatenate([np.ones((len(alpha), 1)), 1 - alpha], axis=1), axis=1)
    weights = alpha * before[:, :-1]
    color = weights @ cloud.colors[seen.index].astype(np.float64)
    return color, weights @ seen.depth, weights.sum(axis=1), before[:, -1]
