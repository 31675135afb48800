"""Fewer faces by quadric edge collapse (fast-simplification)."""

from __future__ import annotations

from dataclasses import replace

import fast_simplification
import numpy as np
from numpy.typing import NDArray
from scipy.spatial import cKDTree

from dream_cad.exceptions import InvalidConfigError
from dream_cad.mesh.checks import check_mesh
from dream_cad.mesh.data import MeshData

MIN_FACES = 4  # a tetrahedron
_COLOR_NEIGHBOURS = 4


def simplify(mesh: MeshData, target_faces: int) -> MeshData:
    """Reduce a mesh to about ``target_faces`` faces; smaller meshes come back as they are.

    Colours are blended from the nearest old vertices. Topology may keep some faces more.

    Args:
        mesh: without texture: collapsing edges would tear the charts.
        target_faces: 4 or more.

    Raises:
        InvalidConfigError: too few faces are asked for, or the mesh has a texture.
        ShapeError: the mesh is empty or inconsistent.
    """
    if target_faces < MIN_FACES:
        raise InvalidConfigError(f"target_faces is {target_faces}; expected {MIN_FACES} or more.")
    check_mesh(mesh)
    if target_faces >= len(mesh.faces):
        return mesh
    if mesh.uv_coords is not None:
        raise InvalidConfigError(
            "A textured mesh cannot be simplified: its texture would no longer fit.",
            hint="simplify_textured redraws the texture; it is what finish_mesh does.",
        )
    vertices, faces = fast_simplification.simplify(  # refuses read-only arrays, as Ray hands out
        np.require(mesh.vertices, np.float32, ["C", "W"]),
        np.require(mesh.faces, np.int32, ["C", "W"]),
        target_count=target_faces,
    )
    colors = mesh.vertex_colors
    return replace(
        mesh,
        vertices=np.asarray(vertices, dtype=np.float32),
        faces=np.asarray(faces, dtype=np.int32),
        vertex_colors=None if colors is None else carry_colors(mesh.vertices, colors, vertices),
    )


def carry_colors(
    old: NDArray[np.float32], colors: NDArray[np.uint8], new: NDArray[np.float32]
) -> NDArray[np.uint8]:
    """Blend the colours of the nearest old vertices, weighted by inverse distance.

    Args:
        old: (V, 3) positions that have colours.
        colors: (V, 3) uint8.
        new: (N, 3) positions that want them.

    Returns:
        (N, 3) uint8.
    """
    count = min(_COLOR_NEIGHBOURS, len(old))
    distance, index = cKDTree(old).query(new, k=np.arange(1, count + 1))
    scale = distance[:, -1:] + np.finfo(np.float32).tiny
    weight = 1 / (distance / scale + 1e-3)  # a vertex that did not move keeps its colour
    weight /= weight.sum(axis=1, keepdims=True)
    blended = np.einsum("vk,vkc->vc", weight, colors[index].astype(np.float64))
    carried: NDArray[np.uint8] = np.rint(blended).astype(np.uint8)
    return carried
