"""From a matted picture to what the networks see (spec section 2)."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor

from dream_cad.exceptions import InvalidConfigError


@dataclass(frozen=True)
class ConditionImage:
    """The square picture on the background colour, and the object's mask.

    Attributes:
        rgb: (S, S, 3) float32 sRGB in [0, 1].
        mask: (S, S, 1) float32 in [0, 1].
    """

    rgb: NDArray[np.float32]
    mask: NDArray[np.float32]


def crop_foreground(rgba: Image.Image, ratio: float) -> Image.Image:
    """Crop to a square whose side the object's bounding box fills to ``ratio``.

    Every pixel with any alpha is the object; the box ends at its last column and row, and sides
    are truncated towards zero, as published.

    Args:
        rgba: RGBA picture.
        ratio: longest side of the object over the side of the square.

    Returns:
        RGBA square, transparent black beyond the picture.

    Raises:
        InvalidConfigError: the picture has no alpha or shows nothing.
    """
    if rgba.mode != "RGBA":
        raise InvalidConfigError(
            f"The picture has mode {rgba.mode} and so no alpha channel to crop by.",
            hint="Remove the background first.",
        )
    opaque = np.asarray(rgba)[..., 3] > 0
    rows, columns = np.flatnonzero(opaque.any(axis=1)), np.flatnonzero(opaque.any(axis=0))
    if len(rows) == 0 or (rows[0] == rows[-1] and columns[0] == columns[-1]):
        raise InvalidConfigError(
            "Nothing is left of the picture once its background is removed.",
            hint="Give a picture of one object on a plain background, or one with alpha.",
        )
    y1, y2, x1, x2 = (int(value) for value in (rows[0], rows[-1], columns[0], columns[-1]))
    side = max(y2 - y1, x2 - x1) / ratio
    left, top = int((x1 + x2) / 2 - side / 2), int((y1 + y2) / 2 - side / 2)
    width = max(int(side), 1)
    return rgba.crop((left, top, left + width, top + width))


def condition_image(
    rgba: Image.Image, size: int, background: tuple[float, float, float]
) -> ConditionImage:
    """Resize an RGBA picture, bicubic and premultiplied as Pillow does, and blend it.

    Raises:
        InvalidConfigError: the picture has no alpha.
    """
    if rgba.mode != "RGBA":
        raise InvalidConfigError(f"The picture has mode {rgba.mode}; RGBA is needed.")
    pixels = np.asarray(rgba.resize((size, size)), dtype=np.float32) / np.float32(255)
    mask = pixels[..., 3:]
    behind = np.array(background, dtype=np.float32)
    return ConditionImage(behind + (pixels[..., :3] - behind) * mask, mask)


def to_batch(images: list[NDArray[np.float32]], size: int) -> Tensor:
    """Stack channels-last pictures of one size into (B, C, size, size), resized where needed.

    Bilinear with antialias and half-pixel centres; at the size wanted nothing changes.
    """
    batch = torch.from_numpy(np.stack(images)).permute(0, 3, 1, 2)
    if batch.shape[-2:] == (size, size):
        return batch.contiguous()
    return F.interpolate(batch, (size, size), mode="bilinear", align_corners=False, antialias=True)
