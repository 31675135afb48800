"""Mesh and appearance to a textured mesh (spec, section 12), with our own renderer.

``to_textured_mesh`` is what the pipeline calls: fewer faces, hidden parts away, holes filled, UV,
and a texture from views of the splats or of the radiance field.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import asdict, dataclass, replace
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from dream_cad.exceptions import GenerationError, InvalidConfigError
from dream_cad.mesh.cleanup import remove_degenerate_faces, weld_vertices
from dream_cad.mesh.data import MeshData
from dream_cad.mesh.holes import fill_small_holes
from dream_cad.mesh.packed_unwrap import packed_unwrap
from dream_cad.mesh.simplify import MIN_FACES
from dream_cad.mesh.simplify import simplify as simplify_mesh
from dream_cad.mesh.texels import rasterize_texels
from dream_cad.mesh.texture_views import (
    FIT_STEPS,
    Observation,
    average_views,
    fit_texture,
    inpaint,
)
from dream_cad.mesh.unwrap import check_texture_size
from dream_cad.mesh.view_texels import look_into_texture
from dream_cad.mesh.views import View
from dream_cad.mesh.visibility import face_visibility, remove_hidden_faces
from dream_cad.models.base import ProgressCallback, ignore_progress
from dream_cad.models.profile import part_of
from dream_cad.models.trellis.cameras import sphere_views
from dream_cad.models.trellis.frame import to_gltf
from dream_cad.models.trellis.mesh_extraction import ExtractedMesh
from dream_cad.models.trellis.rendering import (
    Appearance,
    device_of,
    picture_of,
    world_cloud,
)
from dream_cad.models.trellis.representations import Gaussians

Bake = Literal["opt", "fast"]

DEFAULT_SIMPLIFY, DEFAULT_TEXTURE = 0.95, 1024
_HOLE_EDGES = 250
_MAX_EFFORT = 4096


@dataclass(frozen=True)
class BakeEffort:
    """How many views, and how large, the finishing of a mesh looks at.

    Attributes:
        views: pictures that the texture comes from.
        view_size: their side in pixels.
        steps: of the fit, where ``bake`` is "opt".
        hidden_views: views that tell which faces are hidden.
        hidden_size: their side in pixels.
    """

    views: int = 100
    view_size: int = 1024
    steps: int = FIT_STEPS
    hidden_views: int = 1000
    hidden_size: int = 1024

    def __post_init__(self) -> None:
        for name, value in asdict(self).items():
            if not 1 <= value <= _MAX_EFFORT:
                raise InvalidConfigError(f"{name} is {value}; expected 1..{_MAX_EFFORT}.")


PUBLISHED_EFFORT = BakeEffort()
GPU_EFFORT = BakeEffort(hidden_views=150, hidden_size=512)
"""The published texture; faces' visibility, which is found on the CPU, from fewer views."""
QUICK_EFFORT = BakeEffort(views=24, view_size=512, steps=400, hidden_views=60, hidden_size=384)
"""For CPUs: the texture has as many texels, fewer pixels are averaged for each."""
QUICK_FIELD_EFFORT = replace(QUICK_EFFORT, views=16, view_size=256)
"""A ray through a radiance field costs a CPU a hundred times what a pixel of splats does."""


def to_textured_mesh(
    mesh: ExtractedMesh,
    appearance: Appearance,
    *,
    simplify: float = DEFAULT_SIMPLIFY,
    texture_size: int = DEFAULT_TEXTURE,
    fill_holes: bool = True,
    bake: Bake | None = None,
    effort: BakeEffort | None = None,
    seed: int = 0,
    progress: ProgressCallback = ignore_progress,
) -> MeshData:
    """Finish a mesh and paint it with what the splats or the radiance field look like.

    Args:
        mesh: in TRELLIS's world, z up, from ``extract_mesh``.
        appearance: of the same latent, in the same world.
        simplify: share of the faces to take away, 0..1.
        texture_size: T, texels a side; a power of two for ``bake="opt"``.
        fill_holes: remove parts hidden inside and fill small holes.
        bake: "opt" fits the texture to the views, "fast" averages them; by default "opt" where
            the appearance is on a GPU, else "fast".
        effort: number and size of views; by default ``GPU_EFFORT`` where the appearance is on a
            GPU, else ``QUICK_EFFORT``, for a radiance field ``QUICK_FIELD_EFFORT``.
        seed: of the fit's order of views.
        progress: called with (fraction, stage): simplify, holes, unwrap, views, bake.

    Returns:
        The mesh in glTF's frame but neither centred nor scaled (``normalize_to_unit_cube`` does),
        with uv_coords and texture (T, T, 3), without vertex colours.

    Raises:
        InvalidConfigError: a number is out of range.
        GenerationError: there is no surface, or no view shows it.
    """
    if not 0 <= simplify < 1:
        raise InvalidConfigError(f"simplify is {simplify}; expected 0..1.")
    device = device_of(appearance)
    on_gpu = device.startswith("cuda")
    effort = effort or _default_effort(appearance, on_gpu)
    bake = bake or ("opt" if on_gpu else "fast")
    check_texture_size(texture_size, 0)
    if bake == "opt" and texture_size & (texture_size - 1):
        raise InvalidConfigError(
            f"texture_size is {texture_size}; bake 'opt' wants a power of two.",
            hint="512, 1024 or 2048, or bake 'fast'.",
        )
    progress(0.0, "simplify")
    finished = simplify_extracted(mesh, simplify)
    if fill_holes:
        finished = close_and_clear(finished, simplify, effort, part_of(progress, 0.1, 0.35))
    progress(0.35, "unwrap")
    finished = unwrap(finished, texture_size)
    observations = observe(finished, appearance, effort, part_of(progress, 0.4, 0.8))
    progress(0.8, "bake")
    texture = bake_views(
        finished,
        observations,
        texture_size,
        bake,
        effort.steps,
        seed=seed,
        device=device,
        progress=part_of(progress, 0.8, 1.0),
    )
    return replace(finished, vertices=to_gltf(finished.vertices), texture=texture)


