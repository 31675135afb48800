"""MVDream from a prompt to a mesh: views, Gaussians, surface, colours."""

from __future__ import annotations

import secrets
from dataclasses import dataclass, replace

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor

from dream_cad.exceptions import GenerationError, InvalidConfigError
from dream_cad.images.matting import matte
from dream_cad.mesh.cleanup import normalize_to_unit_cube, remove_degenerate_faces, weld_vertices
from dream_cad.mesh.data import MeshData
from dream_cad.mesh.simplify import simplify
from dream_cad.models.base import ProgressCallback, ignore_progress
from dream_cad.models.mvdream.cameras import view_cameras
from dream_cad.models.mvdream.lgm import LGM
from dream_cad.models.mvdream.lgm_input import lgm_input, on_white, recenter
from dream_cad.models.mvdream.network import MVDreamNetwork
from dream_cad.models.mvdream.options import MVDreamOptions
from dream_cad.models.mvdream.sampler import (
    Guidance,
    NoisePredictor,
    create_scheduler,
    sample_latents,
)
from dream_cad.models.profile import StageClock, part_of
from dream_cad.nn.clip_tokenizer import ClipTokenizer
from dream_cad.splats.cloud import GaussianCloud
from dream_cad.splats.meshing import MeshingOptions, SplatColors, mesh_gaussians
from dream_cad.splats.texture import ColorAt, texture_from_colors

NUM_VIEWS = 4
Views = NDArray[np.uint8]
"""(4, H, W, 3) RGB: the object's right side, front, left side and back."""

# Unwrapping takes seconds for 10,000 faces; the texture carries the detail anyway.
MAX_TEXTURED_FACES = 20_000
_PUBLISHED_GRID = 256
_PUBLISHED_CLOSING = 2


@dataclass(frozen=True)
class Gaussians:
    """What the LGM road makes before there is a mesh.

    Attributes:
        cloud: glTF frame, inside [-1, 1]^3.
        matting: method and model by view; None where views are taken as they are.
    """

    cloud: GaussianCloud
    matting: list[dict[str, str | None] | None]


class MVDreamPipeline:
    """The networks and what is done with them on their device.

    Args:
        network: text encoder, UNet and autoencoder.
        tokenizer: of the text encoder.
        lgm: views to Gaussians; None where its weights are not there.
    """

    def __init__(
        self, network: MVDreamNetwork, tokenizer: ClipTokenizer, lgm: LGM | None = None
    ) -> None:
        self.network = network
        self.tokenizer = tokenizer
        self.lgm = lgm
        self._embedded: dict[str, Tensor] = {}

    @torch.no_grad()
    def embed(self, text: str, what: str = "prompt") -> Tensor:
        """Return the embedding (77, C) of a text; the last few are remembered.

        Raises:
            InvalidConfigError: the text encoder would not read all of it.
        """
        if text not in self._embedded:
            self.tokenizer.check_fits(text, what)
            ids = self.tokenizer([text]).to(self.network.device)
            while len(self._embedded) >= 16:
                self._embedded.pop(next(iter(self._embedded)))
            self._embedded[text] = self.network.text_encoder(ids)[0]
        return self._embedded[text]

    def guidance(self, prompt: str, options: MVDreamOptions) -> Guidance:
        """Return text and cameras of the views.

        Raises:
            InvalidConfigError: prompt or negative prompt is too long.
        """
        return Guidance(
            self.embed(prompt + options.suffix),
            self.embed(options.negative, "negative prompt"),
            view_cameras(NUM_VIEWS, options.elevation_deg),
            options.guidance,
        )

    @torch.no_grad()
    def sample(
        self,
        prompt: str,
        options: MVDreamOptions,
        seed: int,
        progress: ProgressCallback = ignore_progress,
        samples: int = 1,
    ) -> NDArray[np.uint8]:
        """Draw the views of ``samples`` objects; the first is the same whatever their number.

        Returns:
            (samples, 4, H, W, 3) uint8.

        Raises:
            GenerationError: the latents became NaN or infinite; names the step.
            InvalidConfigError: a prompt is too long.
        """
        sizes, device = self.network.config.unet, self.network.device
        guidance = self.guidance(prompt, options)
        shape = (samples * NUM_VIEWS, sizes.in_channels, sizes.image_size, sizes.image_size)
        # on the CPU, so that a seed means the same on every device
        noise = torch.randn(shape, generator=torch.Generator().manual_seed(seed)).to(device)
        predict = NoisePredictor(self.network.unet, guidance, samples)
        scheduler = create_scheduler(options.scheduler)
        latents = sample_latents(predict, noise, scheduler, options.num_inference_steps, progress)
        pictures = self.network.decode(latents).cpu().numpy()
        pixels: NDArray[np.uint8] = np.rint(pictures * 255).astype(np.uint8)
        return pixels.reshape(samples, NUM_VIEWS, *pixels.shape[1:])

    @torch.no_grad()
    def reconstruct(self, views: Views, options: MVDreamOptions) -> Gaussians:
        """Turn views into Gaussians.

        Raises:
            InvalidConfigError: LGM's weights are missing.
            GenerationError: a view shows no object, or the Gaussians are not finite.
        """
        if self.lgm is None:
            raise InvalidConfigError(
                "The folder holds no weights of LGM, which the lgm road needs.",
                hint="Put model_fp16_fixrot.safetensors of ashawkey/LGM into its folder lgm/, or "
                "use reconstruction='sds'.",
            )
        prepared, matting = prepare_views(views, options)
        pictures = torch.from_numpy(prepared)
        batch = lgm_input(pictures, self.lgm.config, options.elevation_deg)
        rows = self.lgm(batch.to(self.network.device))[0].cpu().numpy()
        return Gaussians(GaussianCloud.from_packed(rows), matting)


