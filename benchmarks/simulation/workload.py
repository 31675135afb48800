"""Bursty mixed load: interactive requests and bulk work of many owners on five models."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from benchmarks.simulation.line import Job

MODELS: dict[str, tuple[float, float, float]] = {
    # seconds of a job, seconds to load, share of the jobs at first
    "triposr": (3.0, 15.0, 0.34),
    "stable-fast-3d": (3.0, 15.0, 0.26),
    "hunyuan3d-mini": (12.0, 30.0, 0.20),
    "trellis": (25.0, 40.0, 0.12),
    "mvdream": (40.0, 40.0, 0.08),
}
"""Made-up orders of magnitude, between the capabilities' typical times; not measured."""
BULK_WEIGHTS = (1.0, 1.0, 2.0, 1.0, 4.0, 1.0, 2.0, 1.0, 1.0, 2.0, 1.0, 1.0)
_INTERACTIVE_OWNERS = 200
_PRIORITY_SHARES = (0.3, 0.5, 0.15, 0.05)  # of interactive jobs: LOW, NORMAL, HIGH, URGENT
_INTERACTIVE = 0.25
_BURST = (1_000, 6_000)
_SPREAD = 0.25
LOW, NORMAL, HIGH, URGENT = range(4)


@dataclass(frozen=True)
class Load:
    """Jobs in order of arrival, and the weights of their owners."""

    jobs: list[Job]
    weights: dict[str, float]
    horizon_s: float


def mean_seconds() -> float:
    """Return the mean seconds of a job."""
    return sum(seconds * share for seconds, _, share in MODELS.values())


def make_load(number: int, gpus: int, *, busy: float = 0.92, seed: int = 0) -> Load:
    """Make jobs whose work is ``busy`` of what the GPUs could do until the last one arrives.

    A quarter are interactive (Poisson, its rate doubled every third quarter of an hour), the rest
    bursts of bulk work at NORMAL priority, a thousand to six thousand jobs each, at random times.
    What is asked for drifts: shares of models swing within the run by a half.
    """
    random = np.random.default_rng(seed)
    horizon = number * mean_seconds() / (gpus * busy)
    interactive = round(number * _INTERACTIVE)
    arrives = [_interactive_times(random, interactive, horizon)]
    owners = [random.integers(_INTERACTIVE_OWNERS, size=interactive) + len(BULK_WEIGHTS)]
    priorities = [random.choice(4, size=interactive, p=_PRIORITY_SHARES)]
    left = number - interactive
    scale = min(1.0, number / 1_000_000)  # small runs have small bursts
    while left > 0:
        size = min(left, max(1, round(int(random.integers(*_BURST)) * scale)))
        left -= size
        begin = random.uniform(0, horizon)
        arrives.append(np.full(size, begin) + np.sort(random.uniform(0, 60.0, size)))
        owners.append(np.full(size, random.integers(len(BULK_WEIGHTS))))
        priorities.append(np.full(size, NORMAL))
    times = np.minimum(np.concatenate(arrives), horizon)
    order = np.argsort(times, kind="stable")
    times, owner, level = times[order], np.concatenate(owners)[order], np.concatenate(priorities)
    names = [f"bulk-{i}" for i in range(len(BULK_WEIGHTS))]
    names += [f"user-{i}" for i in range(_INTERACTIVE_OWNERS)]
    model = _models(random, times, horizon)
    noise = np.exp(random.normal(-(_SPREAD**2) / 2, _SPREAD, number))
    level = level[order]
    models = list(MODELS)
    jobs = [
        Job(
            index,
            models[model[index]],
            names[owner[index]],
            int(level[index]),
            float(times[index]),
            float(MODELS[models[model[index]]][0] * noise[index]),
        )
        for index in range(number)
    ]
    weights = dict(zip(names, BULK_WEIGHTS, strict=False))
    return Load(jobs, weights, horizon)


def make_flood(number: int, gpus: int, *, seed: int = 0) -> Load:
    """Make a flood: all owners of bulk work wait for everything until the horizon.

    Jobs come in the first minute, one owner after the other, each as many as its weight; the
    horizon is when half of them could be done.
    """
    random = np.random.default_rng(seed)
    weights = np.array(BULK_WEIGHTS)
    owner = np.sort(random.choice(len(weights), size=number, p=weights / weights.sum()))
    shares = np.array([share for _, _, share in MODELS.values()])
    model = random.choice(len(shares), size=number, p=shares / shares.sum())
    models = list(MODELS)
    jobs = [
        Job(
            index,
            models[model[index]],
            f"bulk-{owner[index]}",
            NORMAL,
            60.0 * index / number,
            MODELS[models[model[index]]][0] * float(random.uniform(0.7, 1.3)),
        )
        for index in range(number)
    ]
    horizon = 0.5 * number * mean_seconds() / gpus
    names = {f"bulk-{index}": weight for index, weight in enumerate(BULK_WEIGHTS)}
    return Load(jobs, names, horizon)


def _interactive_times(random: np.random.Generator, count: int, horizon: float) -> np.ndarray:
    """Return Poisson arrivals at a rate that doubles every third 15 minutes (by thinning)."""
    times = random.uniform(0, horizon, 3 * count)
    is_peak = (times // 900) % 3 == 2
    kept = times[random.random(len(times)) < np.where(is_peak, 1.0, 0.5)]
    return np.sort(random.choice(kept, count, replace=len(kept) < count))


def _models(random: np.random.Generator, times: np.ndarray, horizon: float) -> np.ndarray:
    shares = np.array([share for _, _, share in MODELS.values()])
    phases = 2 * np.pi * (np.arange(len(shares)) / len(shares) + 2 * times[:, None] / horizon)
    drifting = shares * (1 + 0.5 * np.sin(phases))
    edges = np.cumsum(drifting / drifting.sum(1, keepdims=True), axis=1)
    chosen: np.ndarray = (random.random(len(times))[:, None] > edges).sum(1)
    return chosen.clip(max=len(shares) - 1)
