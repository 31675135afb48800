"""Cut a picture's object out and put it on a black square (spec, section 2)."""

from __future__ import annotations

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor

from dream_cad.exceptions import InvalidConfigError

_MIN_ALPHA = 204  # 0.8 * 255: what is fainter does not count for the crop
_MARGIN = 1.2
MAX_SIDE = 1024
"""Larger pictures are shrunk before their background is removed."""


def shrink(image: Image.Image) -> Image.Image:
    """Return a picture of at most 1024 pixels a side, its proportions kept."""
    longest = max(image.size)
    if longest <= MAX_SIDE:
        return image
    width, height = (max(int(side * MAX_SIDE / longest), 1) for side in image.size)
    return image.resize((width, height), Image.Resampling.LANCZOS)


def object_box(alpha: NDArray[np.uint8]) -> tuple[int, int, int, int]:
    """Return (left, top, right, bottom) of the pixels (H, W) that are clearly object, inclusive.

    Raises:
        InvalidConfigError: there is none.
    """
    rows, columns = np.nonzero(alpha > _MIN_ALPHA)
    if not len(rows):
        raise InvalidConfigError(
            "The picture shows no object: no pixel is opaque enough.",
            hint="Check the alpha channel, or let the background be removed.",
        )
    return int(columns.min()), int(rows.min()), int(columns.max()), int(rows.max())


def prepare_image(rgba: Image.Image, side: int = 518) -> Image.Image:
    """Crop a square around the object, scale it and put it on black.

    Args:
        rgba: mode RGBA; its alpha is the object.
        side: of the result in pixels.

    Returns:
        RGB, ``side`` squared.

    Raises:
        InvalidConfigError: the picture shows no object.
    """
    left, top, right, bottom = object_box(np.asarray(rgba)[..., 3])
    size = int(max(right - left, bottom - top) * _MARGIN)
    x, y, half = (left + right) / 2, (top + bottom) / 2, max(size // 2, 1)
    square = rgba.crop((x - half, y - half, x + half, y + half))
    square = square.resize((side, side), Image.Resampling.LANCZOS)
    pixels = np.asarray(square).astype(np.float32) / 255
    on_black = pixels[..., :3] * pixels[..., 3:]
    return Image.fromarray((on_black * 255).astype(np.uint8))


def image_tensor(picture: Image.Image, side: int) -> Tensor:
    """Return a picture of any size as (1, 3, side, side) RGB float32 in [0, 1]."""
    rgb = picture.convert("RGB")
    if rgb.size != (side, side):
        rgb = rgb.resize((side, side), Image.Resampling.LANCZOS)
    pixels = torch.from_numpy(np.asarray(rgb).astype(np.float32) / 255)
    return pixels.permute(2, 0, 1)[None].contiguous()
