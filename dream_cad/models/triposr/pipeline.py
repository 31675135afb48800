"""TripoSR from picture to mesh, in pieces that a server can run in different places.

``prepare`` (CPU) -> ``TripoSRPipeline.encode`` (device) -> ``TripoSRPipeline.extract`` (device)
-> ``finish`` (CPU). What passes between them pickles. ``run`` is all of it in one process.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor

from dream_cad.exceptions import GenerationError
from dream_cad.images.crop import composite_on_grey, prepare_foreground
from dream_cad.images.matting import matte
from dream_cad.mesh.data import MeshData
from dream_cad.models.base import ProgressCallback, ignore_progress
from dream_cad.models.profile import StageClock, part_of
from dream_cad.models.triposr.field import TriplaneField
from dream_cad.models.triposr.finish import RawShape, finish
from dream_cad.models.triposr.frame import to_gltf
from dream_cad.models.triposr.network import TripoSRNetwork
from dream_cad.models.triposr.options import TripoSROptions
from dream_cad.models.triposr.preprocess import image_to_tensor
from dream_cad.models.triposr.render import orbit_rays, render_rays
from dream_cad.settings import get_settings
from dream_cad.surface.extract import extract_surface

# Small chunks stay in a CPU's cache; a GPU wants many points at once (spec, section 17).
CPU_CHUNK = 8_192
CUDA_CHUNK = 262_144


@dataclass(frozen=True)
class PreparedImage:
    """What the network sees, and for the receipt how the background was removed.

    Attributes:
        image: RGB, before it is resized.
        matting: method and model of the matting, or None if the picture was taken as it is.
    """

    image: Image.Image
    matting: dict[str, str | None] | None = None


def prepare(image: Image.Image, options: TripoSROptions) -> PreparedImage:
    """Cut the object out and put it on grey, as the options say.

    Args:
        image: RGB or RGBA, from ``load_image``.
        options: ``remove_background``, ``matting``, ``foreground_ratio``.

    Raises:
        InvalidConfigError: no object is found.
        CheckpointError: a matting network was asked for and is not on this machine.
    """
    if options.remove_background:
        matted = matte(image, options.matting)
        square = prepare_foreground(matted.image, options.foreground_ratio)
        return PreparedImage(square, {"method": matted.method, "model": matted.model})
    return PreparedImage(composite_on_grey(image) if image.mode == "RGBA" else image)


class TripoSRPipeline:
    """The network and what is done with it on its device.

    Args:
        network: loaded, in evaluation mode.
    """

    def __init__(self, network: TripoSRNetwork) -> None:
        self.network = network
        self.config = network.config
        self._is_warm = False

    @property
    def device(self) -> torch.device:
        """Where the network lives."""
        return self.network.tokenizer.embeddings.device

    def warm_up(self) -> None:
        """Compute what does not depend on the input; ``encode`` does it when needed."""
        if not self._is_warm:
            self.network.precompute_prefix()
            self._is_warm = True

    @torch.no_grad()
    def encode(self, images: list[Image.Image]) -> Tensor:
        """Run the network on prepared pictures, all in one batch.

        Returns:
            (B, 3, C, H, W) float32 scene codes on the device.

        Raises:
            GenerationError: the network gave NaN or infinity.
        """
        self.warm_up()
        size = self.config.cond_image_size
        batch = torch.cat([image_to_tensor(image, size) for image in images])
        codes = self.network.scene_codes(batch.to(self.device))
        if not torch.isfinite(codes).all():
            raise GenerationError(
                "The network gave numbers that are not finite.",
                hint="Where half precision overflowed, precision 'bf16' or 'fp32' helps.",
            )
        return codes

    def field(self, scene_code: Tensor) -> TriplaneField:
        """Return the field of one scene code (3, C, H, W)."""
        return TriplaneField(
            scene_code,
            self.network.decoder,
            radius=self.config.radius,
            density_bias=self.config.density_bias,
        )

    def render(
        self, scene_code: Tensor, *, views: int = 4, size: int = 128, elevation_deg: float = 0.0
    ) -> NDArray[np.uint8]:
        """Render the field itself, which shows what a threshold cuts off.

        Args:
            scene_code: (3, C, H, W), from ``encode``.
            views: pictures on a circle, the first from the front.
            size: side of a picture in pixels.
            elevation_deg: height of the camera above the horizon.

        Returns:
            (views, size, size, 3) RGB on white.
        """
        rays = orbit_rays(views, elevation_deg=elevation_deg, height=size, width=size)
        origins, directions = (part.to(self.device) for part in rays)
        colors = render_rays(
            self.field(scene_code).query,
            origins,
            directions,
            radius=self.config.radius,
            density_bias=self.config.density_bias,
            num_samples=self.config.num_samples_per_ray,
        )
        return quantize(colors.cpu().numpy())

    def chunk_size(self, options: TripoSROptions) -> int:
        """Points a field query: asked for, or by device, times DREAM_CAD_BATCH_SIZE."""
        default = CUDA_CHUNK if self.device.type == "cuda" else CPU_CHUNK
        return options.chunk_size or default * get_settings().batch_size

    def extract(
        self,
        scene_code: Tensor,
        options: TripoSROptions,
        progress: ProgressCallback = ignore_progress,
    ) -> RawShape:
        """Turn one scene code (3, C, H, W) into a surface with colours.

        Args:
            scene_code: from ``encode``.
            options: ``resolution``, ``threshold``, ``chunk_size``, ``texture``.
            progress: called with (fraction, stage) between chunks.

        Raises:
            GenerationError: the density nowhere reaches the threshold.
        """
        field = self.field(scene_code)
        chunk = self.chunk_size(options)
        resolution = options.resolution or self.config.default_resolution
        threshold = options.threshold or self.config.threshold
        surface = extract_surface(
            field,
            resolution=resolution,
            # a coarse sample for each texel of the planes, which hold nothing finer
            coarse_stride=max(2, round(resolution / scene_code.shape[-1])),
            threshold=threshold,
            chunk_size=chunk,
            progress=part_of(progress, 0.0, 0.9),
        )
        if len(surface.faces) == 0:
            raise GenerationError(
                f"There is no surface at threshold {threshold:g}.",
                hint="Lower the threshold, or give a picture that shows one object clearly.",
            )
        progress(0.9, "colors")
        mesh = MeshData(to_gltf(surface.vertices), surface.faces)
        if options.texture:
            return RawShape(mesh, field.to("cpu"))
        colors = vertex_colors(field, surface.vertices, chunk)
        return RawShape(MeshData(mesh.vertices, mesh.faces, vertex_colors=colors))


def vertex_colors(
    field: TriplaneField, vertices: NDArray[np.float32], chunk_size: int
) -> NDArray[np.uint8]:
    """Query the colours (V, 3) uint8 of vertices (V, 3) in the model frame."""
    points = torch.from_numpy(vertices).to(field.planes.device)
    colors = [field.color(chunk).cpu() for chunk in torch.split(points, chunk_size)]
    return quantize(torch.cat(colors).numpy())


def quantize(colors: NDArray[np.float32]) -> NDArray[np.uint8]:
    """Round colours in [0, 1] to uint8, halves to even as the published code does."""
    rounded: NDArray[np.uint8] = np.rint(colors * np.float32(255)).astype(np.uint8)
    return rounded


def run(
    pipeline: TripoSRPipeline,
    image: Image.Image,
    options: TripoSROptions,
    clock: StageClock,
    progress: ProgressCallback,
) -> tuple[MeshData, PreparedImage]:
    """Run every stage on one picture; see the stages for arguments and errors."""
    progress(0.0, "preprocess")
    with clock.stage("preprocess"):
        prepared = prepare(image, options)
    progress(0.1, "encode")
    with clock.stage("encode"):
        code = pipeline.encode([prepared.image])[0]
        _wait_for(code)
    with clock.stage("surface"):
        raw = pipeline.extract(code, options, part_of(progress, 0.4, 0.8))
    with clock.stage("finish"):
        return finish(raw, options, part_of(progress, 0.8, 1.0)), prepared


def _wait_for(tensor: Tensor) -> None:
    """Let queued GPU work end, so that its time counts for the right stage."""
    if tensor.is_cuda:
        torch.cuda.synchronize(tensor.device)
