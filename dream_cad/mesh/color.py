"""Colour conversions between sRGB and linear light, and texture look-up."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

# IEC 61966-2-1, the transfer function that glTF 2.0 names for base colours.
_CUT_ENCODED, _CUT_LINEAR, _SLOPE, _GAMMA, _OFFSET = 0.04045, 0.0031308, 12.92, 2.4, 0.055


def srgb_to_linear(encoded: NDArray[np.floating[Any]]) -> NDArray[np.floating[Any]]:
    """Decode sRGB values in [0, 1] (any shape) to linear light in [0, 1]."""
    return np.where(
        encoded <= _CUT_ENCODED,
        encoded / _SLOPE,
        ((encoded + _OFFSET) / (1 + _OFFSET)) ** _GAMMA,
    )


def linear_to_srgb(linear: NDArray[np.floating[Any]]) -> NDArray[np.floating[Any]]:
    """Encode linear light in [0, 1] (any shape) as sRGB values in [0, 1]."""
    return np.where(
        linear <= _CUT_LINEAR,
        linear * _SLOPE,
        (1 + _OFFSET) * np.maximum(linear, 0) ** (1 / _GAMMA) - _OFFSET,
    )


def sample_texture(texture: NDArray[np.uint8], uv: NDArray[np.floating[Any]]) -> NDArray[np.uint8]:
    """Look colours up bilinearly.

    Args:
        texture: (H, W, 3) uint8, row 0 is v = 1.
        uv: (N, 2) float, v up; clamped to the border texels.

    Returns:
        (N, 3) uint8.
    """
    height, width = texture.shape[:2]
    column = np.clip(uv[:, 0] * width - 0.5, 0, width - 1)
    row = np.clip((1 - uv[:, 1]) * height - 0.5, 0, height - 1)
    x0, y0 = column.astype(np.intp), row.astype(np.intp)
    x1, y1 = np.minimum(x0 + 1, width - 1), np.minimum(y0 + 1, height - 1)
    right, down = (column - x0)[:, None], (row - y0)[:, None]
    above = texture[y0, x0] * (1 - right) + texture[y0, x1] * right
    below = texture[y1, x0] * (1 - right) + texture[y1, x1] * right
    blended: NDArray[np.uint8] = np.rint(above * (1 - down) + below * down).astype(np.uint8)
    return blended
