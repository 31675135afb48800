"""A mesh and pictures of it to a textured mesh: every step of Hunyuan3D-Paint in order."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Protocol, Self

import numpy as np
import psutil
import torch
from numpy.typing import NDArray
from PIL import Image

from dream_cad.exceptions import InsufficientVRAMError, InvalidConfigError
from dream_cad.mesh.data import MeshData
from dream_cad.models.base import ProgressCallback, ignore_progress
from dream_cad.models.hunyuan3d_mini.paint.back_projection import (
    ProjectedView,
    back_project,
    blend,
)
from dream_cad.models.hunyuan3d_mini.paint.cameras import CAMERAS, camera_matrices
from dream_cad.models.hunyuan3d_mini.paint.delight import Delight
from dream_cad.models.hunyuan3d_mini.paint.diffusion import PaintDiffusion
from dream_cad.models.hunyuan3d_mini.paint.inpaint import (
    TexturedFaces,
    diffuse_over_mesh,
    fill_texels,
)
from dream_cad.models.hunyuan3d_mini.paint.maps import (
    RenderedView,
    RenderMesh,
    as_uint8,
    normal_map,
    position_map,
    render_mesh,
    render_view,
    resize,
)
from dream_cad.models.hunyuan3d_mini.paint.recentre import recentre
from dream_cad.models.hunyuan3d_mini.paint.unwrapped import (
    UnwrappedMesh,
    own_uvs,
    unwrap_for_paint,
)
from dream_cad.models.hunyuan3d_mini.paint.weights import PaintVariant
from dream_cad.models.profile import part_of

# Plain dielectric: the networks make no maps of material.
_MATERIALS = {"metallic": 0.0, "roughness": 1.0}
# Upstream renders four times as fine as it draws, 2048 for 512.
_RENDER_FACTOR = 4
# Upper estimates: fragments of six views and one view's maps; one view's splat and the sums.
_BYTES_PER_PIXEL, _BYTES_PER_TEXEL, _BYTES_AT_LEAST = 230, 110, 300_000_000
_TEXTURE_SIZES = (4096, 2048, 1024, 512)

Pixels = NDArray[np.uint8]


class ViewPainter(Protocol):
    """Draws an object from every camera; see ``PaintDiffusion``."""

    def views(
        self,
        reference: Sequence[Pixels],
        normals: Pixels,
        positions: Pixels,
        camera_labels: Sequence[int],
        *,
        seed: int,
        num_inference_steps: int | None,
        progress: ProgressCallback,
    ) -> Pixels:
        """Return (n, S, S, 3) uint8 pictures."""


class Relighter(Protocol):
    """Takes light and shadow out of a picture; see ``Delight``."""

    def __call__(self, image: Image.Image, *, progress: ProgressCallback) -> Image.Image:
        """Return a 512 x 512 RGB picture on white."""


@dataclass(frozen=True)
class PaintSettings:
    """How to paint.

    Attributes:
        texture_size: side of the texture.
        view_size: side of the views that the networks draw, a multiple of 64; trained on 512.
        render_size: side of what is projected; None for the larger of the texture and four times
            the views.
        delight: whether light and shadow are taken out of the pictures first.
        keep_uvs: whether the mesh keeps its own UVs.
        num_inference_steps: None for the variant's own.
        seed: of all noise of the views.
    """

    texture_size: int = 2048
    view_size: int = 512
    render_size: int | None = None
    delight: bool = True
    keep_uvs: bool = False
    num_inference_steps: int | None = None
    seed: int = 0

    @property
    def pixels(self) -> int:
        """Side of what is rendered and projected."""
        return self.render_size or max(self.texture_size, _RENDER_FACTOR * self.view_size)


@dataclass(frozen=True)
class PaintedMesh:
    """A textured mesh, and what it was made from.

    Attributes:
        mesh: the input's triangles with UVs and a texture.
        views: (6, S, S, 3) uint8, what the networks drew.
        painted: (T, T) bool, texels that a view has seen; the others were filled.
    """

    mesh: MeshData
    views: Pixels
    painted: NDArray[np.bool_]

    @property
    def facts(self) -> dict[str, Any]:
        """What receipts say."""
        return {"seen_share": round(float(self.painted.mean()), 4), "views": len(self.views)}


class TexturePainter:
    """Paints meshes.

    Args:
        diffusion: draws the views.
        delight: takes the light out of pictures; None where its weights are not there.
        device: where meshes are rendered and textures are blended.
    """

    def __init__(
        self,
        diffusion: ViewPainter,
        delight: Relighter | None,
        *,
        device: torch.device | str = "cpu",
    ) -> None:
        self._diffusion = diffusion
        self._delight = delight
        self._device = torch.device(device)

    @classmethod
    def load(
        cls,
        folder: Path,
        *,
        variant: PaintVariant = "turbo",
        device: torch.device | str = "cpu",
        dtype: torch.dtype = torch.float32,
    ) -> Self:
        """Load a checkout of ``tencent/Hunyuan3D-2``.

        Raises:
            InvalidConfigError: there is no such variant.
            CheckpointError: a file is missing or damaged, or does not fit the networks.
        """
        diffusion = PaintDiffusion.load(folder, variant=variant, device=device, dtype=dtype)
        delight = Delight.load(folder, device=device, dtype=dtype)
        return cls(diffusion, delight, device=device)

    @torch.no_grad()
    def paint(
        self,
        mesh: MeshData,
        images: Sequence[Image.Image],
        settings: PaintSettings | None = None,
        progress: ProgressCallback = ignore_progress,
    ) -> PaintedMesh:
        """Paint a mesh after pictures of the object.

        Args:
            mesh: y up, its front along +z; appearance it has is replaced.
            images: 1 to 5 pictures, the first from the front; RGBA with the object opaque, or
                RGB on white.
            settings: how to paint.
            progress: called with (fraction, stage); what it raises ends the work.

        Returns:
            The same triangles, in their order and place.

        Raises:
            InvalidConfigError: a size is out of range, too large for the memory, or the UVs cannot
                be kept.
            InsufficientVRAMError: too large for the GPU's memory.
            ShapeError: the mesh is empty or inconsistent.
            GenerationError: the networks made NaN or infinity; names the step.
        """
        used = settings or PaintSettings()
        check_settings(used, len(images))
        check_paint_memory(used, self._device)
        progress(0.0, "unwrap")
        flat = own_uvs(mesh) if used.keep_uvs else unwrap_for_paint(mesh.vertices, mesh.faces)
        loaded = render_mesh(flat.vertices, flat.faces, flat.uvs, device=self._device)
        references = self._references(images, used, part_of(progress, 0.1, 0.35))
        progress(0.35, "maps")
        seen = [render_view(loaded, camera_matrices(camera), used.pixels) for camera in CAMERAS]
        views = self._diffusion.views(
            references,
            _control_maps([normal_map(loaded, view) for view in seen], used.view_size),
            _control_maps([position_map(loaded, view) for view in seen], used.view_size),
            [camera.label for camera in CAMERAS],
            seed=used.seed,
            num_inference_steps=used.num_inference_steps,
            progress=part_of(progress, 0.4, 0.8),
        )
        return _bake(mesh, flat, views, used, (loaded, seen), part_of(progress, 0.8, 1.0))

    def _references(
        self, images: Sequence[Image.Image], settings: PaintSettings, progress: ProgressCallback
    ) -> list[Pixels]:
        """Centre the pictures, take out their light, and bring them to the views' size."""
        references = []
        for number, image in enumerate(images):
            share = part_of(progress, number / len(images), (number + 1) / len(images))
            centred = recentre(image)
            if settings.delight:
                centred = self._require_delight()(centred, progress=share)
            share(1.0, "reference")
            references.append(np.asarray(centred.resize((settings.view_size, settings.view_size))))
        return references

    def _require_delight(self) -> Relighter:
        if self._delight is None:
            raise InvalidConfigError(
                "The delight network is not loaded.", hint="Set delight to false."
            )
        return self._delight


