"""Crop a matted picture to its object and put it on grey (TripoSR spec, section 2)."""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from dream_cad.exceptions import InvalidConfigError

DEFAULT_FOREGROUND_RATIO = 0.85
GREY = 0.5
MIN_RATIO = 0.1
MAX_CANVAS_SIDE = 4096
"""Larger canvases are made from a reduced object: models resize to at most 1024 anyway, and a
wide 64-megapixel picture would otherwise ask for gigabytes of padding."""
_COMPOSITE_ROWS = 256


def crop_to_foreground(rgba: Image.Image, ratio: float = DEFAULT_FOREGROUND_RATIO) -> Image.Image:
    """Crop to the object and pad so that its longest side fills ``ratio`` of a square.

    As in the spec, the last foreground row and column are lost, and nothing is resampled unless
    the canvas would exceed ``MAX_CANVAS_SIDE``.

    Args:
        rgba: RGBA picture; the object is where alpha > 0.
        ratio: object side over canvas side, in [0.1, 1].

    Returns:
        RGBA square; the padding is transparent black.

    Raises:
        InvalidConfigError: the ratio is out of range, there is no alpha, or no object in it.
    """
    _check_ratio(ratio)
    pixels = _slice_foreground(rgba)
    if int(max(pixels.shape[:2]) / ratio) > MAX_CANVAS_SIDE:
        pixels = _reduce(pixels, max_side=int(MAX_CANVAS_SIDE * ratio))
    square = _pad_square(pixels, max(pixels.shape[:2]))
    return Image.fromarray(_pad_square(square, int(square.shape[0] / ratio)))


def composite_on_grey(rgba: Image.Image) -> Image.Image:
    """Blend an RGBA picture with mid grey in float32 and truncate: pure background gives 127."""
    if rgba.mode != "RGBA":
        raise InvalidConfigError(f"The picture has mode {rgba.mode}; RGBA is needed.")
    pixels = np.asarray(rgba)
    out = np.empty((*pixels.shape[:2], 3), np.uint8)
    for start in range(0, len(pixels), _COMPOSITE_ROWS):  # bounds the float32 temporaries
        rows = slice(start, start + _COMPOSITE_ROWS)
        out[rows] = _composite(pixels[rows])
    return Image.fromarray(out)


def prepare_foreground(rgba: Image.Image, ratio: float = DEFAULT_FOREGROUND_RATIO) -> Image.Image:
    """Return the RGB square that image models take: ``crop_to_foreground``, then on grey."""
    return composite_on_grey(crop_to_foreground(rgba, ratio))


def _check_ratio(ratio: float) -> None:
    if not (math.isfinite(ratio) and MIN_RATIO <= ratio <= 1.0):
        raise InvalidConfigError(
            f"foreground_ratio is {ratio}; it must lie in [{MIN_RATIO}, 1].",
            hint=f"The usual value is {DEFAULT_FOREGROUND_RATIO}.",
        )


def _slice_foreground(rgba: Image.Image) -> NDArray[np.uint8]:
    """Return the (h, w, 4) slice of the object, less its last row and column."""
    if rgba.mode != "RGBA":
        raise InvalidConfigError(
            f"The picture has mode {rgba.mode} and so no alpha channel to crop by.",
            hint="Remove the background first.",
        )
    pixels = np.asarray(rgba)
    opaque = pixels[..., 3] > 0
    rows, columns = np.flatnonzero(opaque.any(axis=1)), np.flatnonzero(opaque.any(axis=0))
    if len(rows) == 0 or rows[0] == rows[-1] or columns[0] == columns[-1]:
        raise InvalidConfigError(
            "Nothing is left of the picture once its background is removed.",
            hint="Give a picture of one object on a plain background, or one with alpha.",
        )
    return pixels[rows[0] : rows[-1], columns[0] : columns[-1]]


def _reduce(pixels: NDArray[np.uint8], *, max_side: int) -> NDArray[np.uint8]:
    """Shrink (h, w, 4) so that its longest side is ``max_side``; PIL premultiplies alpha."""
    height, width = pixels.shape[:2]
    scale = max_side / max(height, width)
    size = (max(1, round(width * scale)), max(1, round(height * scale)))
    return np.asarray(Image.fromarray(pixels).resize(size, Image.Resampling.BOX))


def _pad_square(pixels: NDArray[np.uint8], side: int) -> NDArray[np.uint8]:
    """Pad (h, w, 4) with zeros to (side, side, 4); the smaller half goes before."""
    before = [(side - length) // 2 for length in pixels.shape[:2]]
    padding = [(b, side - n - b) for b, n in zip(before, pixels.shape[:2], strict=True)]
    return np.pad(pixels, (*padding, (0, 0)))


def _composite(pixels: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """(h, w, 4) uint8 -> (h, w, 3) uint8, in the order of operations of the spec."""
    scaled = pixels.astype(np.float32) / np.float32(255)
    alpha = scaled[..., 3:]
    blend = scaled[..., :3] * alpha + (1 - alpha) * np.float32(GREY)
    composite: NDArray[np.uint8] = (blend * np.float32(255)).astype(np.uint8)
    return composite
