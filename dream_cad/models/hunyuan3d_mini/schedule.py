"""Time steps and the guided Euler sampler (spec section 5).

Time runs from 0, noise, to 1, data; the network predicts dx/dt.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from dream_cad.exceptions import GenerationError
from dream_cad.models.hunyuan3d_mini.conditioner import unconditional
from dream_cad.models.hunyuan3d_mini.dit import Hunyuan3DDiT

SchedulerName = Literal["flow_match", "consistency"]


@dataclass(frozen=True)
class ScheduleConfig:
    """Which times are visited.

    Attributes:
        scheduler: ``flow_match`` (standard, fast) or ``consistency`` (turbo).
        num_train_timesteps: number of times the network was trained on.
        shift: pushes flow-matching times towards the noise, 1 for none.
        pcm_timesteps: number of times that a consistency schedule chooses from.
    """

    scheduler: SchedulerName = "flow_match"
    num_train_timesteps: int = 1000
    shift: float = 1.0
    pcm_timesteps: int = 100

    def sigmas(self, steps: int) -> NDArray[np.float32]:
        """Return the ``steps + 1`` times (float32) between which the sampler steps."""
        if self.scheduler == "consistency":
            return self._consistency(steps)
        sigma = np.linspace(0, 1, steps)
        sigma = self.shift * sigma / (1 + (self.shift - 1) * sigma)
        return np.append(sigma, 1.0).astype(np.float32)

    def timesteps(self, steps: int) -> NDArray[np.float32]:
        """Return the ``steps`` times in units of training steps."""
        times: NDArray[np.float32] = self.sigmas(steps)[:-1] * self.num_train_timesteps
        return times

    def _consistency(self, steps: int) -> NDArray[np.float32]:
        base = np.linspace(0, 1, self.num_train_timesteps)
        ratio = self.num_train_timesteps // self.pcm_timesteps
        indices = np.arange(self.pcm_timesteps) * ratio - 1
        indices[0] = 0
        chosen = np.floor(np.linspace(0, self.pcm_timesteps, steps, endpoint=False)).astype(int)
        return np.append(base[indices[chosen]], 1.0).astype(np.float32)


class GuidedVelocity:
    """The network with classifier-free guidance, by a batch of two or as an input.

    Args:
        network: the transformer.
        condition: image tokens (B, M, C).
        guidance_scale: 5 by default upstream; below 0 switches guidance off.
    """

    def __init__(self, network: Hunyuan3DDiT, condition: Tensor, guidance_scale: float) -> None:
        self._network = network
        self._scale = guidance_scale
        self._is_pair = guidance_scale >= 0 and not network.config.guidance_embed
        if self._is_pair:
            condition = torch.cat((condition, unconditional(condition)))
        self._condition = network.cond_in(condition)

    def __call__(self, latents: Tensor, time: float) -> Tensor:
        """Return the velocity (B, N, C) of the latents at a time in [0, 1]."""
        batch = torch.cat((latents, latents)) if self._is_pair else latents
        times = latents.new_full((batch.shape[0],), time)
        guidance = None
        if self._network.config.guidance_embed:
            guidance = latents.new_full((batch.shape[0],), self._scale)
        velocity = self._network.velocity(batch, times, self._condition, guidance)
        if not self._is_pair:
            return velocity
        conditional, free = velocity.chunk(2)
        return free + self._scale * (conditional - free)


def sample(
    velocity: GuidedVelocity, latents: Tensor, schedule: ScheduleConfig, steps: int
) -> Iterator[Tensor]:
    """Yield the latents (B, N, C) after each of ``steps`` Euler steps.

    Steps of zero length (the last one of flow matching) cost nothing: the network is not asked.

    Raises:
        GenerationError: the latents are not finite any more; names the step.
    """
    sigmas = schedule.sigmas(steps)
    for step, (now, then) in enumerate(itertools.pairwise(sigmas), start=1):
        if then > now:
            slope = velocity(latents, float(now)).float()
            latents = (latents.float() + float(then - now) * slope).to(latents.dtype)
            if not torch.isfinite(latents).all():
                raise GenerationError(
                    f"The latents are not finite after step {step} of {steps}.",
                    hint="Where half precision overflowed, precision 'bf16' or 'fp32' helps.",
                )
        yield latents