def prepare_views(
    views: Views, options: MVDreamOptions
) -> tuple[NDArray[np.float32], list[dict[str, str | None] | None]]:
    """Cut the object out of each view, centre it and put it on white, as LGM was trained.

    Returns:
        (4, S, S, 3) float32 in [0, 1], and how each view was cut out.

    Raises:
        GenerationError: a view shows no object, or the matting asked for cannot be had.
    """
    if not options.remove_background:
        return (views / 255).astype(np.float32), [None] * len(views)
    prepared: list[NDArray[np.float32]] = []
    matting: list[dict[str, str | None] | None] = []
    for number, view in enumerate(views, 1):
        try:
            cut = matte(Image.fromarray(view), options.matting)
            rgba = np.asarray(cut.image)
            centred = recenter(rgba.astype(np.float32) / 255, rgba[..., 3])
        except InvalidConfigError as error:
            raise GenerationError(
                f"View {number} of {len(views)} cannot be cut out: {error.message}",
                hint="Draw the views alone (generate_views) and choose another seed or prompt; "
                "remove_background=false takes them as they are.",
            ) from error
        prepared.append(on_white(centred))
        matting.append({"method": cut.method, "model": cut.model})
    return np.stack(prepared).astype(np.float32), matting


def meshing_options(options: MVDreamOptions) -> MeshingOptions:
    """Return how Gaussians become a mesh; gaps are closed by as much whatever the resolution."""
    resolution = options.resolution or _PUBLISHED_GRID
    closing = options.closing
    if closing is None:
        closing = max(1, round(_PUBLISHED_CLOSING * resolution / _PUBLISHED_GRID))
    return MeshingOptions(
        resolution=resolution,
        threshold=options.density_threshold or MeshingOptions.threshold,
        closing=closing,
        min_component=options.min_component,
    )


def mesh_of_cloud(
    cloud: GaussianCloud, options: MVDreamOptions, progress: ProgressCallback
) -> MeshData:
    """Turn Gaussians in the glTF frame into the finished mesh.

    Raises:
        GenerationError: nothing reaches the threshold.
    """
    kept = cloud.pruned()
    if len(kept) == 0:
        raise GenerationError(
            "All Gaussians are transparent: there is nothing to make a mesh of.",
            hint="Look at the views (views.png) and try another seed or prompt.",
        )
    settings = meshing_options(options)
    mesh = mesh_gaussians(kept, settings, part_of(progress, 0.0, 0.6))
    return finish(mesh, SplatColors(kept, settings.lattice), options, progress)


def finish(
    mesh: MeshData, color_at: ColorAt, options: MVDreamOptions, progress: ProgressCallback
) -> MeshData:
    """Clean, simplify, colour and scale a mesh in the glTF frame.

    Args:
        mesh: units and position of ``color_at``.
        color_at: colours (P, 3) in [0, 1] of points (P, 3).
        options: ``target_faces``, ``texture``, ``texture_size``.
        progress: called with (fraction, stage).
    """
    mesh = remove_degenerate_faces(weld_vertices(mesh))
    limits = [options.target_faces, MAX_TEXTURED_FACES if options.texture else None]
    target = min((limit for limit in limits if limit is not None), default=len(mesh.faces))
    if target < len(mesh.faces):
        progress(0.65, "simplify")
        mesh = simplify(mesh, target)
    progress(0.7, "colors")
    if options.texture:
        mesh = texture_from_colors(mesh, color_at, options.texture_size)
    else:
        colors = np.rint(np.clip(color_at(mesh.vertices), 0, 1) * 255).astype(np.uint8)
        mesh = replace(mesh, vertex_colors=colors)
    return normalize_to_unit_cube(mesh)


def draw_seed(options: MVDreamOptions) -> int:
    """Return the seed asked for, or a new one."""
    return secrets.randbelow(2**32) if options.seed is None else options.seed


@dataclass(frozen=True)
class MadeMesh:
    """A finished mesh and what came about on the way."""

    mesh: MeshData
    views: Views
    cloud: GaussianCloud
    matting: list[dict[str, str | None] | None]


def run_lgm(
    pipeline: MVDreamPipeline,
    prompt: str,
    options: MVDreamOptions,
    seed: int,
    clock: StageClock,
    progress: ProgressCallback,
) -> MadeMesh:
    """Views, Gaussians and mesh of one prompt; see the stages for errors."""
    with clock.stage("views"):
        views = pipeline.sample(prompt, options, seed, part_of(progress, 0.0, 0.6))[0]
    progress(0.62, "gaussians")
    with clock.stage("gaussians"):
        made = pipeline.reconstruct(views, options)
    with clock.stage("mesh"):
        mesh = mesh_of_cloud(made.cloud, options, part_of(progress, 0.7, 1.0))
    return MadeMesh(mesh, views, made.cloud, made.matting)
