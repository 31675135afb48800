"""Shape and value checks at the public doors of this package."""

from __future__ import annotations

from typing import Any

import numpy as np

from dream_cad.exceptions import ShapeError
from dream_cad.mesh.data import MeshData

MATERIAL_MAPS = ("normal_texture", "metallic_roughness_texture")


def check_mesh(mesh: MeshData, *, allow_empty: bool = False) -> None:
    """Refuse a mesh whose arrays do not fit each other.

    Raises:
        ShapeError: wrong shapes or dtypes, NaN or infinite positions, face indices outside the
            vertices, or (unless ``allow_empty``) no face at all.
    """
    vertices, faces = mesh.vertices, mesh.faces
    if vertices.ndim != 2 or vertices.shape[1] != 3:
        raise ShapeError(f"Vertices have shape {vertices.shape}; expected (V, 3).")
    if faces.ndim != 2 or faces.shape[1] != 3 or faces.dtype.kind not in "iu":
        raise ShapeError(
            f"Faces have shape {faces.shape} and dtype {faces.dtype}; expected (F, 3) integers."
        )
    if not np.isfinite(vertices).all():
        raise ShapeError("Vertices hold NaN or infinite positions; expected finite numbers.")
    if len(faces) and (faces.min() < 0 or faces.max() >= len(vertices)):
        raise ShapeError(
            f"Faces point at vertices {faces.min()}..{faces.max()}; there are {len(vertices)}."
        )
    if not allow_empty and len(faces) == 0:
        raise ShapeError("The mesh has no faces; expected at least one.")
    _check_appearance(mesh)


def _check_appearance(mesh: MeshData) -> None:
    count = len(mesh.vertices)
    colors, uv, texture = mesh.vertex_colors, mesh.uv_coords, mesh.texture
    if colors is not None and (colors.shape != (count, 3) or colors.dtype != np.uint8):
        raise ShapeError(
            f"Vertex colours are {colors.shape} {colors.dtype}; expected ({count}, 3) uint8."
        )
    if uv is not None and uv.shape != (count, 2):
        raise ShapeError(f"UV coordinates have shape {uv.shape}; expected ({count}, 2).")
    if uv is not None and not np.isfinite(uv).all():
        raise ShapeError("UV coordinates hold NaN or infinity; expected finite numbers.")
    materials = mesh.materials or {}
    maps = {"texture": texture} | {name: materials.get(name) for name in MATERIAL_MAPS}
    for name, image in maps.items():
        if image is not None:
            _check_map(name, image, has_uv=uv is not None)


def _check_map(name: str, image: Any, *, has_uv: bool) -> None:
    shape: tuple[int, ...] = getattr(image, "shape", ())
    dtype = getattr(image, "dtype", type(image).__name__)
    if len(shape) != 3 or shape[2] != 3 or 0 in shape or dtype != np.uint8:
        raise ShapeError(f"The {name} is {shape} {dtype}; expected (H, W, 3) uint8.")
    if not has_uv:
        raise ShapeError(f"The mesh has a {name} but no UV coordinates; expected both or none.")
