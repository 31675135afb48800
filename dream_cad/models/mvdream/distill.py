"""The long road from a prompt to a mesh: a radiance field distilled from MVDream's views."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from dream_cad.mesh.data import MeshData
from dream_cad.models.base import ProgressCallback
from dream_cad.models.mvdream.network import MVDreamNetwork
from dream_cad.models.mvdream.options import MVDreamOptions
from dream_cad.models.mvdream.pipeline import MVDreamPipeline, Views, finish
from dream_cad.models.mvdream.sds_cameras import Cameras, look_at, scheduled
from dream_cad.models.mvdream.sds_guidance import SDSLoss, distillation_loss, encode_views
from dream_cad.models.mvdream.sds_mesh import field_colors, field_mesh
from dream_cad.models.mvdream.sds_shading import ShadingConfig
from dream_cad.models.mvdream.sds_training import (
    FieldTrainer,
    RenderedViews,
    TrainingConfig,
    train_field,
)
from dream_cad.models.profile import StageClock, part_of

MIN_STEP = (0.0, 0.98, 0.02, 8_000.0)
MAX_STEP = (0.0, 0.98, 0.5, 8_000.0)
THRESHOLD = 25.0
_RESOLUTION = 256
_PREVIEW_DISTANCE = 3.0
_PREVIEW_FOVY = 40.0
_PREVIEW_ELEVATION = 15.0

# rows are the glTF axes in the field's frame: (x, y, z) -> (y, z, x)
_TO_GLTF = (1, 2, 0)
_FROM_GLTF = (2, 0, 1)

OnPreview = Callable[[int, NDArray[np.uint8]], None]
"""Called with (step, views (4, S, S, 3)) after each checkpoint."""


class MVDreamGuidance:
    """The loss that pulls rendered views towards what MVDream would draw for a prompt.

    Args:
        network: the frozen networks.
        cond: (77, C) embedding of the prompt.
        uncond: (77, C) of the negative prompt.
        loss: of the distillation.
    """

    def __init__(
        self, network: MVDreamNetwork, cond: Tensor, uncond: Tensor, loss: SDSLoss
    ) -> None:
        self._network = network
        self._texts = cond, uncond
        self._loss = loss

    def __call__(self, views: RenderedViews, generator: torch.Generator) -> Tensor:
        """Return the loss of views of groups of four; see ``distillation_loss``."""
        config, count = self._network.config, len(views.color)
        shape = (count, config.unet.in_channels, config.unet.image_size, config.unet.image_size)
        posterior, noise = (
            torch.randn(shape, generator=generator).to(views.color.device) for _ in range(2)
        )
        image_size = config.unet.image_size * config.vae.downsampling
        latents = encode_views(self._network, views.color, image_size, posterior)
        text = torch.cat([row[None].expand(count, -1, -1) for row in self._texts])
        low, high = (int(1000 * scheduled(s, views.step)) for s in (MIN_STEP, MAX_STEP))
        timestep = int(torch.randint(low, high + 1, (1,), generator=generator))
        return distillation_loss(
            self._network.unet, latents, noise, timestep, text, views.cameras.c2w, self._loss
        )


@dataclass(frozen=True)
class DistilledMesh:
    """A finished mesh, and four views of the field that it is the surface of."""

    mesh: MeshData
    views: Views
    steps: int


def run_sds(
    pipeline: MVDreamPipeline,
    prompt: str,
    options: MVDreamOptions,
    seed: int,
    clock: StageClock,
    progress: ProgressCallback,
    *,
    training: TrainingConfig | None = None,
    on_preview: OnPreview | None = None,
) -> DistilledMesh:
    """Optimise a field against MVDream and take its surface.

    Args:
        pipeline: the networks.
        prompt: what to make.
        options: steps, checkpoint, guidance, threshold, resolution.
        seed: of everything random.
        clock: for the times of the stages.
        progress: called with (fraction, stage); what it raises ends the work, which a later call
            with the same ``sds_checkpoint`` takes up.
        training: other sizes of field and views than the published ones.
        on_preview: called after each checkpoint.

    Raises:
        GenerationError: the guidance or loss became NaN, or there is no surface.
        CheckpointError, InvalidConfigError, StorageError: the checkpoint cannot be used.
    """
    shading = ShadingConfig() if options.sds_shading else None
    config = training or TrainingConfig(steps=options.sds_steps, seed=seed, shading=shading)
    guidance = pipeline.guidance(prompt, options)
    loss = MVDreamGuidance(
        pipeline.network, guidance.cond, guidance.uncond, SDSLoss(guidance.scale)
    )
    trainer = FieldTrainer(config, pipeline.network.device)

    def show(now: FieldTrainer) -> None:
        if on_preview is not None:
            on_preview(now.step, preview(now))

    path = Path(options.sds_checkpoint).expanduser() if options.sds_checkpoint else None
    with clock.stage("distill"):
        train_field(
            trainer,
            loss,
            checkpoint=path,
            every=options.sds_checkpoint_every,
            progress=part_of(progress, 0.0, 0.95),
            on_checkpoint=show,
        )
    with clock.stage("mesh"):
        progress(0.95, "surface")
        mesh = mesh_of_field(trainer, options, part_of(progress, 0.95, 1.0))
    return DistilledMesh(mesh, preview(trainer), trainer.step)


def mesh_of_field(
    trainer: FieldTrainer, options: MVDreamOptions, progress: ProgressCallback
) -> MeshData:
    """Turn the optimised field into the finished mesh in the glTF frame."""
    field = trainer.field
    raw = field_mesh(
        field,
        options.resolution or _RESOLUTION,
        options.density_threshold or THRESHOLD,
        options.min_component,
    )
    vertices = np.ascontiguousarray(raw.vertices[:, _TO_GLTF])

    def color_at(points: NDArray[np.float32]) -> NDArray[np.float32]:
        return field_colors(field, points[:, _FROM_GLTF])

    return finish(MeshData(vertices, raw.faces), color_at, options, progress)


@torch.no_grad()
def preview(trainer: FieldTrainer) -> NDArray[np.uint8]:
    """Render the field from right, front, left and back: (4, S, S, 3), as the views are laid."""
    azimuth = torch.tensor([-90.0, 0.0, 90.0, 180.0])
    elevation = torch.full((4,), _PREVIEW_ELEVATION)
    distance, fovy = torch.full((4,), _PREVIEW_DISTANCE), torch.full((4,), _PREVIEW_FOVY)
    cameras = Cameras(look_at(elevation, azimuth, distance), elevation, azimuth, fovy, distance)
    state = trainer.generator.get_state()  # a look must not change the run
    seen = trainer.render(cameras)
    trainer.generator.set_state(state)
    pixels: NDArray[np.uint8] = np.rint(seen.color.clamp(0, 1).cpu().numpy() * 255).astype(np.uint8)
    return pixels
