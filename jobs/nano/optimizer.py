"""Optimiser, schedule and weight averaging that both nano trainings share."""

from __future__ import annotations

import math
import time
from collections.abc import Iterable
from dataclasses import dataclass, field

import torch
from torch import Tensor, nn


@dataclass
class Schedule:
    """Learning-rate factor: linear warm-up, constant, then a cosine tail to zero.

    A run ends after ``steps`` or after ``minutes``, whichever comes first; the tail adapts.

    Attributes:
        steps: most optimiser steps.
        minutes: wall-clock budget.
        warmup_steps: steps of the linear rise.
        tail: share of the run over which the factor falls.
    """

    steps: int
    minutes: float
    warmup_steps: int = 100
    tail: float = 0.5
    _start: float = field(default_factory=time.monotonic)

    def start(self) -> None:
        """Count the minutes from now on; they count from the making otherwise."""
        self._start = time.monotonic()

    def progress(self, step: int) -> float:
        """Return the share of the run that is done, in [0, 1]."""
        elapsed = (time.monotonic() - self._start) / (60.0 * self.minutes)
        return min(max(step / self.steps, elapsed), 1.0)

    def factor(self, step: int) -> float:
        """Return the learning-rate factor of a step."""
        rise = min((step + 1) / self.warmup_steps, 1.0)
        into_tail = max(self.progress(step) - (1.0 - self.tail), 0.0) / self.tail
        return rise * (0.01 + 0.99 * 0.5 * (1.0 + math.cos(math.pi * into_tail)))


class Optimizer:
    """Muon for the matrices of hidden layers, AdamW for everything else.

    Muon (Jordan et al. 2024) orthogonalises the momentum of a matrix; with so few steps it learns
    more from each than AdamW alone.
    """

    def __init__(self, module: nn.Module, matrices: Iterable[nn.Parameter], rate: float) -> None:
        hidden = list(matrices)
        chosen = {id(parameter) for parameter in hidden}
        rest = [p for p in module.parameters() if id(p) not in chosen and p.requires_grad]
        self._parts: list[torch.optim.Optimizer] = [
            torch.optim.AdamW(rest, lr=rate, betas=(0.9, 0.98), weight_decay=0.01)
        ]
        if hidden:
            self._parts.append(
                torch.optim.Muon(
                    hidden,
                    lr=rate,
                    weight_decay=0.01,
                    ns_steps=3,
                    adjust_lr_fn="match_rms_adamw",
                )
            )
        self._rate = rate
        self._parameters = [*rest, *hidden]

    def step(self, loss: Tensor, factor: float) -> None:
        """Back-propagate ``loss`` and update with the learning rate times ``factor``."""
        loss.backward()  # type: ignore[no-untyped-call]
        nn.utils.clip_grad_norm_(self._parameters, 1.0)
        for part in self._parts:
            for group in part.param_groups:
                group["lr"] = self._rate * factor
            part.step()
            part.zero_grad(set_to_none=True)


class WeightAverage:
    """Exponential moving average of a module's parameters."""

    def __init__(self, module: nn.Module, decay: float = 0.998) -> None:
        self._decay = decay
        self._updates = 0
        self.state = {key: value.detach().clone() for key, value in module.state_dict().items()}

    @torch.no_grad()
    def update(self, module: nn.Module) -> None:
        """Blend the current weights in; early updates weigh more."""
        self._updates += 1
        decay = min(self._decay, (1 + self._updates) / (10 + self._updates))
        for key, value in module.state_dict().items():
            if value.is_floating_point():
                self.state[key].lerp_(value, 1.0 - decay)
            else:
                self.state[key].copy_(value)
