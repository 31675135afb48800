"""Meshes whose size and topology are known."""

from __future__ import annotations

from typing import Any

import numpy as np
import trimesh
from numpy.typing import NDArray

from dream_cad.mesh.data import MeshData


def from_trimesh(mesh: trimesh.Trimesh, **appearance: Any) -> MeshData:
    return MeshData(
        np.array(mesh.vertices, dtype=np.float32), np.array(mesh.faces, np.int32), **appearance
    )


def to_trimesh(mesh: MeshData) -> trimesh.Trimesh:
    return trimesh.Trimesh(mesh.vertices, mesh.faces, process=False)


def sphere(subdivisions: int = 3, radius: float = 0.5) -> MeshData:
    return from_trimesh(trimesh.creation.icosphere(subdivisions, radius))


def colored_sphere(subdivisions: int = 3) -> MeshData:
    """Colour is position: red grows along x, green along y, blue along z."""
    mesh = sphere(subdivisions)
    return MeshData(mesh.vertices, mesh.faces, vertex_colors=position_colors(mesh.vertices))


def position_colors(points: NDArray[np.float32]) -> NDArray[np.uint8]:
    return np.clip(np.rint((points + 0.5) * 255), 0, 255).astype(np.uint8)


def textured_quad(texture: NDArray[np.uint8], **rest: Any) -> MeshData:
    """A unit square in the xy plane that faces +z; u runs along x, v along y."""
    corners = np.array([[0, 0], [1, 0], [1, 1], [0, 1]], dtype=np.float32)
    vertices = np.column_stack([corners - 0.5, np.zeros(4, np.float32)]).astype(np.float32)
    faces = np.array([[0, 1, 2], [0, 2, 3]], dtype=np.int32)
    return MeshData(vertices, faces, uv_coords=corners, texture=texture, **rest)


def checker(height: int = 8, width: int = 16) -> NDArray[np.uint8]:
    """A texture without symmetry: every texel its own colour."""
    row, column = np.mgrid[0:height, 0:width]
    return np.stack([row * 30, column * 15, (row * 7 + column * 3) % 256], -1).astype(np.uint8)
