"""Stable Fast 3D from picture to mesh, in pieces that a server can run in different places.

``prepare`` (CPU) -> ``StableFast3DPipeline.encode`` (device) -> ``.extract`` (device) ->
``finish.finish`` (CPU). ``run`` is all of it in one process.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from PIL import Image
from torch import Tensor

from dream_cad.exceptions import GenerationError, InvalidConfigError
from dream_cad.images.matting import matte
from dream_cad.mesh.data import MeshData
from dream_cad.models.base import ProgressCallback
from dream_cad.models.profile import StageClock, part_of
from dream_cad.models.stable_fast_3d.field import SceneField
from dream_cad.models.stable_fast_3d.finish import RawShape, finish
from dream_cad.models.stable_fast_3d.network import StableFast3DNetwork
from dream_cad.models.stable_fast_3d.options import StableFast3DOptions
from dream_cad.models.stable_fast_3d.preprocess import (
    ConditionImage,
    condition_image,
    crop_foreground,
    to_batch,
)
from dream_cad.models.stable_fast_3d.surface import extract


@dataclass(frozen=True)
class Codes:
    """What the networks make of one picture.

    Attributes:
        planes: (3, C, H, W) float32 on the device.
        roughness: 0 is polished, 1 is matt.
        metallic: 0 or 1, or between.
        sg_amplitudes: of the light, where asked for.
    """

    planes: Tensor
    roughness: float
    metallic: float
    sg_amplitudes: list[float] | None = None


@dataclass(frozen=True)
class PreparedImage:
    """RGBA square, and for the receipt how the background was removed."""

    image: Image.Image
    matting: dict[str, str | None] | None = None


def prepare(image: Image.Image, options: StableFast3DOptions) -> PreparedImage:
    """Cut the object out and centre it, as the options say.

    Raises:
        InvalidConfigError: no object is found.
        CheckpointError: a matting network was asked for and is not on this machine.
    """
    if not options.remove_background:
        return PreparedImage(image.convert("RGBA"))
    matted = matte(image, options.matting)
    square = crop_foreground(matted.image, options.foreground_ratio)
    return PreparedImage(square, {"method": matted.method, "model": matted.model})


class StableFast3DPipeline:
    """The networks and what is done with them on their device.

    Args:
        network: loaded, in evaluation mode.
    """

    def __init__(self, network: StableFast3DNetwork) -> None:
        self.network = network
        self.config = network.config

    @property
    def device(self) -> torch.device:
        """Where the network lives."""
        return self.network.tokenizer.embeddings.device

    @torch.no_grad()
    def encode(self, images: list[Image.Image], *, illumination: bool = False) -> list[Codes]:
        """Run the networks on RGBA squares, all in one batch.

        Raises:
            GenerationError: the network gave NaN or infinity.
            InvalidConfigError: the checkpoint cannot estimate illumination.
        """
        size, background = self.config.cond_image_size, self.config.background_color
        pictures = [condition_image(image, size, background) for image in images]
        return self.encode_conditions(pictures, illumination=illumination)

    @torch.no_grad()
    def encode_conditions(
        self, pictures: list[ConditionImage], *, illumination: bool = False
    ) -> list[Codes]:
        """Run the networks on pictures that are already on the background colour.

        Raises:
            GenerationError: the network gave NaN or infinity.
            InvalidConfigError: the checkpoint cannot estimate illumination.
        """
        size = self.config.cond_image_size
        rgb = to_batch([picture.rgb for picture in pictures], size).to(self.device)
        mask = to_batch([picture.mask for picture in pictures], size).to(self.device)
        direct = self.network.direct_codes(rgb)
        light = self._illumination(direct) if illumination else None
        planes = self.network.scene_codes(direct)
        if not torch.isfinite(planes).all():
            raise GenerationError(
                "The network gave numbers that are not finite.",
                hint="Where half precision overflowed, precision 'bf16' or 'fp32' helps.",
            )
        material = self.network.image_estimator(rgb * mask)
        return [
            Codes(
                planes[index],
                float(material["roughness"][index]),
                float(material["metallic"][index]),
                None if light is None else light[index].flatten().tolist(),
            )
            for index in range(len(pictures))
        ]

    def _illumination(self, direct: Tensor) -> Tensor:
        estimator = self.network.global_estimator
        if estimator is None:
            raise InvalidConfigError(
                "This checkpoint cannot estimate illumination.",
                hint="Leave estimate_illumination out, or use the published checkpoint.",
                details={"option": "estimate_illumination", "allowed": [False]},
            )
        light: Tensor = estimator(direct)
        return light

    def field(self, planes: Tensor) -> SceneField:
        """Return the field of one scene code (3, C, H, W)."""
        return SceneField(planes, self.network.decoder, radius=self.config.radius)

    def extract(
        self, codes: Codes, options: StableFast3DOptions, progress: ProgressCallback
    ) -> RawShape:
        """Turn the codes of one picture into a surface; faces look outwards.

        Raises:
            GenerationError: the density nowhere reaches the threshold.
        """
        field = self.field(codes.planes)
        used = options.resolve(self.config)
        surface = extract(
            field,
            resolution=used.resolution or self.config.isosurface_resolution,
            threshold=used.threshold or self.config.isosurface_threshold,
            progress=progress,
        )
        return RawShape(
            surface.vertices,
            surface.faces[:, ::-1].copy(),
            field.to("cpu"),
            roughness=codes.roughness,
            metallic=codes.metallic,
        )


@dataclass(frozen=True)
class GeneratedAsset:
    """A finished mesh with the receipt's facts."""

    mesh: MeshData
    matting: dict[str, str | None] | None
    sg_amplitudes: list[float] | None


def run(
    pipeline: StableFast3DPipeline,
    image: Image.Image,
    options: StableFast3DOptions,
    clock: StageClock,
    progress: ProgressCallback,
) -> GeneratedAsset:
    """Run every stage; see the stages for arguments and errors."""
    progress(0.0, "prepare")
    with clock.stage("prepare"):
        prepared = prepare(image, options)
    progress(0.05, "encode")
    with clock.stage("encode"):
        (codes,) = pipeline.encode([prepared.image], illumination=options.estimate_illumination)
    with clock.stage("extract"):
        raw = pipeline.extract(codes, options, part_of(progress, 0.5, 0.7))
    with clock.stage("finish"):
        mesh = finish(raw, options, part_of(progress, 0.7, 1.0))
    return GeneratedAsset(mesh, prepared.matting, codes.sg_amplitudes)
