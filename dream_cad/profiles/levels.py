"""Levels of detail: fewer triangles and smaller maps, each level drawn from the finest mesh."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.ndimage import distance_transform_edt

from dream_cad.mesh.checks import MATERIAL_MAPS
from dream_cad.mesh.cleanup import remove_degenerate_faces, weld_vertices
from dream_cad.mesh.data import MeshData
from dream_cad.mesh.packed_unwrap import packed_unwrap
from dream_cad.mesh.retexture import simplify_textured
from dream_cad.mesh.simplify import carry_colors, simplify
from dream_cad.mesh.texels import rasterize_texels
from dream_cad.mesh.unwrap import MIN_TEXTURE

_WORTH_IT = 0.9
"""A level with more than this share of the faces of the one before saves nothing."""


@dataclass(frozen=True)
class Level:
    """One level of detail; 0 is the finest."""

    number: int
    mesh: MeshData


def make_levels(
    mesh: MeshData, faces: Sequence[int], texture_sizes: Sequence[int]
) -> tuple[Level, ...]:
    """Return the levels of detail, the finest first; those that would save nothing are left out.

    Colours per vertex become a texture, since engines' standard materials show no others.
    Simplifying may stop above a budget where the topology allows no more.

    Args:
        mesh: any mesh; textured or with colours per vertex, or neither.
        faces: triangles at most, falling.
        texture_sizes: sides of the maps at most, one for each budget; 16 or more.
    """
    # What lies around the old charts must not show either where the new texels look them up.
    clean = fill_background(remove_degenerate_faces(weld_vertices(mesh)))
    levels: list[Level] = []
    for budget, size in zip(faces, texture_sizes, strict=True):
        if levels and budget > _WORTH_IT * len(levels[-1].mesh.faces):
            continue
        levels.append(Level(len(levels), _reduced(clean, budget, size)))
    return tuple(levels)


def _reduced(mesh: MeshData, budget: int, size: int) -> MeshData:
    if mesh.uv_coords is not None and maps_of(mesh):
        reduced = simplify_textured(mesh, budget, max_texture_size=size)
        return fill_background(reduced)
    fewer = simplify(replace(mesh, uv_coords=None), budget)
    if mesh.vertex_colors is None:
        return fewer
    return fill_background(bake_colors(mesh, fewer, size))


def bake_colors(source: MeshData, target: MeshData, size: int) -> MeshData:
    """Unwrap ``target`` and draw the colours that ``source`` has per vertex into a texture.

    Args:
        source: with colours per vertex; the finer surface.
        target: the mesh to texture, in the same place.
        size: side of the texture in texels.
    """
    if source.vertex_colors is None:
        return target
    padding = max(2, size // 256)
    atlas = packed_unwrap(target.vertices, target.faces, texture_size=size, padding=padding)
    vertices = target.vertices[atlas.vmapping]
    texels = rasterize_texels(atlas.faces, atlas.uvs, texture_size=size)
    positions = texels.interpolate(vertices)
    colors = carry_colors(source.vertices, source.vertex_colors, positions)
    return replace(
        target,
        vertices=vertices,
        faces=atlas.faces,
        uv_coords=atlas.uvs,
        vertex_colors=None,
        texture=texels.to_image(colors),
    )


def fill_background(mesh: MeshData) -> MeshData:
    """Give every texel outside of the charts the value of the nearest one inside.

    Engines make smaller copies of textures (mip maps), in which a rim of a few texels is gone and
    the background would show at the seams. Maps that are not square stay as they are.
    """
    if mesh.uv_coords is None:
        return mesh
    filled: dict[str, Any] = {}
    nearest: dict[int, Any] = {}
    for name, image in maps_of(mesh).items():
        size = image.shape[0]
        if image.shape[1] != size or size < MIN_TEXTURE:
            continue
        if size not in nearest:
            texels = rasterize_texels(mesh.faces, mesh.uv_coords, texture_size=size)
            if not len(texels.index):
                return mesh
            nearest[size] = distance_transform_edt(
                ~texels.mask, return_distances=False, return_indices=True
            )
        filled[name] = image[tuple(nearest[size])]
    texture = filled.pop("texture", mesh.texture)
    materials = dict(mesh.materials or {}) | filled
    return replace(mesh, texture=texture, materials=materials or None)


def texture_size(mesh: MeshData) -> list[int] | None:
    """Return width and height of the largest map; None without one."""
    sizes = [[image.shape[1], image.shape[0]] for image in maps_of(mesh).values()]
    return max(sizes, default=None)


def maps_of(mesh: MeshData) -> dict[str, NDArray[np.uint8]]:
    """Return a mesh's pictures by name: ``texture`` and the maps of its material."""
    materials = mesh.materials or {}
    found = {"texture": mesh.texture} | {name: materials.get(name) for name in MATERIAL_MAPS}
    return {name: image for name, image in found.items() if image is not None}
