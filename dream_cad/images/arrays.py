"""Arrays as pictures: dtype, shape and range are checked, deep values are scaled."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from dream_cad.exceptions import InvalidConfigError, ShapeError

_UINT16_PER_UINT8 = np.float32(257)  # 65535 / 255


def array_to_image(array: NDArray[Any]) -> Image.Image:
    """Convert an array to an 8-bit PIL image.

    Args:
        array: (H, W), (H, W, 1), (H, W, 3) or (H, W, 4); uint8, uint16 (scaled), bool, or float
            with finite values in [0, 1].

    Returns:
        RGB, or RGBA for four channels; a copy.

    Raises:
        ShapeError: another shape or dtype.
        InvalidConfigError: NaN, infinite or out-of-range values.
    """
    if array.ndim not in (2, 3) or 0 in array.shape or (array.ndim == 3 and array.shape[2] == 2):
        raise _bad_shape(array)
    pixels = _to_uint8(array)
    if pixels.ndim == 2:
        pixels = pixels[..., None]
    if pixels.shape[2] == 1:
        pixels = np.repeat(pixels, 3, axis=2)
    if pixels.shape[2] not in (3, 4):
        raise _bad_shape(array)
    return Image.fromarray(np.array(pixels, order="C"))


def _bad_shape(array: NDArray[Any]) -> ShapeError:
    return ShapeError(
        f"The image array has shape {array.shape}; (H, W), (H, W, 3) or (H, W, 4) is needed.",
        hint="Channels come last; pass one picture at a time.",
    )


def _to_uint8(array: NDArray[Any]) -> NDArray[np.uint8]:
    if array.dtype == np.uint8:
        return array
    if array.dtype == np.bool_:
        return array.astype(np.uint8) * np.uint8(255)
    if array.dtype == np.uint16:
        return _round(array.astype(np.float32) / _UINT16_PER_UINT8)
    if np.issubdtype(array.dtype, np.floating):
        _check_unit_range(array)
        return _round(array.astype(np.float32) * 255)
    raise ShapeError(
        f"The image array has dtype {array.dtype}; uint8, uint16, bool or float is needed.",
        hint="Use array.astype(numpy.uint8) for values 0 to 255.",
    )


def _round(values: NDArray[np.float32]) -> NDArray[np.uint8]:
    rounded: NDArray[np.uint8] = np.rint(values).astype(np.uint8)
    return rounded


def _check_unit_range(array: NDArray[Any]) -> None:
    if not np.isfinite(array).all():
        raise InvalidConfigError("The image array holds NaN or infinite values.")
    low, high = float(array.min()), float(array.max())
    if low < 0 or high > 1:
        raise InvalidConfigError(
            f"The image array is float with values from {low:g} to {high:g}; [0, 1] is needed.",
            hint="Divide by 255, or pass uint8.",
        )
