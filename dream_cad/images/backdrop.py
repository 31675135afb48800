"""Model the backdrop of a studio-like picture from its border.

The backdrop is a smooth colour field (a quadratic polynomial in x and y for each Lab channel, so
flat, graded and vignetted backdrops fit) plus noise. The fit is robust: an object may cover up to
about two fifths of the border.
"""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np
from numpy.typing import NDArray

FloatArray = NDArray[np.float32]

_BORDER_FRACTION = 0.04
_FIT_ROUNDS = 8
_NOISE_FLOOR = np.array((1.2, 1.0, 1.0), np.float32)
"""Lab units; 8-bit rounding and JPEG make this much even of a flat backdrop."""
_MAD_TO_SIGMA = 1.4826
_CUT_SIGMAS = 3.0


@dataclass(frozen=True)
class Backdrop:
    """What a picture would show without its object.

    Attributes:
        lab: (H, W, 3) float32, the expected colour of each pixel in CIE Lab.
        sigma: (3,) float32, noise of each Lab channel, never below the floor.
        distance: (H, W) float32, how many sigmas each pixel's colour is from the backdrop.
    """

    lab: FloatArray
    sigma: FloatArray
    distance: FloatArray


def to_lab(rgb: NDArray[np.uint8]) -> FloatArray:
    """Convert (H, W, 3) uint8 sRGB to float32 CIE Lab (L 0..100)."""
    scaled = rgb.astype(np.float32) / np.float32(255)
    return np.asarray(cv2.cvtColor(scaled, cv2.COLOR_RGB2Lab), np.float32)


def fit_backdrop(rgb: NDArray[np.uint8]) -> Backdrop:
    """Fit the backdrop of (H, W, 3) uint8 sRGB to its border pixels."""
    lab = to_lab(rgb)
    height, width = lab.shape[:2]
    terms = _polynomial_terms(height, width)
    border = _border_mask(height, width)
    coefficients, sigma = _robust_fit(terms[border], lab[border])
    expected = (terms.reshape(-1, terms.shape[-1]) @ coefficients).reshape(lab.shape)
    distance = np.sqrt((((lab - expected) / sigma) ** 2).sum(axis=-1))
    return Backdrop(expected.astype(np.float32), sigma, distance.astype(np.float32))


def _polynomial_terms(height: int, width: int) -> FloatArray:
    """(H, W, 6): 1, x, y, x^2, xy, y^2 with x and y in [-1, 1]."""
    y, x = np.meshgrid(
        np.linspace(-1, 1, height, dtype=np.float32),
        np.linspace(-1, 1, width, dtype=np.float32),
        indexing="ij",
    )
    return np.stack((np.ones_like(x), x, y, x * x, x * y, y * y), axis=-1)


def _border_mask(height: int, width: int) -> NDArray[np.bool_]:
    band = max(2, round(_BORDER_FRACTION * min(height, width)))
    mask = np.ones((height, width), bool)
    mask[band:-band, band:-band] = False
    return mask


def _robust_fit(terms: FloatArray, colors: FloatArray) -> tuple[FloatArray, FloatArray]:
    """Least trimmed squares: (n, 6) and (n, 3) -> coefficients (6, 3) and sigma (3,).

    Starts from the pixels nearest the median colour, so that an object at the border does not
    bend the first fit, and then grows to all pixels that agree.
    """
    offset = np.abs(colors - np.median(colors, axis=0)).sum(axis=1)
    keep = offset <= np.quantile(offset, 0.6)
    sigma = _NOISE_FLOOR
    coefficients = np.zeros((terms.shape[1], 3), np.float32)
    for _ in range(_FIT_ROUNDS):
        coefficients = _ridge(terms[keep], colors[keep])
        residual = np.abs(colors - terms @ coefficients)
        spread = _MAD_TO_SIGMA * np.median(residual[keep], axis=0)
        sigma = np.maximum(spread, _NOISE_FLOOR).astype(np.float32)
        keep = (residual / sigma).max(axis=1) <= _CUT_SIGMAS
        if np.count_nonzero(keep) < terms.shape[1] * 4:
            break
    return coefficients, sigma


def _ridge(terms: FloatArray, colors: FloatArray) -> FloatArray:
    """Least squares with a faint pull of the slopes to zero, which keeps thin evidence tame."""
    pull = np.diag((0.0, *(1e-3,) * (terms.shape[1] - 1))).astype(np.float32) * len(terms)
    solved: FloatArray = np.linalg.solve(terms.T @ terms + pull, terms.T @ colors)
    return solved.astype(np.float32)
