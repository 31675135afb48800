"""The receipt in every result: what made it, so that it can be made again."""

from __future__ import annotations

import hashlib
import platform
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image


def versions() -> dict[str, str]:
    """Return the versions that can change a result."""
    import torch

    import dream_cad

    return {
        "dream_cad": dream_cad.__version__,
        "torch": torch.__version__,
        "numpy": np.__version__,
        "python": platform.python_version(),
    }


def text_sha256(text: str) -> str:
    """SHA-256 of a text in UTF-8."""
    return hashlib.sha256(text.encode()).hexdigest()


def arrays_sha256(*arrays: NDArray[Any]) -> str:
    """SHA-256 of the types, shapes and values of arrays."""
    digest = hashlib.sha256()
    for array in arrays:
        digest.update(f"{array.dtype.str} {array.shape} ".encode())
        digest.update(np.ascontiguousarray(array).tobytes())
    return digest.hexdigest()


def image_sha256(image: Image.Image) -> str:
    """SHA-256 of the mode, size and pixels of a decoded picture, whatever file it came from."""
    digest = hashlib.sha256(f"{image.mode} {image.width}x{image.height} ".encode())
    digest.update(image.tobytes())
    return digest.hexdigest()