def _default_effort(appearance: Appearance, on_gpu: bool) -> BakeEffort:
    if on_gpu:
        return GPU_EFFORT
    return QUICK_EFFORT if isinstance(appearance, Gaussians) else QUICK_FIELD_EFFORT


def simplify_extracted(mesh: ExtractedMesh, share: float) -> MeshData:
    """Take away a share of the faces of a surface; the world's frame stays.

    Raises:
        GenerationError: there are no faces.
    """
    bare = remove_degenerate_faces(
        weld_vertices(MeshData(mesh.vertices.astype(np.float32), mesh.faces.astype(np.int32)))
    )
    if len(bare.faces) == 0:
        raise GenerationError("There is no surface to finish.", hint="Try another seed.")
    target = max(round(len(bare.faces) * (1 - share)), MIN_FACES)
    return simplify_mesh(bare, target)


def close_and_clear(
    mesh: MeshData,
    simplified: float,
    effort: BakeEffort,
    progress: ProgressCallback = ignore_progress,
) -> MeshData:
    """Remove what is hidden inside, and fill holes of few edges (the fewer, the more simplified).

    Unlike the published code, holes are filled where nothing is hidden, too.
    """
    looks = sphere_views(effort.hidden_views)

    def reported() -> Iterator[View]:
        for number, view in enumerate(looks):
            progress(number / len(looks), "holes")
            yield view

    visibility = face_visibility(mesh, reported(), effort.hidden_size)
    cleared = remove_hidden_faces(mesh, visibility)
    return fill_small_holes(cleared, int(_HOLE_EDGES * (1 - simplified) ** 0.5))[0]


def unwrap(mesh: MeshData, texture_size: int) -> MeshData:
    """Give a mesh UV coordinates; vertices are doubled at seams."""
    padding = max(2, texture_size // 256)
    atlas = packed_unwrap(mesh.vertices, mesh.faces, texture_size=texture_size, padding=padding)
    return MeshData(mesh.vertices[atlas.vmapping], atlas.faces, uv_coords=atlas.uvs)


def observe(
    mesh: MeshData,
    appearance: Appearance,
    effort: BakeEffort,
    progress: ProgressCallback = ignore_progress,
) -> list[Observation]:
    """Render the appearance from all around, and find what of the texture each view shows.

    The published code takes pixels as they are on black, which darkens rims and gaps; here the
    black is taken out of them.
    """
    device = device_of(appearance)
    source = world_cloud(appearance) if isinstance(appearance, Gaussians) else appearance
    observations = []
    for number, view in enumerate(sphere_views(effort.views)):
        progress(number / effort.views, "views")
        picture, alpha = picture_of(source, view, effort.view_size, device)
        texels = look_into_texture(mesh, view, effort.view_size)
        observations.append(Observation.of(texels, picture, alpha))
    return observations


def bake_views(
    mesh: MeshData,
    observations: list[Observation],
    texture_size: int,
    bake: Bake,
    steps: int,
    *,
    seed: int = 0,
    device: str = "cpu",
    progress: ProgressCallback = ignore_progress,
) -> NDArray[np.uint8]:
    """Make the texture (T, T, 3); texels that nothing tells of are inpainted.

    Raises:
        GenerationError: no view shows the mesh.
    """
    average, filled = average_views(observations, texture_size)
    if not filled.any():
        raise GenerationError(
            "No view of the splats or the field shows the mesh: they are transparent there.",
            hint="Another seed or picture may do better.",
        )
    if bake == "fast":
        return inpaint(average, filled)
    start = inpaint(average, filled).astype(np.float32) / np.float32(255)
    texture = fit_texture(
        observations,
        texture_size,
        start=start,
        steps=steps,
        seed=seed,
        device=device,
        on_step=lambda share: progress(share, "bake"),
    )
    shown = rasterize_texels(mesh.faces, _uv(mesh), texture_size=texture_size).mask
    return inpaint(texture, shown)


def _uv(mesh: MeshData) -> NDArray[np.float32]:
    if mesh.uv_coords is None:
        raise InvalidConfigError("The mesh has no UV coordinates; unwrap it first.")
    return mesh.uv_coords
