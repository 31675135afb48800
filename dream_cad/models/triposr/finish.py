"""From the raw surface to the finished mesh, on the CPU: clean, simplify, texture, scale."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
import torch
from numpy.typing import NDArray

from dream_cad.exceptions import GenerationError
from dream_cad.mesh.bake import bake_texture, rasterize_positions
from dream_cad.mesh.cleanup import (
    normalize_to_unit_cube,
    remove_degenerate_faces,
    remove_small_components,
    weld_vertices,
)
from dream_cad.mesh.data import MeshData
from dream_cad.mesh.simplify import simplify
from dream_cad.mesh.unwrap import unwrap_uv
from dream_cad.models.base import ProgressCallback
from dream_cad.models.triposr.field import TriplaneField
from dream_cad.models.triposr.frame import to_model
from dream_cad.models.triposr.options import TripoSROptions

# xatlas takes about 1 s for 10,000 faces and 25 s for 60,000 (one CPU core), and a texture carries
# the detail anyway: larger meshes are simplified before they are unwrapped.
MAX_TEXTURED_FACES = 20_000


@dataclass(frozen=True)
class RawShape:
    """A surface as extracted, before it is cleaned, textured and scaled.

    Attributes:
        mesh: glTF frame, model units, with vertex colours unless a texture is wanted.
        field: the field on the CPU where a texture is wanted, else None.
    """

    mesh: MeshData
    field: TriplaneField | None = None


def finish(raw: RawShape, options: TripoSROptions, progress: ProgressCallback) -> MeshData:
    """Clean, simplify, texture and scale a surface.

    Args:
        raw: from ``TripoSRPipeline.extract``.
        options: ``min_component``, ``target_faces``, ``texture``, ``texture_size``.
        progress: called with (fraction, stage).

    Returns:
        The mesh in a centred unit cube, glTF frame.

    Raises:
        GenerationError: nothing is left of the surface.
    """
    progress(0.0, "cleanup")
    mesh = remove_degenerate_faces(weld_vertices(raw.mesh))
    mesh = remove_small_components(mesh, options.min_component)
    if len(mesh.faces) == 0:
        raise GenerationError(
            "Nothing is left of the surface after cleaning up.",
            hint="Lower the threshold or min_component, or raise the resolution.",
        )
    target = _face_target(options, len(mesh.faces))
    if target is not None:
        progress(0.2, "simplify")
        mesh = simplify(mesh, target)
    if raw.field is not None:
        progress(0.4, "texture")
        mesh = add_texture(mesh, raw.field, options.texture_size)
    return normalize_to_unit_cube(mesh)


def _face_target(options: TripoSROptions, faces: int) -> int | None:
    limits = [options.target_faces, MAX_TEXTURED_FACES if options.texture else None]
    target = min((limit for limit in limits if limit is not None), default=faces)
    return target if target < faces else None


def texture_padding(texture_size: int) -> int:
    """Texels between charts, as the published baking has it (spec, section 10)."""
    return round(max(2, texture_size / 256))


def add_texture(mesh: MeshData, field: TriplaneField, texture_size: int) -> MeshData:
    """Unwrap a mesh and fill its texture from the field.

    Args:
        mesh: glTF frame, model units.
        field: the field that the mesh is a surface of.
        texture_size: side in pixels.

    Returns:
        The mesh with vertices split at seams, uv_coords (v up) and texture (row 0 is v = 1), and
        no vertex colours.
    """
    padding = texture_padding(texture_size)
    atlas = unwrap_uv(mesh.vertices, mesh.faces, texture_size=texture_size, padding=padding)
    vertices = mesh.vertices[atlas.vmapping]
    positions, coverage = rasterize_positions(
        to_model(vertices), atlas.faces, atlas.uvs, texture_size=texture_size, padding=padding
    )

    def color_at(points: NDArray[np.float32]) -> NDArray[np.float32]:
        return field.color(torch.from_numpy(points)).numpy()

    texture = bake_texture(color_at, positions, coverage)
    return replace(
        mesh,
        vertices=vertices,
        faces=atlas.faces,
        vertex_colors=None,
        uv_coords=atlas.uvs,
        texture=np.ascontiguousarray(texture[::-1]),
    )
