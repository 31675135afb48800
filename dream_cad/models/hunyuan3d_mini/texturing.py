"""Hunyuan3D-Paint as a part of the model: its weights, and a mesh to be painted."""

from __future__ import annotations

import secrets
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from dream_cad.exceptions import InvalidConfigError
from dream_cad.mesh.data import MeshData
from dream_cad.mesh.simplify import simplify
from dream_cad.models.base import GenerationResult, ProgressCallback
from dream_cad.models.hunyuan3d_mini.options import Hunyuan3DOptions
from dream_cad.models.hunyuan3d_mini.paint.painter import (
    PaintedMesh,
    PaintSettings,
    TexturePainter,
    check_paint_memory,
)
from dream_cad.models.hunyuan3d_mini.paint.weights import (
    DELIGHT_FOLDER,
    PAINT_FOLDERS,
    PaintVariant,
)
from dream_cad.models.hunyuan3d_mini.pipeline import cut_out
from dream_cad.models.weights import published_folders

if TYPE_CHECKING:
    from PIL import Image

PAINT_NAME = "hunyuan3d-paint"
PAINT_REPOSITORY = "tencent/Hunyuan3D-2"

# Published runs reduce meshes to this before they unwrap and paint them.
GENERATED_FACES = 40_000
# xatlas takes minutes from here on.
MOST_FACES = 400_000


@dataclass(frozen=True)
class MeshToPaint:
    """A mesh that is there, and a picture of what it shall look like."""

    mesh: MeshData
    picture: Image.Image


def find_paint(choice: Path | None, checkpoint: Path, variant: PaintVariant) -> Path:
    """Return the folder with the weights of Paint and of delight.

    Args:
        choice: the folder named by the user.
        checkpoint: the shape model's folder, which may be a checkout that holds them as well.
        variant: which Paint.

    Raises:
        InvalidConfigError: they are not there; names what to fetch.
    """
    folders = [choice] if choice is not None else [checkpoint, *published_folders(PAINT_NAME)]
    for folder in folders:
        if (folder / PAINT_FOLDERS[variant]).is_dir() and (folder / DELIGHT_FOLDER).is_dir():
            return folder
    raise InvalidConfigError(
        f"The weights of Hunyuan3D-Paint are not on this machine; {PAINT_FOLDERS[variant]} and "
        f"{DELIGHT_FOLDER} were looked for in {', '.join(map(str, folders))}.",
        hint=f"Run 'dream-cad pull {PAINT_NAME} --latest', or name the folder of a checkout of "
        f"{PAINT_REPOSITORY} as the model's option paint; or leave texture out.",
        details={"option": "texture", "repository": PAINT_REPOSITORY},
    )


def settings_of(options: Hunyuan3DOptions, seed: int) -> PaintSettings:
    """Return how to paint."""
    return PaintSettings(
        texture_size=options.texture_size,
        view_size=options.view_size,
        delight=options.delight,
        keep_uvs=options.keep_uvs,
        num_inference_steps=options.paint_steps,
        seed=seed,
    )


def check_before(options: Hunyuan3DOptions, device: str) -> None:
    """Refuse what cannot be painted before the shape is made.

    Raises:
        InvalidConfigError: own UVs of a mesh that is not there yet; or too little memory.
        InsufficientVRAMError: too little memory of the GPU.
    """
    if options.keep_uvs:
        raise InvalidConfigError(
            "keep_uvs concerns a mesh that is given; a generated one has no UVs.",
            hint="Leave keep_uvs out.",
            details={"option": "keep_uvs"},
        )
    check_paint_memory(settings_of(options, 0), torch.device(device))


def paint_generated(
    painter: TexturePainter,
    mesh: MeshData,
    pictures: tuple[Image.Image, ...],
    settings: PaintSettings,
    progress: ProgressCallback,
) -> PaintedMesh:
    """Paint a shape that was just made; above 40,000 triangles it is simplified first."""
    if len(mesh.faces) > GENERATED_FACES:
        mesh = simplify(mesh, GENERATED_FACES)
    return painter.paint(mesh, pictures, settings, progress)


def paint_given(
    painter: TexturePainter,
    source: MeshToPaint,
    options: Hunyuan3DOptions,
    progress: ProgressCallback,
) -> tuple[PaintedMesh, dict[str, Any]]:
    """Paint a mesh that was given; it stays where it is.

    Returns:
        The mesh, and what the receipt says.

    Raises:
        InvalidConfigError: it has too many triangles, or as ``TexturePainter.paint``.
    """
    mesh = source.mesh
    if options.target_faces is not None and len(mesh.faces) > options.target_faces:
        if options.keep_uvs:
            raise InvalidConfigError(
                "A mesh that is simplified cannot keep its UVs.",
                hint="Leave out target_faces or keep_uvs.",
                details={"option": "target_faces"},
            )
        mesh = simplify(MeshData(mesh.vertices, mesh.faces), options.target_faces)
    if not options.keep_uvs and len(mesh.faces) > MOST_FACES:
        raise InvalidConfigError(
            f"The mesh has {len(mesh.faces):,} triangles; up to {MOST_FACES:,} are unwrapped.",
            hint=f"Set target_faces, for example {GENERATED_FACES}, or keep_uvs.",
            details={"option": "target_faces", "most": MOST_FACES},
        )
    seed = options.seed if options.seed is not None else secrets.randbits(32)
    picture, matting = cut_out(source.picture, options)
    made = painter.paint(mesh, (picture,), settings_of(options, seed), progress)
    return made, {"seed": seed, "matting": {"front": matting}}


def read_mesh(mesh: MeshData | GenerationResult | str | Path) -> MeshData:
    """Return a mesh from wherever it comes.

    Raises:
        FileFormatError: the file is no mesh.
    """
    if isinstance(mesh, GenerationResult):
        return mesh.to_mesh()
    if isinstance(mesh, MeshData):
        return mesh
    from dream_cad.mesh.loading import load_mesh

    return load_mesh(Path(mesh))
