"""From the extracted surface to the mesh of a result: colours or a texture, unit cube."""

from __future__ import annotations

import numpy as np

from dream_cad.exceptions import GenerationError
from dream_cad.mesh.cleanup import normalize_to_unit_cube, remove_degenerate_faces
from dream_cad.mesh.data import MeshData
from dream_cad.mesh.simplify import MIN_FACES, simplify
from dream_cad.models.base import ProgressCallback
from dream_cad.models.trellis.decoding import Decoded
from dream_cad.models.trellis.frame import to_gltf
from dream_cad.models.trellis.options import RepresentationType, TrellisOptions
from dream_cad.models.trellis.textured_mesh import DEFAULT_SIMPLIFY, to_textured_mesh

_MOST_SIMPLIFIED = 0.999


def finish(decoded: Decoded, options: TrellisOptions, progress: ProgressCallback) -> MeshData:
    """Return the mesh in the glTF frame and the centred unit cube.

    Raises:
        GenerationError: nothing is left of it, or its appearance shows nothing to bake.
    """
    if options.texture:
        return normalize_to_unit_cube(_textured(decoded, options, progress))
    progress(0.0, "finish")
    return normalize_to_unit_cube(_colored(decoded, options))


def _textured(decoded: Decoded, options: TrellisOptions, progress: ProgressCallback) -> MeshData:
    is_field = options.texture_source == RepresentationType.NERF.value
    appearance = decoded.field if is_field else decoded.splats
    if appearance is None:
        raise RuntimeError("what the texture is baked from was not decoded")
    return to_textured_mesh(
        decoded.surface,
        appearance,
        simplify=simplified_share(len(decoded.surface.faces), options, DEFAULT_SIMPLIFY),
        texture_size=options.texture_size,
        fill_holes=options.fill_holes,
        bake=options.bake,
        progress=progress,
    )


def _colored(decoded: Decoded, options: TrellisOptions) -> MeshData:
    surface = decoded.surface
    colors = np.rint(surface.attributes[:, :3] * 255).clip(0, 255).astype(np.uint8)
    faces = surface.faces.astype(np.int32)
    mesh = MeshData(to_gltf(surface.vertices), faces, vertex_colors=colors)
    mesh = remove_degenerate_faces(mesh)
    if len(mesh.faces) == 0:
        raise GenerationError("Nothing is left of the surface after cleaning up.")
    share = simplified_share(len(mesh.faces), options, 0.0)
    if share == 0:
        return mesh
    return simplify(mesh, max(round(len(mesh.faces) * (1 - share)), MIN_FACES))


def simplified_share(faces: int, options: TrellisOptions, default: float) -> float:
    """Return the share of the faces to take away, in [0, 0.999]."""
    if options.target_faces is not None:
        return min(max(1 - options.target_faces / faces, 0.0), _MOST_SIMPLIFIED)
    return default if options.simplify is None else options.simplify
