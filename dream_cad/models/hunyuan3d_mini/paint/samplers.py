"""The two samplers of paint and delight: Euler ancestral and LCM (spec section 10).

Noise levels and time steps are diffusers'; the steps are here, because noise is handed in: drawn on
the CPU it is the same on every device, and a test can name each draw.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Mapping
from typing import Any, Protocol

import torch
from diffusers import EulerAncestralDiscreteScheduler, LCMScheduler
from torch import Tensor

from dream_cad.exceptions import CheckpointError, GenerationError
from dream_cad.models.base import ProgressCallback, ignore_progress

NoiseSource = Callable[[tuple[int, ...]], Tensor]
"""Gives the next standard normal draw of a shape."""

# The turbo network was distilled at this many of the 1000 training times.
_LCM_TIMES = 30
_ZERO_SNR_SIGMA = 4096.0
_LCM_SIGMA_DATA = 0.5
_LCM_TIMESTEP_SCALING = 10.0


class SeededNoise:
    """Draws from a CPU generator, so that a seed gives the same numbers on every device.

    Args:
        seed: of the generator.
        device: where draws go.
        dtype: what they are cast to.
        drawn_as: dtype that they are drawn in; float32 gives all dtypes the same noise.
    """

    def __init__(
        self,
        seed: int,
        device: torch.device | str = "cpu",
        dtype: torch.dtype = torch.float32,
        *,
        drawn_as: torch.dtype = torch.float32,
    ) -> None:
        self._generator = torch.Generator("cpu").manual_seed(seed)
        self._device, self._dtype, self._drawn_as = torch.device(device), dtype, drawn_as

    def __call__(self, shape: tuple[int, ...]) -> Tensor:
        """Return the next draw."""
        drawn = torch.randn(shape, generator=self._generator, dtype=self._drawn_as)
        return drawn.to(self._device, self._dtype)


class Sampler(Protocol):
    """Steps from noise to latents along fixed times."""

    @property
    def timesteps(self) -> Tensor:
        """The times in the order of the steps."""

    @property
    def start_scale(self) -> float:
        """What standard normal noise is multiplied with to start from."""

    def scale_input(self, index: int, latents: Tensor) -> Tensor:
        """Latents as the network wants to see them at a step."""

    def step(self, index: int, latents: Tensor, v: Tensor, noise: NoiseSource) -> Tensor:
        """Latents after a step, from those before it and the network's v."""


class EulerAncestral:
    """Euler ancestral steps for a network that predicts v.

    Args:
        config: published scheduler_config.json.
        steps: how many.
        spacing: of the times; None keeps that of the config.

    Raises:
        CheckpointError: the network predicts something else.
    """

    def __init__(self, config: Mapping[str, Any], steps: int, spacing: str | None = None) -> None:
        overrides = {} if spacing is None else {"timestep_spacing": spacing}
        scheduler = _make(EulerAncestralDiscreteScheduler, config, steps, **overrides)
        self.timesteps: Tensor = scheduler.timesteps
        self.sigmas: Tensor = scheduler.sigmas
        self.start_scale = float(scheduler.init_noise_sigma)
        if config.get("rescale_betas_zero_snr"):
            # sqrt(2^24 - 1): machines differ in the last bit of float32, published runs had this.
            self.sigmas[self.sigmas > _ZERO_SNR_SIGMA - 1] = _ZERO_SNR_SIGMA
            self.start_scale = max(self.start_scale, float(self.sigmas[0]))

    def scale_input(self, index: int, latents: Tensor) -> Tensor:
        """Divide by sqrt(sigma^2 + 1)."""
        scaled: Tensor = latents / float(_root(self.sigmas[index] ** 2 + 1))
        return scaled

    def step(self, index: int, latents: Tensor, v: Tensor, noise: NoiseSource) -> Tensor:
        """One step in float32; draws noise at every step, the last one included.

        From a sigma of 4096 digits cancel, and what is left depends on the order of the operations
        and on the last bit of the roots; both are those of the reference cases.
        """
        before, after = self.sigmas[index], self.sigmas[index + 1]
        x = latents.float()
        clean = v.float() * (-before / _root(before**2 + 1)) + x / (before**2 + 1)
        up = _root(after**2 * (before**2 - after**2) / before**2)
        down = _root(after**2 - up**2)
        moved = x + (x - clean) / before * (down - before)
        result: Tensor = moved + up * noise(tuple(latents.shape)).float()
        return result.to(latents.dtype)


