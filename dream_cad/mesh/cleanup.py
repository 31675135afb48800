"""Clean-up of raw surfaces. Every function returns a new mesh and keeps colours and UV."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.sparse import coo_matrix
from scipy.sparse.csgraph import connected_components

from dream_cad.exceptions import GenerationError, InvalidConfigError
from dream_cad.mesh.checks import check_mesh
from dream_cad.mesh.data import MeshData
from dream_cad.mesh.normals import position_groups
from dream_cad.mesh.retexture import simplify_textured
from dream_cad.mesh.simplify import simplify

# Of the longest side of the bounding box: far below a grid step of 1/512, far above float32's
# rounding of positions near 1.
WELD_TOLERANCE = 1e-6


def finish_mesh(mesh: MeshData, *, target_faces: int | None, min_component: float) -> MeshData:
    """Weld, clean, simplify and scale a mesh into the centred unit cube.

    Args:
        mesh: any position and scale.
        target_faces: simplify to about so many faces if there are more; None keeps them. Textures
            are redrawn for the new faces, see ``simplify_textured``.
        min_component: drop loose parts with less than this share of the faces.

    Raises:
        GenerationError: nothing is left.
        InvalidConfigError: a number is out of range.
    """
    cleaned = remove_degenerate_faces(weld_vertices(mesh))
    cleaned = remove_small_components(cleaned, min_component)
    if len(cleaned.faces) == 0:
        raise GenerationError(
            "Nothing is left of the mesh after cleaning up.", hint="Lower min_component."
        )
    if target_faces is not None and target_faces < len(cleaned.faces):
        reduce = simplify if cleaned.uv_coords is None else simplify_textured
        cleaned = reduce(cleaned, target_faces)
    return normalize_to_unit_cube(cleaned)


def weld_vertices(mesh: MeshData, tolerance: float = WELD_TOLERANCE) -> MeshData:
    """Merge vertices at the same position, with the same UV where there is any.

    The first of the merged vertices keeps its position and colour.

    Args:
        mesh: the mesh.
        tolerance: width of the cells that count as one position, as a part of the longest side of
            the bounding box; 0 merges only equal positions.
    """
    check_mesh(mesh, allow_empty=True)
    if len(mesh.vertices) == 0:
        return mesh
    low = mesh.vertices.min(axis=0)
    step = float((mesh.vertices.max(axis=0) - low).max()) * tolerance
    keys = mesh.vertices.astype(np.float64)
    if step > 0:
        keys = np.rint((keys - low) / step)
    group = position_groups(keys)
    if mesh.uv_coords is not None:
        seam = np.column_stack([group, mesh.uv_coords]).astype(np.float64)
        group = position_groups(seam)
    return _merge(mesh, group)


def remove_degenerate_faces(mesh: MeshData) -> MeshData:
    """Drop faces that name a vertex twice, and vertices of no face.

    Faces of three different vertices on one line stay: without them a closed mesh would open.
    """
    check_mesh(mesh, allow_empty=True)
    a, b, c = mesh.faces.T
    return _keep_faces(mesh, (a != b) & (b != c) & (c != a))


def remove_small_components(mesh: MeshData, min_fraction: float) -> MeshData:
    """Drop loose parts; faces are connected where they share the position of a vertex.

    Args:
        mesh: the mesh.
        min_fraction: parts with less than this share of all faces go, 0..1. The largest part
            always stays.

    Raises:
        InvalidConfigError: ``min_fraction`` is out of range.
    """
    if not 0 <= min_fraction <= 1:
        raise InvalidConfigError(f"min_fraction is {min_fraction}; expected 0..1.")
    check_mesh(mesh, allow_empty=True)
    if len(mesh.faces) == 0 or min_fraction == 0:
        return mesh
    label = face_components(mesh)
    count = np.bincount(label)
    is_kept = (count >= min_fraction * len(mesh.faces)) | (count == count.max())
    return _keep_faces(mesh, is_kept[label])


def remove_floaters(mesh: MeshData, min_ratio: float) -> MeshData:
    """Drop loose parts with fewer faces than ``min_ratio`` times those of the largest part.

    Raises:
        InvalidConfigError: ``min_ratio`` is not in [0, 1].
    """
    if not 0 <= min_ratio <= 1:
        raise InvalidConfigError(f"min_ratio is {min_ratio}; expected 0..1.")
    check_mesh(mesh, allow_empty=True)
    if len(mesh.faces) == 0 or min_ratio == 0:
        return mesh
    label = face_components(mesh)
    count = np.bincount(label)
    return _keep_faces(mesh, (count >= min_ratio * count.max())[label])


def face_components(mesh: MeshData) -> NDArray[np.intp]:
    """Number the connected parts; returns (F,) the number of each face's part."""
    corner = position_groups(mesh.vertices)[mesh.faces]
    size = int(corner.max()) + 1 if len(corner) else 0
    start = np.concatenate([corner[:, 0], corner[:, 1]])
    end = np.concatenate([corner[:, 1], corner[:, 2]])
    edges = coo_matrix((np.ones(len(start), dtype=np.int8), (start, end)), shape=(size, size))
    labels = connected_components(edges, directed=False)[1][corner[:, 0]]
    parts: NDArray[np.intp] = np.unique(labels, return_inverse=True)[1]
    return parts


def normalize_to_unit_cube(mesh: MeshData) -> MeshData:
    """Centre the bounding box at the origin and scale its longest side to 1.

    A mesh that is a single point is only centred.
    """
    check_mesh(mesh, allow_empty=True)
    if len(mesh.vertices) == 0:
        return mesh
    positions = mesh.vertices.astype(np.float64)
    low, high = positions.min(axis=0), positions.max(axis=0)
    side = float((high - low).max()) or 1.0
    moved = (positions - (low + high) / 2) / side
    return replace(mesh, vertices=moved.astype(np.float32))


def _merge(mesh: MeshData, group: NDArray[np.intp]) -> MeshData:
    """Make one vertex of each group, in the order of their first members."""
    first = np.unique(group, return_index=True)[1]
    rank = np.empty(len(first), dtype=np.int32)
    rank[np.argsort(first)] = np.arange(len(first), dtype=np.int32)
    return _take_vertices(mesh, np.sort(first), rank[group[mesh.faces]])


def _keep_faces(mesh: MeshData, mask: NDArray[np.bool_]) -> MeshData:
    kept = mesh.faces[mask]
    used = np.zeros(len(mesh.vertices), dtype=bool)
    used[kept] = True
    number = np.cumsum(used, dtype=np.int32) - 1
    return _take_vertices(mesh, np.flatnonzero(used), number[kept])


def _take_vertices(mesh: MeshData, index: NDArray[np.intp], faces: NDArray[Any]) -> MeshData:
    colors, uv = mesh.vertex_colors, mesh.uv_coords
    return replace(
        mesh,
        vertices=mesh.vertices[index],
        faces=faces.astype(np.int32).reshape(-1, 3),
        vertex_colors=None if colors is None else colors[index],
        uv_coords=None if uv is None else uv[index],
    )
