"""Hunyuan3D-2mini from picture to mesh: prepare, encode, denoise, decode, march, clean."""

from __future__ import annotations

import secrets
from collections.abc import Mapping
from dataclasses import dataclass

import psutil
import torch
from PIL import Image
from torch import Tensor

from dream_cad.exceptions import GenerationError, InsufficientVRAMError, InvalidConfigError
from dream_cad.images.matting import matte
from dream_cad.mesh.cleanup import (
    normalize_to_unit_cube,
    remove_degenerate_faces,
    remove_floaters,
    weld_vertices,
)
from dream_cad.mesh.data import MeshData
from dream_cad.mesh.edges import directed_border
from dream_cad.mesh.holes import fill_small_holes
from dream_cad.mesh.simplify import simplify
from dream_cad.models.base import ProgressCallback
from dream_cad.models.hunyuan3d_mini.field import ExactField, FlashField
from dream_cad.models.hunyuan3d_mini.network import Hunyuan3DNetwork
from dream_cad.models.hunyuan3d_mini.options import Hunyuan3DOptions
from dream_cad.models.hunyuan3d_mini.preprocess import prepare_image, prepare_views
from dream_cad.models.hunyuan3d_mini.schedule import GuidedVelocity, sample
from dream_cad.models.profile import StageClock, part_of
from dream_cad.surface.logit_grid import march_logits
from dream_cad.surface.marching import SurfaceMesh
from dream_cad.surface.volume import VolumeSampler, adaptive_volume, grid_points

BOUNDS = 1.01
CPU_CHUNK = 8_000
CUDA_CHUNK = 20_000

# The grid itself, its signs and masks: float32, float32 and a few bytes for each point.
# Dense: three coordinates, logits in parts and joined.
_BYTES_PER_POINT = {"adaptive": 16, "flash": 16, "dense": 24}
_LARGEST_RESOLUTION = 512

Pictures = Image.Image | Mapping[str, Image.Image]
"""One picture, or several by view: front, left, back, right."""


@dataclass(frozen=True)
class Condition:
    """What the transformer is guided by, and how the pictures were cut out.

    Attributes:
        tokens: (1, M, C) on the device.
        matting: method and model by view; None where the picture was taken as it is.
        pictures: as they were cut out, the first view first.
    """

    tokens: Tensor
    matting: dict[str, dict[str, str | None] | None]
    pictures: tuple[Image.Image, ...] = ()


class Hunyuan3DPipeline:
    """The networks and what is done with them on their device.

    Args:
        network: loaded, in evaluation mode.
    """

    def __init__(self, network: Hunyuan3DNetwork) -> None:
        self.network = network
        self.config = network.config

    @torch.no_grad()
    def encode(self, pictures: Pictures, options: Hunyuan3DOptions) -> Condition:
        """Prepare the pictures and encode them.

        Raises:
            InvalidConfigError: a picture shows no object, or a view is unknown.
        """
        matting: dict[str, dict[str, str | None] | None] = {}

        def cut(name: str, image: Image.Image) -> Image.Image:
            picture, matting[name] = cut_out(image, options)
            return picture

        size, border = self.config.image_size, self.config.border_ratio
        conditioner, device = self.network.conditioner, self.network.device
        if isinstance(pictures, Image.Image):
            image = cut("front", pictures)
            picture, _ = prepare_image(image, size=size, border_ratio=border)
            return Condition(conditioner(picture.to(device)), matting, (image,))
        images = {name: cut(name, image) for name, image in pictures.items()}
        views, _, numbers = prepare_views(images, size=size, border_ratio=border)
        tokens = conditioner.views(views.to(device), numbers)
        first = sorted(images, key=lambda name: name != "front")
        return Condition(tokens, matting, tuple(images[name] for name in first))

    @torch.no_grad()
    def denoise(
        self, condition: Tensor, options: Hunyuan3DOptions, seed: int, progress: ProgressCallback
    ) -> Tensor:
        """Sample latents (1, N, C) under the condition (1, M, C).

        Raises:
            GenerationError: they became NaN or infinite; names the step.
        """
        network, used = self.network, options.resolve(self.config)
        steps = used.num_inference_steps or self.config.num_inference_steps
        # on the CPU and in float32, so that a seed means the same everywhere
        latents = torch.randn(
            (1, used.num_latents or self.config.vae.num_latents, self.config.dit.in_channels),
            generator=torch.Generator().manual_seed(seed),
        ).to(network.device, network.dtype)
        velocity = GuidedVelocity(network.model, condition, options.guidance_scale)
        for step, state in enumerate(sample(velocity, latents, self.config.schedule, steps), 1):
            latents = state
            progress(step / steps, f"denoise {step}/{steps}")
        return latents

    @torch.no_grad()
    def volume(self, latents: Tensor, options: Hunyuan3DOptions) -> Tensor:
        """Decode latents (1, N, C) to a grid of logits; NaN where nothing was evaluated."""
        resolution = options.octree_resolution or self.config.octree_resolution
        device = self.network.device
        vae = self.network.vae
        memory = vae.geo_decoder.remember(vae.decode(latents / self.config.vae.scale_factor))
        chunk = CUDA_CHUNK if device.type == "cuda" else CPU_CHUNK
        field: VolumeSampler = ExactField(vae.geo_decoder, memory, chunk)
        if options.volume == "dense":
            return field.coarse(grid_points(resolution, BOUNDS, device))
        if options.volume == "flash":
            field = FlashField(vae.geo_decoder, memory, "mean", chunk)
        return adaptive_volume(
            field, resolution, bounds=BOUNDS, level=-options.mc_level, device=device
        )


