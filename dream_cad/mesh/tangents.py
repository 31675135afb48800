"""Tangents of UV layouts and normal maps in tangent space."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

_TINY = 1e-12
# Stable Fast 3D spec, section 10.3 c: smaller determinants, negative ones too, become this.
_MIN_DETERMINANT = 1e-6


def published_tangents(
    positions: NDArray[np.floating[Any]],
    faces: NDArray[np.integer[Any]],
    face_uvs: NDArray[np.floating[Any]],
    normals: NDArray[np.floating[Any]],
) -> NDArray[np.float32]:
    """Return the tangents that Stable Fast 3D computes, with its treatment of mirrored faces.

    Args:
        positions: (V, 3).
        faces: (F, 3).
        face_uvs: (F, 3, 2) UV of the corners.
        normals: (V, 3) unit.

    Returns:
        (V, 3) float32 unit vectors orthogonal to the normals; mirrored faces count with a
        determinant of 1e-6 (spec, section 10.3 c). For glTF take ``vertex_tangents``.
    """
    along_u, _, determinant = _face_gradients(positions, faces, face_uvs)
    per_face = along_u / np.maximum(determinant, _MIN_DETERMINANT)[:, None]
    summed = sum_at_vertices(np.repeat(per_face, 3, axis=0), faces.ravel(), len(positions))
    used = np.maximum(np.bincount(faces.ravel(), minlength=len(positions)), 1)
    tangents = unit_vectors(summed / used[:, None])
    tangents -= normals * np.einsum("vc,vc->v", tangents, normals)[:, None]
    return unit_vectors(tangents).astype(np.float32)


def vertex_tangents(
    positions: NDArray[np.floating[Any]],
    faces: NDArray[np.integer[Any]],
    uvs: NDArray[np.floating[Any]],
    normals: NDArray[np.floating[Any]],
) -> NDArray[np.float32]:
    """Return glTF tangents, smooth inside UV islands.

    Args:
        positions: (V, 3).
        faces: (F, 3), counter-clockwise outside.
        uvs: (V, 2), v up; split at seams.
        normals: (V, 3) unit.

    Returns:
        (V, 4) float32: unit vector along growing u, orthogonal to the normal, and the sign w such
        that ``w * cross(normal, tangent)`` points along growing v. Where the layout gives no
        direction, any one orthogonal to the normal.
    """
    along_u, along_v, determinant = _face_gradients(positions, faces, uvs[faces])
    # Over the determinant these are the gradients; its sign alone leaves them weighted by area.
    sign = np.sign(determinant)[:, None]
    corners, count = faces.ravel(), len(positions)
    toward_u = sum_at_vertices(np.repeat(along_u * sign, 3, axis=0), corners, count)
    toward_v = sum_at_vertices(np.repeat(along_v * sign, 3, axis=0), corners, count)
    unit_normals = normals.astype(np.float64)
    toward_u -= unit_normals * np.einsum("vc,vc->v", toward_u, unit_normals)[:, None]
    is_lost = np.linalg.norm(toward_u, axis=1) < _TINY
    toward_u[is_lost] = _any_orthogonal(unit_normals[is_lost])
    tangents = unit_vectors(toward_u)
    handed = np.einsum("vc,vc->v", np.cross(unit_normals, tangents), toward_v)
    w = np.where(handed < 0, -1.0, 1.0)
    return np.column_stack([tangents, w]).astype(np.float32)


def encode_tangent_space(
    directions: NDArray[np.floating[Any]],
    normals: NDArray[np.floating[Any]],
    tangents: NDArray[np.floating[Any]],
) -> NDArray[np.float32]:
    """Express directions in tangent frames, as normal maps store them.

    Args:
        directions: (..., 3) wanted normals, any length.
        normals: (..., 3) of the surface, any length.
        tangents: (..., 3) or with a sign w (..., 4); without it w is 1.

    Returns:
        (..., 3) float32 in [0, 1]: half of (T.n, B.n, N.n) plus one half, with unit vectors and
        B = w N x T (Stable Fast 3D spec, section 11). A flat spot is (0.5, 0.5, 1).
    """
    normal, tangent = unit_vectors(normals), unit_vectors(tangents[..., :3])
    bitangent = unit_vectors(np.cross(normal, tangent))
    if tangents.shape[-1] == 4:
        bitangent = bitangent * tangents[..., 3:]
    direction = unit_vectors(directions)
    local = [(axis * direction).sum(axis=-1) for axis in (tangent, bitangent, normal)]
    return np.clip(np.stack(local, axis=-1) / 2 + 0.5, 0, 1).astype(np.float32)


def unit_vectors(vectors: NDArray[np.floating[Any]]) -> NDArray[np.float64]:
    """Scale vectors (..., 3) to length one; shorter ones than 1e-12 stay as they are."""
    wide = vectors.astype(np.float64)
    length = np.linalg.norm(wide, axis=-1, keepdims=True)
    scaled: NDArray[np.float64] = np.divide(wide, length, out=wide, where=length > _TINY)
    return scaled


def sum_at_vertices(
    values: NDArray[np.floating[Any]], vertex: NDArray[np.integer[Any]], count: int
) -> NDArray[np.float64]:
    """Add up rows (N, C) of the same vertex (N,); returns (count, C)."""
    columns = [np.bincount(vertex, column, minlength=count) for column in values.T]
    return np.stack(columns, axis=1)


def _face_gradients(
    positions: NDArray[np.floating[Any]],
    faces: NDArray[np.integer[Any]],
    face_uvs: NDArray[np.floating[Any]],
) -> tuple[NDArray[np.float64], NDArray[np.float64], NDArray[np.float64]]:
    """Return (F, 3) directions along u and v times the determinant, and (F,) the determinant."""
    corners, uv = positions[faces].astype(np.float64), face_uvs.astype(np.float64)
    side1, side2 = corners[:, 1] - corners[:, 0], corners[:, 2] - corners[:, 0]
    du1, dv1 = (uv[:, 1] - uv[:, 0]).T
    du2, dv2 = (uv[:, 2] - uv[:, 0]).T
    along_u = side1 * dv2[:, None] - side2 * dv1[:, None]
    along_v = side2 * du1[:, None] - side1 * du2[:, None]
    return along_u, along_v, du1 * dv2 - dv1 * du2


def _any_orthogonal(normals: NDArray[np.float64]) -> NDArray[np.float64]:
    smallest = np.argmin(np.abs(normals), axis=1)
    return np.cross(normals, np.eye(3)[smallest])
