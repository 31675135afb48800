"""The last steps of a texture: colour around the islands, and 8 bits."""

from __future__ import annotations

from typing import Any, Protocol

import cv2
import numpy as np
from numpy.typing import NDArray

from dream_cad.exceptions import ShapeError

_OFFSETS = [(row, column) for row in (-1, 0, 1) for column in (-1, 0, 1)]


class RandomSource(Protocol):
    """``numpy.random.Generator`` or ``RandomState``."""

    def random(self, size: Any, /) -> Any:
        """Return uniform numbers in [0, 1) of the shape ``size``."""


def dilation_rounds(texture_size: int) -> int:
    """Return the published number of rounds (Stable Fast 3D spec, section 11): 6 at 1024."""
    return texture_size // 150


def dilate(
    image: NDArray[np.floating[Any]], mask: NDArray[np.bool_], rounds: int
) -> NDArray[np.float32]:
    """Let colour grow over the rims of islands, one texel a round (spec, section 11).

    A new texel is the sum, over the 3x3 windows inside the image that hold it, of the window's
    mean of filled texels, divided by the number of filled and new texels around it.

    Args:
        image: (H, W, C) float; values outside the mask are taken as 0.
        mask: (H, W) bool, the filled texels; they keep their values.
        rounds: 0 or more.

    Returns:
        (H, W, C) float32.

    Raises:
        ShapeError: image and mask differ in size.
    """
    if image.shape[:2] != mask.shape or image.ndim != 3:
        raise ShapeError(f"Image {image.shape} and mask {mask.shape} are not (H, W, C) and (H, W).")
    height, width, channels = image.shape
    row_length = width + 2
    grown = np.zeros((height + 2, row_length, channels), dtype=np.float32)
    grown[1:-1, 1:-1][mask] = image[mask]
    filled = np.pad(mask, 1).astype(np.uint8)
    inner = np.zeros_like(filled)  # centres of windows that lie inside the image
    inner[2:-2, 2:-2] = 1
    steps = np.array([row * row_length + column for row, column in _OFFSETS])
    flat = grown.reshape(-1, channels)
    for _ in range(rounds):
        wider = filled.copy()
        wider[1:-1, 1:-1] = cv2.dilate(filled[1:-1, 1:-1], np.ones((3, 3), np.uint8))
        rim = np.flatnonzero(wider != filled)
        if len(rim) == 0:
            break
        flat[rim] = _window_means(flat, filled, wider, inner, rim, steps)
        filled = wider
    return grown[1:-1, 1:-1].copy()


def _window_means(
    flat: NDArray[np.float32],
    filled: NDArray[np.uint8],
    wider: NDArray[np.uint8],
    inner: NDArray[np.uint8],
    rim: NDArray[np.intp],
    steps: NDArray[np.int64],
) -> NDArray[np.float32]:
    is_needed = np.zeros(filled.size, dtype=bool)
    is_needed[(rim[:, None] + steps).ravel()] = True
    windows = np.flatnonzero(is_needed & (inner.ravel() > 0))
    # float32 sums of nine: exact enough, and no second image is needed
    summed = sum(flat[windows + step] for step in steps)
    counted = sum(filled.ravel()[windows + step].astype(np.float32) for step in steps)
    means = np.zeros_like(flat)
    means[windows] = summed / np.maximum(counted, 1)[:, None]
    total = sum(means[rim + step] for step in steps)
    around = sum(wider.ravel()[rim + step].astype(np.float32) for step in steps)
    mixed: NDArray[np.float32] = total / np.maximum(around, 1)[:, None]
    return mixed


def to_uint8(
    image: NDArray[np.floating[Any]],
    random: RandomSource | None = None,
    *,
    where: NDArray[np.bool_] | None = None,
) -> NDArray[np.uint8]:
    """Turn values in [0, 1] into bytes, ``floor(256 x + d)`` clipped (spec, section 11).

    Args:
        image: (H, W, C) float.
        random: source of the dither d in [-1/2, 1/2), one number a texel; None: no dither.
        where: (H, W) bool, the texels to dither; None: all.

    Raises:
        ShapeError: the image holds NaN.
    """
    if np.isnan(image).any():
        raise ShapeError("The image holds NaN; expected numbers from 0 to 1.")
    scaled = image * np.float32(256)
    if random is not None:
        dither = np.asarray(random.random(image.shape[:2])) - 0.5
        if where is not None:
            dither = np.where(where, dither, 0.0)
        scaled = scaled + dither[..., None]
    levels: NDArray[np.uint8] = np.clip(np.floor(scaled), 0, 255).astype(np.uint8)
    return levels