def cut_out(
    image: Image.Image, options: Hunyuan3DOptions
) -> tuple[Image.Image, dict[str, str | None] | None]:
    """Cut the object out as the options say; returns the picture and how it was done.

    Raises:
        InvalidConfigError: the picture shows no object.
    """
    if not options.remove_background:
        return image, None
    matted = matte(image, options.matting)
    return matted.image, {"method": matted.method, "model": matted.model}


def check_grid_memory(resolution: int, volume: str, device: torch.device) -> None:
    """Refuse a volume that does not fit into memory, before anything is computed for it.

    Args:
        resolution: cells a side.
        volume: how it is evaluated: adaptive, flash or dense.
        device: where it will live.

    Raises:
        InsufficientVRAMError: it does not fit on the GPU.
        InvalidConfigError: it does not fit into main memory; both name what would fit.
    """
    if device.type == "cuda":
        free = torch.cuda.mem_get_info(device)[0]
    else:
        free = psutil.virtual_memory().available
    each = _BYTES_PER_POINT[volume]
    if (resolution + 1) ** 3 * each <= free:
        return
    fits = min(int((free / each) ** (1 / 3)) - 1, _LARGEST_RESOLUTION)
    need_gb = (resolution + 1) ** 3 * each / 1e9
    error = InsufficientVRAMError if device.type == "cuda" else InvalidConfigError
    raise error(
        f"A volume of octree_resolution {resolution} needs {need_gb:.1f} GB; "
        f"{free / 1e9:.1f} GB are free.",
        hint=f"octree_resolution {fits} would fit.",
        details={"option": "octree_resolution", "fits": fits},
    )


def extract(grid: Tensor, options: Hunyuan3DOptions) -> SurfaceMesh:
    """Extract the surface of a grid of logits, vertices in about [-1.01, 1.01], glTF frame.

    Raises:
        GenerationError: no logit crosses ``mc_level``, which says which level would; or none is a
            finite number.
    """
    mesh = march_logits(grid.cpu().numpy(), bounds=BOUNDS, level=options.mc_level)
    if len(mesh.faces) == 0:
        known = grid[torch.isfinite(grid)]
        if not known.numel():
            raise GenerationError(
                "No logit of the volume is a finite number.",
                hint="Where half precision overflowed, precision 'bf16' or 'fp32' helps.",
            )
        low, high = known.min().item(), known.max().item()
        raise GenerationError(
            f"There is no surface at mc_level {options.mc_level:g}: the logits are from "
            f"{low:.3g} to {high:.3g}.",
            hint=f"mc_level {0.5 * (low + high):.3g} would cross them; another seed may do better.",
        )
    return mesh


@dataclass(frozen=True)
class Finished:
    """A mesh and what its borders were.

    Attributes:
        mesh: in the centred unit cube.
        holes_filled: holes that were closed.
        is_closed: whether no edge is open any more.
    """

    mesh: MeshData
    holes_filled: int
    is_closed: bool


def finish(surface: SurfaceMesh, options: Hunyuan3DOptions) -> Finished:
    """Clean, simplify, close and scale a surface into the centred unit cube."""
    mesh = remove_degenerate_faces(weld_vertices(MeshData(surface.vertices, surface.faces)))
    mesh = remove_floaters(mesh, options.floater_ratio)
    if options.target_faces is not None:
        mesh = simplify(mesh, options.target_faces)
    mesh, holes = fill_small_holes(mesh, options.fill_holes)
    is_closed = len(directed_border(mesh.faces)) == 0
    return Finished(normalize_to_unit_cube(mesh), holes, is_closed)


@dataclass(frozen=True)
class GeneratedShape:
    """A finished mesh with the seed and the matting that made it, and the pictures cut out."""

    finished: Finished
    seed: int
    matting: dict[str, dict[str, str | None] | None]
    pictures: tuple[Image.Image, ...] = ()


def run(
    pipeline: Hunyuan3DPipeline,
    pictures: Pictures,
    options: Hunyuan3DOptions,
    clock: StageClock,
    progress: ProgressCallback,
) -> GeneratedShape:
    """Run every stage; see the stages for arguments and errors."""
    resolution = options.octree_resolution or pipeline.config.octree_resolution
    check_grid_memory(resolution, options.volume, pipeline.network.device)
    seed = options.seed if options.seed is not None else secrets.randbits(32)
    progress(0.0, "encode")
    with clock.stage("encode"):
        condition = pipeline.encode(pictures, options)
    with clock.stage("denoise"):
        latents = pipeline.denoise(condition.tokens, options, seed, part_of(progress, 0.1, 0.6))
    progress(0.6, "volume")
    with clock.stage("volume"):
        grid = pipeline.volume(latents, options)
    progress(0.85, "surface")
    with clock.stage("surface"):
        surface = extract(grid, options)
    progress(0.9, "finish")
    with clock.stage("finish"):
        mesh = finish(surface, options)
    return GeneratedShape(mesh, seed, condition.matting, condition.pictures)