class LatentConsistency:
    """Steps of a latent consistency model that predicts v.

    Args:
        config: published scheduler_config.json.
        steps: how many of the 30 times of the distillation to visit.

    Raises:
        CheckpointError: the network predicts something else.
    """

    start_scale = 1.0

    def __init__(self, config: Mapping[str, Any], steps: int) -> None:
        overrides = {"timestep_spacing": "trailing", "original_inference_steps": _LCM_TIMES}
        scheduler = _make(LCMScheduler, config, steps, **overrides)
        self.timesteps: Tensor = scheduler.timesteps
        self._alphas: Tensor = scheduler.alphas_cumprod

    def scale_input(self, index: int, latents: Tensor) -> Tensor:
        """Latents are seen as they are."""
        return latents

    def step(self, index: int, latents: Tensor, v: Tensor, noise: NoiseSource) -> Tensor:
        """One step in float32; the last one draws no noise."""
        time = int(self.timesteps[index])
        alpha = float(self._alphas[time])
        x = latents.float()
        clean = alpha**0.5 * x - (1 - alpha) ** 0.5 * v.float()
        scaled, data = _LCM_TIMESTEP_SCALING * time, _LCM_SIGMA_DATA
        spread = scaled**2 + data**2
        denoised: Tensor = scaled / spread**0.5 * clean + data**2 / spread * x
        if index == len(self.timesteps) - 1:
            return denoised.to(latents.dtype)
        after = float(self._alphas[int(self.timesteps[index + 1])])
        drawn = noise(tuple(latents.shape)).float()
        result: Tensor = after**0.5 * denoised + (1 - after) ** 0.5 * drawn
        return result.to(latents.dtype)


def _root(x: Tensor) -> Tensor:
    """Square root of a scalar, rounded as in the reference cases: sqrt(2^24 - 1) is 4096."""
    return x * x.rsqrt() if x > 0 else torch.zeros_like(x)


def run_sampler(
    sampler: Sampler,
    predict: Callable[[Tensor, Tensor], Tensor],
    noise: NoiseSource,
    shape: tuple[int, ...],
    progress: ProgressCallback = ignore_progress,
    *,
    stage: str = "denoise",
) -> Tensor:
    """Denoise from a first draw to latents of ``shape``.

    Args:
        sampler: the steps.
        predict: v of (scaled latents, time).
        noise: draws the start, then what the steps ask for.
        shape: of the latents.
        progress: called after each step; what it raises ends the run.
        stage: name in the progress and in errors.

    Raises:
        GenerationError: latents became NaN or infinite; names the step.
    """
    start = noise(shape)
    latents = start * sampler.start_scale
    total = len(sampler.timesteps)
    for index, time in enumerate(sampler.timesteps.to(start.device)):
        v = predict(sampler.scale_input(index, latents), time)
        latents = sampler.step(index, latents, v, noise)
        if not torch.isfinite(latents).all():
            raise GenerationError(
                f"The latents became NaN or infinite at step {index + 1} of {total} of {stage}.",
                hint="Where half precision overflowed, precision 'bf16' or 'fp32' helps.",
            )
        progress((index + 1) / total, f"{stage} {index + 1}/{total}")
    return latents


def _make(kind: Any, config: Mapping[str, Any], steps: int, **overrides: Any) -> Any:
    if config.get("prediction_type") != "v_prediction":
        raise CheckpointError(
            f"scheduler_config.json: prediction_type is {config.get('prediction_type')!r}; "
            "'v_prediction' was expected."
        )
    try:
        with warnings.catch_warnings():  # diffusers copies tensors as numpy 2 warns about
            warnings.simplefilter("ignore", DeprecationWarning)
            scheduler = kind.from_config(dict(config), **overrides)
            scheduler.set_timesteps(steps)
    except (ArithmeticError, RuntimeError, TypeError, ValueError) as error:
        raise CheckpointError(
            f"scheduler_config.json describes no noise schedule: {error}",
            hint="Fetch the checkpoint again.",
        ) from error
    return scheduler
