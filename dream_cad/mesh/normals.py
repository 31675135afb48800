"""Vertex normals that do not break at UV seams."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

_MIN_SQUARED_LENGTH = 1e-20


def vertex_normals(
    vertices: NDArray[np.floating[Any]], faces: NDArray[np.integer[Any]]
) -> NDArray[np.float32]:
    """Return area-weighted unit normals; vertices at the same position share one normal.

    Args:
        vertices: (V, 3) float.
        faces: (F, 3) integer.

    Returns:
        (V, 3) float32; (0, 0, 1) for vertices of no face and of faces without area.
    """
    corners = vertices[faces].astype(np.float64)
    weighted = np.cross(corners[:, 1] - corners[:, 0], corners[:, 2] - corners[:, 0])
    group = position_groups(vertices)
    count = int(group.max()) + 1 if len(group) else 0
    owner = group[faces].ravel()
    summed = np.stack(
        [np.bincount(owner, np.repeat(weighted[:, axis], 3), count) for axis in range(3)], axis=1
    )
    length = np.linalg.norm(summed, axis=1, keepdims=True)
    unit = np.divide(summed, length, out=np.tile([0.0, 0.0, 1.0], (count, 1)), where=length > 0)
    normals: NDArray[np.float32] = unit[group].astype(np.float32)
    return normals


def indexed_normals(
    vertices: NDArray[np.floating[Any]], faces: NDArray[np.integer[Any]]
) -> NDArray[np.float32]:
    """Return area-weighted unit normals that break wherever faces do not share a vertex.

    Args:
        vertices: (V, 3) float.
        faces: (F, 3) integer.

    Returns:
        (V, 3) float32; (0, 0, 1) where the summed face vectors have a squared length of at most
        1e-20 (Stable Fast 3D spec, section 10.1).
    """
    corners = vertices[faces].astype(np.float64)
    weighted = np.cross(corners[:, 1] - corners[:, 0], corners[:, 2] - corners[:, 0])
    summed = np.stack(
        [
            np.bincount(faces.ravel(), np.repeat(column, 3), minlength=len(vertices))
            for column in weighted.T
        ],
        axis=1,
    )
    squared = np.einsum("vc,vc->v", summed, summed)
    summed[squared <= _MIN_SQUARED_LENGTH] = (0.0, 0.0, 1.0)
    unit: NDArray[np.float32] = summed / np.linalg.norm(summed, axis=1, keepdims=True)
    return unit.astype(np.float32)


def corner_normals(
    vertices: NDArray[np.floating[Any]], faces: NDArray[np.integer[Any]], crease_deg: float
) -> NDArray[np.float32]:
    """Return (F, 3, 3) unit normals: the vertex's, or the face's own beyond the crease angle."""
    smooth = vertex_normals(vertices, faces)[faces]
    corners = vertices[faces]
    flat = np.cross(corners[:, 1] - corners[:, 0], corners[:, 2] - corners[:, 0])
    length = np.linalg.norm(flat, axis=1, keepdims=True)
    flat = np.divide(flat, length, out=np.zeros_like(flat), where=length > 0)
    is_crease = np.einsum("fkc,fc->fk", smooth, flat) < np.cos(np.radians(crease_deg))
    is_crease &= length > 0
    chosen: NDArray[np.float32] = np.where(is_crease[..., None], flat[:, None], smooth).astype(
        np.float32
    )
    return chosen


def position_groups(vertices: NDArray[np.floating[Any]]) -> NDArray[np.intp]:
    """Number the distinct rows of (V, C); returns (V,) the number of each row."""
    # Adding zero turns -0.0 into 0.0, so that bytes compare as numbers do.
    rows = np.ascontiguousarray(vertices + 0.0)
    packed = rows.view(np.dtype((np.void, rows.dtype.itemsize * rows.shape[1]))).ravel()
    return np.unique(packed, return_inverse=True)[1].astype(np.intp)