def check_settings(settings: PaintSettings, pictures: int) -> None:
    """Refuse sizes that cannot be painted.

    Raises:
        InvalidConfigError: names the range.
    """
    if not 16 <= settings.texture_size <= max(_TEXTURE_SIZES):
        raise InvalidConfigError(
            f"texture_size is {settings.texture_size}; expected 16..{max(_TEXTURE_SIZES)}."
        )
    if settings.view_size % 64 or not 64 <= settings.view_size <= 1024:
        raise InvalidConfigError(
            f"view_size is {settings.view_size}; a multiple of 64 from 64 to 1024 was expected."
        )
    if pictures < 1:
        raise InvalidConfigError("There is no picture to paint after.")


def check_paint_memory(settings: PaintSettings, device: torch.device) -> None:
    """Refuse a texture that does not fit into memory, before anything is allocated.

    Raises:
        InsufficientVRAMError: it does not fit on the GPU.
        InvalidConfigError: it does not fit into main memory; both name what would fit.
    """
    if device.type == "cuda":
        free = torch.cuda.mem_get_info(device)[0]
    else:
        free = psutil.virtual_memory().available
    if (need := paint_bytes(settings)) <= free:
        return
    smaller = (replace(settings, texture_size=size) for size in _TEXTURE_SIZES)
    fits = next((s.texture_size for s in smaller if paint_bytes(s) <= free), None)
    error = InsufficientVRAMError if device.type == "cuda" else InvalidConfigError
    raise error(
        f"A texture of {settings.texture_size} needs {need / 1e9:.1f} GB to be painted; "
        f"{free / 1e9:.1f} GB are free.",
        hint="Free some memory." if fits is None else f"texture_size {fits} would fit.",
        details={"option": "texture_size", "fits": fits},
    )


