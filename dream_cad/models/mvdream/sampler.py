"""Denoise the latents of all views together, under classifier-free guidance in one batch."""

from __future__ import annotations

import warnings
from dataclasses import dataclass
from typing import Any, Literal

import torch
from diffusers import (
    DDIMScheduler,
    DPMSolverMultistepScheduler,
    EulerDiscreteScheduler,
    UniPCMultistepScheduler,
)
from torch import Tensor

from dream_cad.exceptions import GenerationError
from dream_cad.models.base import ProgressCallback, ignore_progress
from dream_cad.models.mvdream.config import SCHEDULER
from dream_cad.models.mvdream.unet import MultiViewUNet

SchedulerName = Literal["ddim", "dpm++", "unipc", "euler"]

# DDIM alone knows the first three; the others share the noise levels.
_DDIM_ONLY = ("clip_sample", "set_alpha_to_one")
_CLASSES: dict[SchedulerName, Any] = {
    "ddim": DDIMScheduler,
    "dpm++": DPMSolverMultistepScheduler,
    "unipc": UniPCMultistepScheduler,
    "euler": EulerDiscreteScheduler,
}


def create_scheduler(name: SchedulerName = "ddim", **overrides: Any) -> Any:
    """Return a diffusers scheduler with the published noise levels.

    Args:
        name: ``"ddim"`` is the published one; ``"dpm++"`` (DPM-Solver++ 2M) and ``"unipc"`` need
            15 to 20 steps.
        **overrides: settings of a scheduler_config.json.
    """
    settings = SCHEDULER | {"timestep_spacing": "leading"} | overrides
    if name != "ddim":
        settings = {key: value for key, value in settings.items() if key not in _DDIM_ONLY}
    return _CLASSES[name](**settings)


@dataclass(frozen=True)
class Guidance:
    """Text and cameras of one object's views.

    Attributes:
        cond: (77, C) embedding of the prompt.
        uncond: (77, C) embedding of the negative prompt.
        cameras: (f, 16).
        scale: classifier-free guidance; 1 or less looks at the prompt alone.
    """

    cond: Tensor
    uncond: Tensor
    cameras: Tensor
    scale: float


class NoisePredictor:
    """The UNet under guidance, for any number of samples of one prompt.

    Args:
        unet: the network.
        guidance: text and cameras.
        samples: n; the views of a sample lie next to each other.
    """

    def __init__(self, unet: MultiViewUNet, guidance: Guidance, samples: int = 1) -> None:
        self._unet = unet
        self._scale = guidance.scale
        self._frames = len(guidance.cameras)
        views = samples * self._frames
        texts = [guidance.uncond, guidance.cond] if self.is_guided else [guidance.cond]
        self._context = torch.cat([text[None].expand(views, -1, -1) for text in texts])
        self._cameras = guidance.cameras.to(unet.device).repeat(samples * len(texts), 1)

    @property
    def is_guided(self) -> bool:
        """Whether the negative prompt takes part."""
        return self._scale > 1.0

    def __call__(self, latents: Tensor, timestep: Tensor | int) -> Tensor:
        """Return the noise (n*f, 4, h, w) float32 in latents of that shape."""
        halves = 2 if self.is_guided else 1
        batch = latents.repeat(halves, 1, 1, 1)
        steps = torch.as_tensor(timestep, device=latents.device).expand(len(batch))
        predicted: Tensor = self._unet(batch, steps, self._context, self._cameras, self._frames)
        noise = predicted.float()
        if not self.is_guided:
            return noise
        uncond, cond = noise[: len(latents)], noise[len(latents) :]
        return uncond + self._scale * (cond - uncond)


def sample_latents(
    predict: NoisePredictor,
    noise: Tensor,
    scheduler: Any,
    steps: int,
    progress: ProgressCallback = ignore_progress,
) -> Tensor:
    """Denoise standard normal noise (n*f, 4, h, w) float32 to latents of that shape.

    Args:
        predict: the network under guidance.
        noise: the start.
        scheduler: from ``create_scheduler``; used for one run.
        steps: denoising steps.
        progress: called after each step.

    Raises:
        GenerationError: latents became NaN or infinite; names the step.
    """
    with warnings.catch_warnings():  # diffusers copies tensors in a way that numpy 2 warns about
        warnings.simplefilter("ignore", DeprecationWarning)
        scheduler.set_timesteps(steps, device=noise.device)
    latents: Tensor = noise * scheduler.init_noise_sigma
    total = len(scheduler.timesteps)
    for index, timestep in enumerate(scheduler.timesteps, 1):
        scaled = scheduler.scale_model_input(latents, timestep)
        # One step object a run keeps its own memory, so the order of calls matters.
        latents = scheduler.step(predict(scaled, timestep), timestep, latents).prev_sample
        if not torch.isfinite(latents).all():
            raise GenerationError(
                f"The latents became NaN or infinite at step {index} of {total}.",
                hint="Where half precision overflowed, precision 'bf16' or 'fp32' helps; a "
                "guidance_scale of 5 to 10 is usual.",
            )
        progress(index / total, f"denoise {index}/{total}")
    return latents
