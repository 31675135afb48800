"""A mesh with one vertex for each of its UVs: from xatlas, or its own (spec section 4)."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import xatlas
from numpy.typing import NDArray

from dream_cad.exceptions import InvalidConfigError
from dream_cad.mesh.checks import check_mesh
from dream_cad.mesh.data import MeshData

# Rounding of the files that UVs come in.
_SLACK = 1e-4


@dataclass(frozen=True)
class UnwrappedMesh:
    """A mesh split at the borders of its charts.

    Attributes:
        vertices: (V, 3) float32.
        faces: (F, 3) int32, in the order of the input's faces.
        uvs: (V, 2) float32 in [0, 1], v up.
    """

    vertices: NDArray[np.float32]
    faces: NDArray[np.int32]
    uvs: NDArray[np.float32]


def unwrap_for_paint(vertices: NDArray[np.float32], faces: NDArray[np.int32]) -> UnwrappedMesh:
    """Unwrap with xatlas' defaults, as the published pipeline does.

    Raises:
        ShapeError: the mesh is empty or inconsistent.
    """
    check_mesh(MeshData(vertices, faces))
    old, indices, uvs = xatlas.parametrize(
        np.ascontiguousarray(vertices, dtype=np.float32),
        np.ascontiguousarray(faces, dtype=np.uint32),
    )
    return UnwrappedMesh(
        np.asarray(vertices[old], dtype=np.float32),
        indices.astype(np.int32),
        np.asarray(uvs, dtype=np.float32),
    )


def own_uvs(mesh: MeshData) -> UnwrappedMesh:
    """Take a mesh with the UVs it has.

    Raises:
        InvalidConfigError: it has none, or some lie outside the texture.
        ShapeError: the mesh is empty or inconsistent.
    """
    check_mesh(mesh)
    if mesh.uv_coords is None:
        raise InvalidConfigError(
            "The mesh has no UVs to keep.",
            hint="Leave keep_uvs out: the mesh is then unwrapped.",
            details={"option": "keep_uvs"},
        )
    uvs = np.asarray(mesh.uv_coords, dtype=np.float32)
    if not ((uvs >= -_SLACK) & (uvs <= 1 + _SLACK)).all():  # NaN fails this as well
        raise InvalidConfigError(
            "The mesh's UVs leave the square from 0 to 1, so its texture is tiled or in several "
            "tiles; one texture cannot be painted over them.",
            hint="Leave keep_uvs out: the mesh is then unwrapped.",
            details={"option": "keep_uvs"},
        )
    return UnwrappedMesh(mesh.vertices, mesh.faces, uvs.clip(0, 1))
