"""Image to input tensor, as the published model was trained (spec, section 2)."""

from __future__ import annotations

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor

from dream_cad.exceptions import ShapeError


def image_to_tensor(image: Image.Image | NDArray[np.uint8], size: int) -> Tensor:
    """Resize to a square, bilinear and antialiased; the aspect ratio is not kept.

    Args:
        image: RGB picture, or (H, W, 3) uint8.
        size: side of the result in pixels.

    Returns:
        (1, 3, size, size) float32 in [0, 1], on the CPU.

    Raises:
        ShapeError: the picture is not 8-bit RGB.
    """
    pixels = np.asarray(image)
    if pixels.ndim != 3 or pixels.shape[2] != 3 or pixels.dtype != np.uint8:
        raise ShapeError(
            f"The picture is {pixels.dtype} {pixels.shape}; uint8 (H, W, 3) was expected."
        )
    # A copy, because torch warns about the read-only arrays that PIL gives.
    planes = torch.from_numpy(pixels.copy()).permute(2, 0, 1)[None].float() / 255
    return F.interpolate(
        planes, size=(size, size), mode="bilinear", align_corners=False, antialias=True
    )