def paint_bytes(settings: PaintSettings) -> int:
    """Return about how many bytes rendering and baking take at most, without the networks."""
    pixels, texels = settings.pixels**2, settings.texture_size**2
    return _BYTES_AT_LEAST + _BYTES_PER_PIXEL * pixels + _BYTES_PER_TEXEL * texels


def _control_maps(maps: Sequence[torch.Tensor], size: int) -> Pixels:
    return np.stack([resize(as_uint8(values), size) for values in maps])


def _bake(
    mesh: MeshData,
    flat: UnwrappedMesh,
    views: Pixels,
    settings: PaintSettings,
    rendered: tuple[RenderMesh, Sequence[RenderedView]],
    progress: ProgressCallback,
) -> PaintedMesh:
    """Project the views, blend them, and fill what none of them has seen."""
    loaded, seen = rendered

    def projected() -> Iterator[ProjectedView]:
        for number, (picture, view) in enumerate(zip(views, seen, strict=True)):
            progress(0.1 * number, f"bake view {number + 1}/{len(views)}")
            pixels = torch.from_numpy(resize(picture, settings.pixels) / np.float32(255))
            image = pixels.to(loaded.positions.device)
            yield back_project(loaded, view, image, settings.texture_size)

    texture, mask = blend(projected(), [camera.weight for camera in CAMERAS])
    progress(0.6, "bake: fill")
    faces = TexturedFaces(flat.vertices, flat.faces, flat.uvs, flat.faces)
    painted = mask.cpu().numpy()
    texels, grown = diffuse_over_mesh(texture.cpu().numpy(), painted, faces)
    progress(0.7, "bake: fill")
    textured = MeshData(
        flat.vertices,
        flat.faces,
        uv_coords=flat.uvs,
        texture=fill_texels(texels, grown),
        materials=dict(_MATERIALS),
        extras=mesh.extras,
    )
    progress(1.0, "baked")
    return PaintedMesh(textured, views, painted)
