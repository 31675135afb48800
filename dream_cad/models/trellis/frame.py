"""TRELLIS's world (z up, seen from -y) and the frame of glTF (y up, front towards +z)."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.floating]


def to_gltf(points: Floats) -> NDArray[np.float32]:
    """Turn points or normals (N, 3): (x, y, z) -> (x, z, -y)."""
    x, y, z = points.T
    return np.stack((x, z, -y), axis=1).astype(np.float32)


def from_gltf(points: Floats) -> NDArray[np.float32]:
    """Inverse of ``to_gltf``: (x, y, z) -> (x, -z, y)."""
    x, y, z = points.T
    return np.stack((x, -z, y), axis=1).astype(np.float32)
