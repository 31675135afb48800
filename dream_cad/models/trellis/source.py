"""What a generation starts from."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from PIL import Image


@dataclass(frozen=True)
class Pictures:
    """One or several pictures of one object."""

    images: tuple[Image.Image, ...]


@dataclass(frozen=True)
class Prompt:
    """A text, read by a text variant."""

    text: str


@dataclass(frozen=True)
class VariantOf:
    """A given shape to be given other details and colours.

    Attributes:
        vertices: (V, 3) float32, z up.
        faces: (F, 3).
        guide: what the variant shall look like.
    """

    vertices: NDArray[np.float32]
    faces: NDArray[np.int32]
    guide: Pictures | Prompt


@dataclass(frozen=True)
class StoredLatent:
    """A structured latent of an earlier generation.

    Attributes:
        coords: (N, 4) int64 (0, x, y, z), sorted, each once.
        feats: (N, 8) float32.
    """

    coords: NDArray[np.int64]
    feats: NDArray[np.float32]


Source = Pictures | Prompt | VariantOf | StoredLatent
