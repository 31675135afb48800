"""A mesh that a request brings along, to be textured or varied."""

from __future__ import annotations

import hashlib
import tempfile
from collections.abc import Mapping
from pathlib import Path

from deployments.http.checks import makes_variants, textures_meshes
from deployments.messages import INPUT_MESH
from deployments.plan import ModelPlan
from dream_cad.benchmark.mesh_files import read_mesh_file
from dream_cad.exceptions import FileFormatError, InvalidConfigError


def check_takes_mesh(plan: ModelPlan) -> None:
    """Refuse a model that can do nothing with a mesh.

    Raises:
        InvalidConfigError: it makes meshes only.
    """
    if not (textures_meshes(plan) or makes_variants(plan)):
        raise InvalidConfigError(
            f"Model {plan.name!r} makes meshes; it cannot texture or vary one that is given.",
            hint="GET /v1/models shows under 'textures_meshes' and 'makes_variants' which can.",
        )


def painter_among(plans: Mapping[str, ModelPlan], preferred: str) -> ModelPlan:
    """Return a served model that textures meshes: the preferred one if it does.

    Raises:
        InvalidConfigError: no model that is served does.
    """
    for plan in sorted(plans.values(), key=lambda plan: plan.name != preferred):
        if plan.is_deployed and textures_meshes(plan):
            return plan
    raise InvalidConfigError(
        "No model that is served here textures meshes.",
        hint="Leave mesh, texture_prompt and texture_image_url out, or have hunyuan3d-mini served.",
    )


def check_glb_mesh(content: bytes) -> None:
    """Refuse what is no GLB with triangles; nothing is allocated on a header's word.

    Raises:
        FileFormatError: says what is wrong.
    """
    if content[:4] != b"glTF":
        raise FileFormatError("The mesh is no GLB file.", hint="Export it as glTF binary (.glb).")
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / INPUT_MESH
        path.write_bytes(content)
        if len(read_mesh_file(path).faces) == 0:
            raise FileFormatError("The mesh has no triangles.")


def mesh_source(mesh: bytes, image: bytes | None, prompt: str) -> bytes:
    """Return what tells this mesh with this picture or prompt from others."""
    look = b"prompt " + prompt.encode() if image is None else b"image " + image
    return b"".join([b"mesh ", *(hashlib.sha256(part).digest() for part in (mesh, look))])
