"""Recentre the object of a picture on a white square (spec section 2)."""

from __future__ import annotations

from collections.abc import Mapping

import cv2
import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor

from dream_cad.exceptions import InvalidConfigError
from dream_cad.models.hunyuan3d_mini.options import VIEWS

VIEW_NUMBERS = {name: number for number, name in enumerate(VIEWS)}


def recenter(rgba: NDArray[np.uint8], border_ratio: float) -> NDArray[np.uint8]:
    """Scale the object into a transparent square with a border and centre it.

    As published, the last row and column of the bounding box are lost and colours are resized
    without premultiplying.

    Args:
        rgba: (H, W, 4) uint8.
        border_ratio: share of the side that stays free.

    Returns:
        (S, S, 4) uint8, S the longer side of the picture.

    Raises:
        InvalidConfigError: the picture shows nothing.
    """
    rows, columns = np.nonzero(rgba[..., 3])
    height, width = (int(np.ptp(axis)) if axis.size else 0 for axis in (rows, columns))
    if height == 0 or width == 0:
        raise InvalidConfigError(
            "The picture shows no object: every pixel is transparent.",
            hint="Check the alpha channel, or let the background be removed.",
        )
    crop = rgba[rows.min() : rows.max(), columns.min() : columns.max()]
    size = max(rgba.shape[:2])
    scale = int(size * (1 - border_ratio)) / max(height, width)
    target = max(int(height * scale), 1), max(int(width * scale), 1)
    resized = cv2.resize(crop, target[::-1], interpolation=cv2.INTER_AREA)
    square = np.zeros((size, size, 4), np.uint8)
    top, left = ((size - side) // 2 for side in target)
    square[top : top + target[0], left : left + target[1]] = resized
    return square


def _on_white(rgba: NDArray[np.uint8]) -> NDArray[np.uint8]:
    alpha = rgba[..., 3:].astype(np.float32) / 255
    blended = rgba[..., :3] * alpha + 255 * (1 - alpha)
    return blended.clip(0, 255).astype(np.uint8)


def _to_tensor(image: NDArray[np.uint8]) -> Tensor:
    scaled = image.astype(np.float32) / 255 * 2 - 1
    return torch.from_numpy(np.moveaxis(np.atleast_3d(scaled), -1, 0)[None])


def prepare_image(
    image: Image.Image, *, size: int, border_ratio: float = 0.15
) -> tuple[Tensor, Tensor]:
    """Return picture (1, 3, S, S) and mask (1, 1, S, S), float32 in [-1, 1].

    Args:
        image: any mode; without alpha everything is the object.
        size: side of the result in pixels.
        border_ratio: share of the side that stays free.

    Raises:
        InvalidConfigError: the picture shows nothing.
    """
    square = recenter(np.asarray(image.convert("RGBA")), border_ratio)
    picture = cv2.resize(_on_white(square), (size, size), interpolation=cv2.INTER_CUBIC)
    mask = cv2.resize(square[..., 3], (size, size), interpolation=cv2.INTER_NEAREST)
    return _to_tensor(np.asarray(picture)), _to_tensor(np.asarray(mask))


def prepare_views(
    images: Mapping[str, Image.Image], *, size: int, border_ratio: float = 0.15
) -> tuple[Tensor, Tensor, list[int]]:
    """Return pictures (1, V, 3, S, S), masks (1, V, 1, S, S) and view numbers, in their order.

    Args:
        images: by view: front, left, back, right.
        size: side of the result in pixels.
        border_ratio: share of the side that stays free.

    Raises:
        InvalidConfigError: no view, an unknown one, or one that shows nothing.
    """
    unknown = images.keys() - VIEW_NUMBERS.keys()
    if unknown or not images:
        raise InvalidConfigError(
            f"Views are {', '.join(VIEW_NUMBERS)}; got {', '.join(sorted(images)) or 'none'}."
        )
    names = sorted(images, key=VIEW_NUMBERS.__getitem__)
    pairs = [prepare_image(images[name], size=size, border_ratio=border_ratio) for name in names]
    pictures, masks = (torch.stack(column, dim=1) for column in zip(*pairs, strict=True))
    return pictures, masks, [VIEW_NUMBERS[name] for name in names]
