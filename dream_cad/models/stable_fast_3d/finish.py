"""From the raw surface to the finished asset, on the CPU: clean, remesh, unwrap, bake, scale."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from dream_cad.exceptions import GenerationError
from dream_cad.mesh.bake import bake_normal_map
from dream_cad.mesh.box_unwrap import box_project_unwrap
from dream_cad.mesh.cleanup import (
    normalize_to_unit_cube,
    remove_degenerate_faces,
    remove_small_components,
    weld_vertices,
)
from dream_cad.mesh.data import MeshData
from dream_cad.mesh.normals import indexed_normals, vertex_normals
from dream_cad.mesh.packed_unwrap import packed_unwrap
from dream_cad.mesh.remesh import remesh
from dream_cad.mesh.simplify import simplify
from dream_cad.mesh.tangents import vertex_tangents
from dream_cad.mesh.texels import rasterize_texels
from dream_cad.mesh.texture_fill import dilate, dilation_rounds, to_uint8
from dream_cad.mesh.unwrap import UvAtlas
from dream_cad.models.base import ProgressCallback
from dream_cad.models.stable_fast_3d.field import SceneField
from dream_cad.models.stable_fast_3d.options import StableFast3DOptions

# Rows are the exported axes in model coordinates: (x, y, z) -> (y, z, x), the camera's side to
# the front. Upstream puts it to the back; that is half a turn away.
GLTF_FROM_MODEL = np.array([[0, 1, 0], [0, 0, 1], [1, 0, 0]], dtype=np.float32)
_FLAT = np.array([0.5, 0.5, 1.0], dtype=np.float32)
_TEXELS_OF_PADDING = 256

Points = NDArray[np.float32]
Surface = Callable[[Points], tuple[Points, Points]]


@dataclass(frozen=True)
class RawShape:
    """A surface as extracted, before it is cleaned, textured and scaled.

    Attributes:
        vertices: (V, 3) float32, model frame.
        faces: (F, 3) int32, counter-clockwise outside.
        field: the field that it is a surface of, on the CPU.
        roughness: of the whole object.
        metallic: of the whole object.
    """

    vertices: NDArray[np.float32]
    faces: NDArray[np.int32]
    field: SceneField
    roughness: float
    metallic: float

    def look_up(self, points: Points) -> tuple[Points, Points]:
        """Return albedo and outward normals, (P, 3) each, at points (P, 3) of the glTF frame.

        Raises:
            GenerationError: they are not finite.
        """
        model = torch.from_numpy(np.ascontiguousarray(points @ GLTF_FROM_MODEL))
        found = self.field.query(model, "features", "perturb_normal")
        albedo, inward = found["features"].numpy(), found["perturb_normal"].numpy()
        if not (np.isfinite(albedo).all() and np.isfinite(inward).all()):
            raise GenerationError(
                "The field gave colours or normals that are not finite.",
                hint="Where half precision overflowed, precision 'bf16' or 'fp32' helps.",
            )
        return albedo, -inward @ GLTF_FROM_MODEL.T


def finish(raw: RawShape, options: StableFast3DOptions, progress: ProgressCallback) -> MeshData:
    """Clean, remesh, simplify, texture and scale a surface.

    Args:
        raw: from ``StableFast3DPipeline.extract``.
        options: what is done.
        progress: called with (fraction, stage).

    Returns:
        The mesh in a centred unit cube, glTF frame, with its material.

    Raises:
        GenerationError: nothing is left of the surface, or the layout needs a larger texture.
        InvalidConfigError: the kind of remeshing is not available.
    """
    progress(0.0, "cleanup")
    mesh = clean(raw, options)
    if options.remesh != "none":
        progress(0.1, "remesh")
        mesh = remesh(mesh, options.remesh, target_vertices=options.target_vertices)
    if options.target_faces is not None:
        progress(0.2, "simplify")
        mesh = simplify(mesh, options.target_faces)
    materials: dict[str, Any] = {"roughness": raw.roughness, "metallic": raw.metallic}
    mesh = replace(mesh, materials=materials)
    if options.texture:
        progress(0.3, "texture")
        mesh = add_textures(mesh, raw.look_up, options)
    else:
        albedo, _ = raw.look_up(mesh.vertices)
        mesh = replace(mesh, vertex_colors=to_uint8(albedo[None])[0])
    return normalize_to_unit_cube(mesh)


def clean(raw: RawShape, options: StableFast3DOptions) -> MeshData:
    """Turn a surface into the glTF frame and drop what is loose or has no area.

    Raises:
        GenerationError: nothing is left.
    """
    vertices = np.ascontiguousarray(raw.vertices @ GLTF_FROM_MODEL.T)
    mesh = remove_degenerate_faces(weld_vertices(MeshData(vertices, raw.faces)))
    mesh = remove_small_components(mesh, options.min_component)
    if len(mesh.faces) == 0:
        raise GenerationError(
            "Nothing is left of the surface after cleaning up.",
            hint="Lower the threshold or min_component, or raise the resolution.",
        )
    return mesh


def add_textures(mesh: MeshData, surface: Surface, options: StableFast3DOptions) -> MeshData:
    """Unwrap a mesh and bake base colour and, if asked for, the normal map.

    Args:
        mesh: glTF frame, without UV.
        surface: gives albedo and outward normals at points.
        options: ``texture_size``, ``unwrap``, ``normal_map``.

    Returns:
        The mesh with vertices split at seams, uv_coords and its maps (row 0 is v = 1).
    """
    size = options.texture_size
    atlas = unwrap(mesh, options)
    vertices = mesh.vertices[atlas.vmapping]
    texels = rasterize_texels(atlas.faces, atlas.uvs, texture_size=size)
    albedo, directions = surface(texels.interpolate(vertices))
    rounds = max(dilation_rounds(size), 1)
    materials = dict(mesh.materials or {})
    if options.normal_map:
        normals = vertex_normals(vertices, atlas.faces)
        tangents = vertex_tangents(vertices, atlas.faces, atlas.uvs, normals)
        bumps = dilate(bake_normal_map(texels, directions, normals, tangents), texels.mask, rounds)
        is_empty = (bumps == 0).all(axis=-1, keepdims=True)
        materials["normal_texture"] = to_uint8(np.where(is_empty, _FLAT, bumps))
    color = dilate(texels.to_image(albedo), texels.mask, rounds)
    return replace(
        mesh,
        vertices=vertices,
        faces=atlas.faces,
        uv_coords=atlas.uvs,
        texture=to_uint8(color),
        materials=materials,
    )


def unwrap(mesh: MeshData, options: StableFast3DOptions) -> UvAtlas:
    """Lay the faces of a mesh into the texture."""
    size = options.texture_size
    if options.unwrap == "box":
        return box_project_unwrap(
            mesh.vertices, mesh.faces, indexed_normals(mesh.vertices, mesh.faces)
        )
    padding = max(2, round(size / _TEXELS_OF_PADDING))
    return packed_unwrap(mesh.vertices, mesh.faces, texture_size=size, padding=padding)
