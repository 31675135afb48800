"""The optimisation of a radiance field: steps, checkpoints to take it up again, progress."""

from __future__ import annotations

import io
import os
import pickle
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from dream_cad.exceptions import CheckpointError, GenerationError, InvalidConfigError, StorageError
from dream_cad.models.base import ProgressCallback, ignore_progress
from dream_cad.models.mvdream.sds_cameras import (
    N_VIEW,
    CameraRanges,
    Cameras,
    camera_rays,
    draw_cameras,
    scheduled,
)
from dream_cad.models.mvdream.sds_field import Background, FieldConfig, RadianceField
from dream_cad.models.mvdream.sds_render import render_rays
from dream_cad.models.mvdream.sds_shading import Light, ShadingConfig, draw_light

_DAMAGED = (
    RuntimeError,
    OSError,
    ValueError,
    KeyError,
    EOFError,
    TypeError,
    pickle.UnpicklingError,
)


@dataclass(frozen=True)
class TrainingConfig:
    """How a field is optimised; the defaults are MVDream-threestudio's.

    Attributes:
        steps: optimisation steps.
        batch_sizes: views a step, before and after the milestone; a multiple of 4.
        sizes: pixels a side of the views, before and after the milestone.
        milestone: step at which the views grow.
        samples: samples of a ray.
        occupancy: cells a side of the grid that empty space is skipped by.
        occupancy_every: steps between two refreshes of it.
        background_chance: share of the steps with one random colour as background.
        seed: of cameras, backgrounds and the field's start.
        geometry: sizes of the field.
        cameras: where they are drawn from.
        shading: the published variant with light and normals; None is the one without.
    """

    steps: int = 10_000
    batch_sizes: tuple[int, int] = (8, 4)
    sizes: tuple[int, int] = (64, 256)
    milestone: int = 5_000
    samples: int = 512
    occupancy: int = 32
    occupancy_every: int = 16
    background_chance: float = 0.5
    seed: int = 0
    geometry: FieldConfig = field(default_factory=FieldConfig)
    cameras: CameraRanges = field(default_factory=CameraRanges)
    shading: ShadingConfig | None = None


@dataclass(frozen=True)
class RenderedViews:
    """One step's pictures of the field, differentiable.

    Attributes:
        color: (B, S, S, 3) in [0, 1], over the background.
        opacity: (B, S, S).
        background: (B, S, S, 3).
        cameras: where they were taken from.
        step: number of the step, from 0.
        orientation: penalty of normals that look away; 0 without shading.
    """

    color: Tensor
    opacity: Tensor
    background: Tensor
    cameras: Cameras
    step: int
    orientation: Tensor | float = 0.0


ViewLoss = Callable[[RenderedViews, torch.Generator], Tensor]
"""What to lower: the distance of rendered views from what they should show."""


