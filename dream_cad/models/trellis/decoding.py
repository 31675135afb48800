"""A structured latent to a surface, splats and a radiance field, and these to files."""

from __future__ import annotations

import io
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image

from dream_cad.exceptions import GenerationError
from dream_cad.models.base import ProgressCallback
from dream_cad.models.trellis.files import field_file, latent_file, splat_files
from dream_cad.models.trellis.mesh_extraction import ExtractedMesh, extract_mesh
from dream_cad.models.trellis.network import Decoders, Residence
from dream_cad.models.trellis.options import RepresentationType, TrellisOptions
from dream_cad.models.trellis.rendering import preview, preview_latent
from dream_cad.models.trellis.representations import Gaussians, RadianceField
from dream_cad.nn.sparse.tensor import SparseTensor

SPLATS_PREVIEW, FIELD_PREVIEW, LATENT_PREVIEW = "splats.png", "field.png", "latent.png"
"""Names of the turntables in ``GenerationResult.files``."""

_CUBES_PER_VOXEL = 4


@dataclass(frozen=True)
class Decoded:
    """One object in TRELLIS's world.

    Attributes:
        slat: the structured latent.
        resolution: voxels along an axis of its grid.
        surface: always there.
        splats: where they are asked for, or the texture comes from them.
        field: alike.
    """

    slat: SparseTensor
    resolution: int
    surface: ExtractedMesh
    splats: Gaussians | None = None
    field: RadianceField | None = None


@torch.no_grad()
def decode(
    decoders: Decoders, slat: SparseTensor, options: TrellisOptions, home: Residence
) -> Decoded:
    """Decode what the options need.

    Raises:
        GenerationError: there is no surface.
    """
    surface = _decode_surface(decoders, slat, home)
    splats: Gaussians | None = None
    field: RadianceField | None = None
    if options.needs(RepresentationType.GAUSSIAN_SPLATTING):
        with home.use(decoders.gaussian):
            (splats,) = decoders.gaussian.decode(slat)
    if options.needs(RepresentationType.NERF):
        with home.use(decoders.field):
            (field,) = decoders.field.decode(slat)
    return Decoded(slat, decoders.mesh.config.resolution, surface, splats, field)


def _decode_surface(decoders: Decoders, slat: SparseTensor, home: Residence) -> ExtractedMesh:
    with home.use(decoders.mesh):
        cubes = decoders.mesh(slat)
    coords = cubes.voxels.coords[:, 1:].cpu().numpy()
    feats = cubes.feats.float().cpu().numpy()
    side = _CUBES_PER_VOXEL * decoders.mesh.config.resolution
    found = extract_mesh(coords, feats, side)
    if not len(found.faces) or not np.isfinite(found.vertices).all():
        raise GenerationError(
            "The structured latent has no surface.",
            hint="Another seed or picture may do better; 'bf16' or 'fp32' where fp16 overflowed.",
        )
    return found


def representation_files(
    decoded: Decoded, options: TrellisOptions, progress: ProgressCallback
) -> dict[str, bytes]:
    """Return the representations asked for that are no meshes, each with a preview, by file name.

    Raises:
        GenerationError: the splats are not finite.
    """
    slat, side, height = decoded.slat, decoded.resolution, options.preview_size
    splats, field = decoded.splats, decoded.field
    makers: dict[RepresentationType, Callable[[], dict[str, bytes]]] = {
        RepresentationType.SLAT: lambda: (
            latent_file(slat, side)
            | {LATENT_PREVIEW: _png(preview_latent(slat, side, size=height))}
        )
    }
    if splats is not None:
        makers[RepresentationType.GAUSSIAN_SPLATTING] = lambda: (
            splat_files(splats) | {SPLATS_PREVIEW: _png(preview(splats, size=height))}
        )
    if field is not None:
        makers[RepresentationType.NERF] = lambda: (
            field_file(field) | {FIELD_PREVIEW: _png(preview(field, size=height))}
        )
    files: dict[str, bytes] = {}
    for number, (representation, make) in enumerate(makers.items()):
        if options.wants(representation):
            progress(number / len(makers), f"files {representation.value}")
            files |= make()
    return files


def _png(pixels: NDArray[np.uint8]) -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, "PNG")
    return buffer.getvalue()
