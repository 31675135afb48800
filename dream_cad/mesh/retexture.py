"""Textures for changed geometry: the old surface's pictures, drawn anew for other triangles."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.spatial import cKDTree
from trimesh.triangles import closest_point, points_to_barycentric

from dream_cad.exceptions import InvalidConfigError
from dream_cad.mesh.bake import bake_normal_map
from dream_cad.mesh.checks import MATERIAL_MAPS, check_mesh
from dream_cad.mesh.color import sample_texture
from dream_cad.mesh.data import MeshData
from dream_cad.mesh.normals import position_groups, vertex_normals
from dream_cad.mesh.packed_unwrap import packed_unwrap
from dream_cad.mesh.simplify import simplify
from dream_cad.mesh.tangents import vertex_tangents
from dream_cad.mesh.texels import TexelMap, rasterize_texels
from dream_cad.mesh.texture_fill import dilate, dilation_rounds

_NEAREST_FACES = 4
_POINTS_PER_QUERY = 65_536


def simplify_textured(
    mesh: MeshData, target_faces: int, *, max_texture_size: int | None = None
) -> MeshData:
    """Reduce a textured mesh: its geometry is simplified, unwrapped again and its maps redrawn.

    Args:
        mesh: with UV coordinates, and a texture or maps of at least 16 texels a side.
        target_faces: 4 or more; meshes that need no change come back as they are.
        max_texture_size: side of the new maps at most, 16 or more; None for no limit.

    Returns:
        A mesh of about ``target_faces`` faces with square maps as large as the largest old one, or
        as the limit.

    Raises:
        InvalidConfigError: there is no picture to carry over, or too few faces are asked for.
        ShapeError: the mesh is empty or inconsistent.
        GenerationError: the new atlas does not fit into the texture.
    """
    check_mesh(mesh)
    maps = _maps(mesh)
    if mesh.uv_coords is None or not maps:
        raise InvalidConfigError("The mesh has no texture to carry over; use simplify instead.")
    largest = max(max(image.shape[:2]) for image in maps.values())
    size = min(largest, max_texture_size or largest)
    if target_faces >= len(mesh.faces) and size == largest:
        return mesh
    fewer = simplify(_without_seams(mesh), target_faces)
    padding = max(2, size // 256)
    atlas = packed_unwrap(fewer.vertices, fewer.faces, texture_size=size, padding=padding)
    new = replace(
        mesh,
        vertices=fewer.vertices[atlas.vmapping],
        faces=atlas.faces,
        uv_coords=atlas.uvs,
        vertex_colors=None,
        texture=None,
    )
    texels = rasterize_texels(atlas.faces, atlas.uvs, texture_size=size)
    drawn = _redraw(mesh, maps, new, texels)
    materials = dict(mesh.materials or {}) | {n: i for n, i in drawn.items() if n != "texture"}
    return replace(new, texture=drawn.get("texture"), materials=materials or None)


def _without_seams(mesh: MeshData) -> MeshData:
    group = position_groups(mesh.vertices)
    first = np.unique(group, return_index=True)[1]
    return MeshData(mesh.vertices[first], group[mesh.faces].astype(np.int32))


def _maps(mesh: MeshData) -> dict[str, NDArray[np.uint8]]:
    materials = mesh.materials or {}
    found = {"texture": mesh.texture} | {name: materials.get(name) for name in MATERIAL_MAPS}
    return {name: image for name, image in found.items() if image is not None}


def _redraw(
    old: MeshData, maps: dict[str, NDArray[np.uint8]], new: MeshData, texels: TexelMap
) -> dict[str, NDArray[np.uint8]]:
    """Look up, for every texel of the new atlas, what the old surface shows next to it."""
    uvs = _uv(old)
    face, weights = _nearest(old, texels.interpolate(new.vertices))
    corners = old.faces[face]
    at = np.einsum("pk,pkc->pc", weights, uvs[corners])
    rounds = dilation_rounds(texels.size) + 1
    drawn = {}
    for name, image in maps.items():
        seen = sample_texture(image, at)
        if name == "normal_texture":
            directions = _decode(seen, old, corners, weights)
            normals = vertex_normals(new.vertices, new.faces)
            tangents = vertex_tangents(new.vertices, new.faces, _uv(new), normals)
            unit = bake_normal_map(texels, directions, normals, tangents)
        else:
            unit = texels.to_image(seen.astype(np.float32) / 255)
        grown = dilate(unit, texels.mask, rounds)
        drawn[name] = np.rint(grown * 255).astype(np.uint8)
    return drawn


def _uv(mesh: MeshData) -> NDArray[np.float32]:
    if mesh.uv_coords is None:
        raise InvalidConfigError("The mesh has no UV coordinates.")
    return mesh.uv_coords


def _nearest(
    mesh: MeshData, points: NDArray[np.float32]
) -> tuple[NDArray[np.intp], NDArray[np.float64]]:
    """Return the nearest face (P,) and the weights of its corners (P, 3) for each point."""
    triangles = mesh.vertices[mesh.faces].astype(np.float64)
    tree = cKDTree(triangles.mean(axis=1))
    count = min(_NEAREST_FACES, len(triangles))
    faces = np.empty(len(points), dtype=np.intp)
    weights = np.empty((len(points), 3))
    for start in range(0, len(points), _POINTS_PER_QUERY):
        part = slice(start, start + _POINTS_PER_QUERY)
        wanted = points[part].astype(np.float64)
        near = tree.query(wanted, k=np.arange(1, count + 1))[1]
        repeated = np.repeat(wanted, count, axis=0)
        found = closest_point(triangles[near.ravel()], repeated).reshape(-1, count, 3)
        best = np.argmin(np.linalg.norm(found - wanted[:, None], axis=2), axis=1)
        row = np.arange(len(wanted))
        faces[part] = near[row, best]
        weights[part] = _barycentric(triangles[faces[part]], found[row, best])
    return faces, weights


def _barycentric(triangles: NDArray[np.float64], points: NDArray[np.float64]) -> NDArray[Any]:
    # Faces without area have no weights; their first corner will do.
    with np.errstate(divide="ignore", invalid="ignore"):
        weights = points_to_barycentric(triangles, points, method="cross")
    weights = np.where(np.isfinite(weights).all(axis=1, keepdims=True), weights, [1.0, 0.0, 0.0])
    weights = np.clip(weights, 0, 1)
    return np.asarray(weights / weights.sum(axis=1, keepdims=True))


def _decode(
    seen: NDArray[np.uint8],
    mesh: MeshData,
    corners: NDArray[np.int32],
    weights: NDArray[np.float64],
) -> NDArray[np.float64]:
    """Turn texels (P, 3) of a normal map into directions (P, 3)."""
    normals = vertex_normals(mesh.vertices, mesh.faces)
    tangents = vertex_tangents(mesh.vertices, mesh.faces, _uv(mesh), normals)
    normal = np.einsum("pk,pkc->pc", weights, normals[corners])
    tangent = np.einsum("pk,pkc->pc", weights, tangents[corners][..., :3])
    bitangent = np.cross(normal, tangent) * tangents[corners[:, 0], 3:]
    x, y, z = (seen.astype(np.float64) / 127.5 - 1).T[..., None]
    return np.asarray(tangent * x + bitangent * y + normal * z)