class FieldTrainer:
    """A radiance field under optimisation, with everything that the next step depends on.

    Args:
        config: sizes and schedule.
        device: where the field lives.
    """

    def __init__(self, config: TrainingConfig, device: torch.device | str = "cpu") -> None:
        self.config = config
        self.device = torch.device(device)
        self.generator = torch.Generator().manual_seed(config.seed)
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(config.seed)
            self.field = RadianceField(config.geometry).to(self.device)
            self.background = Background().to(self.device)
        shape = (config.occupancy,) * 3
        self.occupancy = torch.zeros(shape, device=self.device)
        self.step = 0
        self.optimizer = torch.optim.AdamW(
            [
                {"params": self.field.encoding.parameters(), "lr": 0.01},
                {"params": self.field.density_network.parameters(), "lr": 0.001},
                {"params": self.field.feature_network.parameters(), "lr": 0.001},
                {"params": self.background.parameters(), "lr": 0.001},
            ],
            betas=(0.9, 0.99),
            eps=1e-15,
        )

    def run_step(self, loss_of: ViewLoss) -> float:
        """Draw cameras, render, and move the field down the loss; returns the loss.

        Raises:
            GenerationError: the loss is NaN or infinite; the field is left as it was.
        """
        if self.step % self.config.occupancy_every == 0:
            self._refresh_occupancy()
        views = self._render_to_learn(self._draw_cameras())
        loss = loss_of(views, self.generator)
        if self.config.shading is not None:
            weight = scheduled(self.config.shading.orientation, self.step)
            loss = loss + weight * views.orientation
        if not torch.isfinite(loss):
            raise GenerationError(
                f"The loss became NaN or infinite at step {self.step + 1}.",
                hint="Take up the last checkpoint with a smaller guidance_scale, or use 'fp32'.",
            )
        self.optimizer.zero_grad(set_to_none=True)
        loss.backward()  # type: ignore[no-untyped-call]
        self.optimizer.step()
        self.step += 1
        return float(loss.detach())

    def _render_to_learn(self, cameras: Cameras) -> RenderedViews:
        shading, light = self.config.shading, None
        if shading is not None and self.step >= self.config.milestone:
            light = draw_light(shading, cameras.c2w[:, :3, 3], self.generator)
        return self.render(cameras, light, has_normals=shading is not None)

    def render(
        self, cameras: Cameras, light: Light | None = None, *, has_normals: bool = False
    ) -> RenderedViews:
        """Render the field from cameras, at the size that the present step has.

        Args:
            cameras: B of them.
            light: one for each camera; None shows the field's colours.
            has_normals: work out the orientation penalty too.
        """
        config = self.config
        size = config.sizes[self.step >= config.milestone]
        origins, directions = camera_rays(cameras, size)
        shape = directions.shape
        flat_origins = origins.reshape(-1, 3).to(self.device)
        flat_directions = directions.reshape(-1, 3).to(self.device)
        background = self._background(flat_directions)
        seen = render_rays(
            self.field,
            flat_origins,
            flat_directions,
            background,
            config.samples,
            self.occupancy > 0.01,
            self.generator,
            light,
            has_normals=has_normals,
        )
        return RenderedViews(
            seen.color.view(shape),
            seen.opacity.view(shape[:3]),
            background.view(shape),
            cameras,
            self.step,
            seen.orientation,
        )

    def _draw_cameras(self) -> Cameras:
        batch = self.config.batch_sizes[self.step >= self.config.milestone]
        return draw_cameras(batch // N_VIEW, self.config.cameras, self.generator)

    def _background(self, directions: Tensor) -> Tensor:
        if torch.rand(1, generator=self.generator) < self.config.background_chance:
            color = torch.rand(3, generator=self.generator).to(self.device)
            return color.expand_as(directions)
        return self.background(directions)  # type: ignore[no-any-return]

    @torch.no_grad()
    def _refresh_occupancy(self) -> None:
        """Look where there is something, at a random point of every cell; forget slowly."""
        size, radius = self.config.occupancy, self.config.geometry.radius
        cell = torch.stack(torch.meshgrid(*[torch.arange(size)] * 3, indexing="ij"), dim=-1)
        at = cell.reshape(-1, 3) + torch.rand(size**3, 3, generator=self.generator)
        points = (at / size * 2 - 1) * radius
        step = 2 * 3**0.5 * radius / self.config.samples
        density = self.field.density(points.to(self.device))[:, 0].view(self.occupancy.shape)
        self.occupancy = torch.maximum(0.95 * self.occupancy, density * step)

    def save(self, path: Path) -> None:
        """Write everything needed to go on; an interrupted write leaves the old file.

        Raises:
            StorageError: disk full, no permission.
        """
        state = {
            "config": asdict(self.config),
            "step": self.step,
            "field": self.field.state_dict(),
            "background": self.background.state_dict(),
            "optimizer": self.optimizer.state_dict(),
            "occupancy": self.occupancy,
            "generator": self.generator.get_state(),
        }
        part = path.with_name(f"{path.name}.part")
        try:
            torch.save(state, part)
            os.replace(part, path)
        except (OSError, RuntimeError) as error:
            raise StorageError(f"The checkpoint {path} cannot be written: {error}") from error

    def load(self, path: Path) -> None:
        """Take up what ``save`` wrote.

        Raises:
            CheckpointError: the file is damaged, or of another kind.
            InvalidConfigError: it was made with other settings.
            StorageError: it cannot be read.
        """
        try:
            # read whole: torch reports a truncated file as an error of the system
            data = io.BytesIO(path.read_bytes())
        except OSError as error:
            raise StorageError(f"The checkpoint {path} cannot be read: {error}") from error
        try:
            state: dict[str, Any] = torch.load(data, map_location="cpu", weights_only=True)
            made_with = {key: v for key, v in state["config"].items() if key != "steps"}
            wanted = {key: v for key, v in asdict(self.config).items() if key != "steps"}
            if made_with == wanted:
                self._restore(state)
        except _DAMAGED as error:
            raise CheckpointError(
                f"The checkpoint {path} is damaged: {str(error)[:200]}",
                hint="Delete it to begin anew, or name another file.",
            ) from error
        if made_with != wanted:
            raise InvalidConfigError(
                f"The checkpoint {path} was made with other settings.",
                hint="Give the same seed and options, or name another file.",
            )

    def _restore(self, state: dict[str, Any]) -> None:
        self.field.load_state_dict(state["field"])
        self.background.load_state_dict(state["background"])
        self.optimizer.load_state_dict(state["optimizer"])
        self.occupancy = state["occupancy"].to(self.device)
        self.generator.set_state(state["generator"])
        self.step = int(state["step"])


def train_field(
    trainer: FieldTrainer,
    loss_of: ViewLoss,
    *,
    checkpoint: Path | None = None,
    every: int = 250,
    progress: ProgressCallback = ignore_progress,
    on_checkpoint: Callable[[FieldTrainer], None] | None = None,
    now: Callable[[], float] = time.monotonic,
) -> None:
    """Run the steps that are left, from the checkpoint where there is one.

    Args:
        trainer: the field.
        loss_of: what to lower.
        checkpoint: file to keep the state in; taken up if it is there.
        every: steps between two checkpoints.
        progress: called before each step with (fraction, "distill k/n, m min left"); what it
            raises ends the work, after a checkpoint was written.
        on_checkpoint: called after each checkpoint, for previews.
        now: clock for the estimate.

    Raises:
        GenerationError: the loss became NaN or infinite.
        CheckpointError, InvalidConfigError, StorageError: the checkpoint cannot be used.
    """
    if checkpoint is not None and checkpoint.is_file():
        trainer.load(checkpoint)
    first, started, total = trainer.step, now(), trainer.config.steps
    try:
        while trainer.step < total:
            left = _minutes_left(trainer.step - first, total - trainer.step, now() - started)
            progress(trainer.step / total, f"distill {trainer.step}/{total}{left}")
            trainer.run_step(loss_of)
            if trainer.step % every == 0 or trainer.step == total:
                if checkpoint is not None:
                    trainer.save(checkpoint)
                if on_checkpoint is not None:
                    on_checkpoint(trainer)
    finally:
        # a cancelled or killed job loses at most the step it was in
        if checkpoint is not None and first < trainer.step < total:
            trainer.save(checkpoint)


def _minutes_left(done: int, left: int, seconds: float) -> str:
    return f", {seconds / done * left / 60:.0f} min left" if done >= 10 else ""
