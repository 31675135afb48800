"""From the model's frame (z up, front +x) to the exported one (glTF: y up, front +z)."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

# Rows are the exported axes in model coordinates: (x, y, z) -> (y, z, x); determinant +1.
GLTF_FROM_MODEL = np.array([[0, 1, 0], [0, 0, 1], [1, 0, 0]], dtype=np.float32)


def rotate(vertices: NDArray[np.float32], matrix: NDArray[np.float32]) -> NDArray[np.float32]:
    """Apply a (3, 3) matrix to vertices (V, 3); a rotation keeps faces facing outwards."""
    return np.ascontiguousarray(vertices @ matrix.T.astype(np.float32))


def to_gltf(vertices: NDArray[np.float32]) -> NDArray[np.float32]:
    """Map vertices (V, 3) of the model frame to the glTF frame; units are kept."""
    return rotate(vertices, GLTF_FROM_MODEL)


def to_model(vertices: NDArray[np.float32]) -> NDArray[np.float32]:
    """Inverse of ``to_gltf``."""
    return rotate(vertices, GLTF_FROM_MODEL.T)
