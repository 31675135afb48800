"""Guided Euler sampling of both flows (spec, section 7)."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from itertools import pairwise
from typing import Literal

import numpy as np
import torch
from torch import Tensor

from dream_cad.exceptions import InvalidConfigError

SIGMA_MIN = 1e-5

Velocity = Callable[[Tensor, Tensor, Tensor], Tensor]
MultiImageMode = Literal["stochastic", "multidiffusion"]


@dataclass(frozen=True)
class SamplerConfig:
    """Steps and guidance of one stage; the defaults are image-large.

    Attributes:
        steps: Euler steps, at least 1.
        cfg_strength: w of (1 + w) v(cond) - w v(neg); 7.5 is the usual guidance scale 8.5.
        cfg_interval: rescaled times, both included, between which guidance is on.
        rescale_t: r of t -> r t / (1 + (r - 1) t), positive.
    """

    steps: int = 25
    cfg_strength: float = 5.0
    cfg_interval: tuple[float, float] = (0.5, 1.0)
    rescale_t: float = 3.0

    def __post_init__(self) -> None:
        """Refuse values that no schedule has."""
        if self.steps < 1 or not self.rescale_t > 0:
            raise InvalidConfigError(
                f"steps {self.steps} and rescale_t {self.rescale_t}; expected at least 1, above 0"
            )

    def times(self) -> list[tuple[float, float]]:
        """(t, next t) of every step, from 1 to 0."""
        t = np.linspace(1, 0, self.steps + 1)
        t = self.rescale_t * t / (1 + (self.rescale_t - 1) * t)
        return [(float(a), float(b)) for a, b in pairwise(t)]

    def is_guided(self, t: float) -> bool:
        """Whether guidance is on at rescaled time t."""
        low, high = self.cfg_interval
        return low <= t <= high


@dataclass(frozen=True)
class SamplerStep:
    """State after a step: the sample x_t and the estimate of the end."""

    x_t: Tensor
    x_0: Tensor


def sample(
    velocity: Velocity,
    noise: Tensor,
    cond: Tensor,
    negative: Tensor,
    config: SamplerConfig,
    *,
    mode: MultiImageMode | None = None,
    on_step: Callable[[int, SamplerStep], None] | None = None,
) -> Tensor:
    """Integrate the flow from noise to a sample.

    Args:
        velocity: maps (x, 1000 t (B,), condition (B, M, C)) to the velocity of x.
        noise: the start: a dense (B, ...) latent or, with one condition row, rows (N, C).
        cond: (B, M, C); with ``mode``, (K, M, C) of K images of one object.
        negative: (B, N, C) with any N; one row with ``mode``.
        config: steps and guidance.
        mode: None, "stochastic" (step i uses image i mod K) or "multidiffusion" (mean of all).
        on_step: told the index and state after each step; raising stops.

    Returns:
        The sample, of the shape of ``noise``.
    """
    x = noise
    for index, (t, following) in enumerate(config.times()):
        v = _guided(velocity, x, t, _of_step(cond, index, mode), negative, config)
        x_0 = (1 - SIGMA_MIN) * x - (SIGMA_MIN + (1 - SIGMA_MIN) * t) * v
        x = x - (t - following) * v
        if on_step is not None:
            on_step(index, SamplerStep(x, x_0))
    return x


def _of_step(cond: Tensor, index: int, mode: MultiImageMode | None) -> list[Tensor]:
    """Conditions whose velocities this step averages."""
    if mode is None:
        return [cond]
    if mode == "stochastic":
        return [cond[index % len(cond)][None]]
    return [row[None] for row in cond]


def _guided(
    velocity: Velocity,
    x: Tensor,
    t: float,
    conds: list[Tensor],
    negative: Tensor,
    config: SamplerConfig,
) -> Tensor:
    def at(cond: Tensor) -> Tensor:
        time = torch.full((len(cond),), 1000.0 * t, dtype=torch.float32, device=x.device)
        return velocity(x, time, cond)

    v = torch.stack([at(cond) for cond in conds]).mean(dim=0)
    if not config.is_guided(t):
        return v
    w = config.cfg_strength
    return (1 + w) * v - w * at(negative)
