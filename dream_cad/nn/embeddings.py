"""Position embeddings of vision transformers at other image sizes than they were trained with."""

from __future__ import annotations

from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor

from dream_cad.exceptions import ShapeError

PositionInterpolation = Literal["scale", "size"]

# DINO adds this to the target grid before it divides, against rounding down (TripoSR spec 3.2).
_SCALE_OFFSET = 0.1


def interpolate_position_embeddings(
    embeddings: Tensor, height: int, width: int, mode: PositionInterpolation
) -> Tensor:
    """Resample a square grid of position embeddings bicubically; the CLS entry is kept.

    Args:
        embeddings: (1, 1 + g * g, C); entry 0 belongs to the CLS token.
        height: rows of patches wanted.
        width: columns of patches wanted.
        mode: ``"scale"`` samples with the scale ``(target + 0.1) / g`` (DINO, transformers up to
            4.44, the one TripoSR was made with); ``"size"`` with ``target / g`` (transformers
            from 4.45). They differ by some 5 % rms on white noise.

    Returns:
        (1, 1 + height * width, C); the input itself when the grid already fits.

    Raises:
        ShapeError: the embeddings are not a CLS entry plus a square grid.
    """
    grid = int((embeddings.shape[1] - 1) ** 0.5 + 0.5)
    if embeddings.ndim != 3 or grid * grid + 1 != embeddings.shape[1]:
        raise ShapeError(
            f"Position embeddings have shape {tuple(embeddings.shape)}; "
            "(1, 1 + g*g, C) with a CLS entry and a square grid was expected."
        )
    if (height, width) == (grid, grid):
        return embeddings
    cls_entry, patches = embeddings[:, :1], embeddings[:, 1:]
    # In float32 also for half-precision weights: the bicubic weights need more than 8 bits.
    image = patches.transpose(1, 2).reshape(1, -1, grid, grid).float()
    if mode == "size":
        image = F.interpolate(image, size=(height, width), mode="bicubic", align_corners=False)
    else:
        scales = ((height + _SCALE_OFFSET) / grid, (width + _SCALE_OFFSET) / grid)
        image = F.interpolate(image, scale_factor=scales, mode="bicubic", align_corners=False)
    resampled = image.flatten(2).transpose(1, 2).to(embeddings.dtype)
    return torch.cat((cls_entry, resampled), dim=1)
