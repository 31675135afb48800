"""What is measured of a simulated run."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable
from typing import Any, Protocol

import numpy as np

from benchmarks.simulation.fairness import Work, index_of_dues
from benchmarks.simulation.line import Job
from benchmarks.simulation.workload import BULK_WEIGHTS, MODELS, Load

_WINDOW_S = 300.0
_NAMES = ("low", "normal", "high", "urgent")


class _Counts(Protocol):
    def waiting_of(self, owner: str) -> int: ...


class Record:
    """Collects waits, work, loads and shares of one run."""

    def __init__(self, load: Load) -> None:
        self._load = load
        self._bulk = [f"bulk-{number}" for number in range(len(BULK_WEIGHTS))]
        self._loads = 0
        self._swaps = 0
        self._service: dict[int, dict[str, float]] = defaultdict(lambda: defaultdict(float))
        self._dry: dict[int, set[str]] = defaultdict(set)
        self._last_end = 0.0

    def count_load(self, now: float, *, is_swap: bool) -> None:
        """Count a model that is loaded, in the place of another or not."""
        if now <= self._load.horizon_s:
            self._loads += 1
            self._swaps += is_swap

    def ended(self, job: Job, now: float) -> None:
        """Count a job that has ended."""
        self._last_end = now
        self._service[int(now // _WINDOW_S)][job.owner] += job.seconds

    def sample(self, now: float, line: _Counts) -> None:
        """Note which owners of bulk work have nothing waiting."""
        dry = self._dry[int(now // _WINDOW_S)]
        dry.update(owner for owner in self._bulk if line.waiting_of(owner) == 0)

    def summary(self, gpus: int) -> dict[str, Any]:
        """Return the figures of the run."""
        jobs, horizon = self._load.jobs, self._load.horizon_s
        starts = np.array([job.starts for job in jobs])
        seconds = np.array([job.seconds for job in jobs])
        ended = (starts >= 0) & (starts + seconds <= max(self._last_end, horizon) + 1e-6)
        busy = np.clip(horizon - starts, 0, seconds)[starts >= 0].sum()
        bound = fluid_bound(jobs, gpus, horizon)
        waits = starts - np.array([job.arrives for job in jobs])
        level = np.array([job.priority for job in jobs])
        return {
            "jobs_ended": int(ended.sum()),
            "utilisation": round(float(busy / (gpus * horizon)), 4),
            "offered_load_bound": round(bound / (gpus * horizon), 4),
            "utilisation_of_bound": round(float(busy / bound), 4),
            "loads_per_hour": round(self._loads / horizon * 3600),
            "swaps_per_hour": round(self._swaps / horizon * 3600),
            "makespan_h": round(self._last_end / 3600, 3),
            "fairness": self._fairness(),
            "jain": self._jain(),
            "wait_s": {
                name: _wait(waits[ended & (level == number)]) for number, name in enumerate(_NAMES)
            },
        }

    def _fairness(self) -> dict[str, Any]:
        """Jain's index of received over due among bulk owners (``simulation.fairness``)."""
        number = {owner: place for place, owner in enumerate(self._bulk)}
        model = {name: place for place, name in enumerate(MODELS)}
        jobs = [job for job in self._load.jobs if job.owner in number]
        starts = np.array([job.starts for job in jobs])
        work = Work(
            np.array([number[job.owner] for job in jobs]),
            np.array([model[job.model] for job in jobs]),
            np.array([job.arrives for job in jobs]),
            np.where(starts < 0, np.nan, starts),
            np.array([job.seconds for job in jobs]),
        )
        weights = np.array([self._load.weights.get(owner, 1.0) for owner in self._bulk])
        end = min(self._last_end, self._load.horizon_s)
        return index_of_dues(work, weights, len(model), end)

    def _jain(self) -> dict[str, Any]:
        """Return the figure before that one: of GPU-seconds over weight, whatever was asked for.

        Among bulk owners that waited for anything throughout; by whole windows of five minutes
        with three such owners or more.
        """
        found = []
        whole = int(min(self._last_end, self._load.horizon_s) // _WINDOW_S)
        for window in range(whole):
            service = self._service[window]
            owners = [owner for owner in self._bulk if owner not in self._dry[window]]
            if len(owners) < 3:
                continue
            shares = np.array([service[name] / self._load.weights[name] for name in owners])
            if shares.any():
                found.append(float(shares.sum() ** 2 / (len(shares) * (shares**2).sum())))
        if not found:
            return {"mean": None, "min": None, "windows": 0}
        return {
            "mean": round(float(np.mean(found)), 4),
            "min": round(min(found), 4),
            "windows": len(found),
        }


def _wait(waits: np.ndarray) -> dict[str, float | int]:
    if len(waits) == 0:
        return {"n": 0}
    p50, p99 = np.percentile(waits, [50, 99])
    return {"p50": round(float(p50), 2), "p99": round(float(p99), 2), "n": len(waits)}


def fluid_bound(jobs: Iterable[Job], gpus: int, horizon: float) -> float:
    """Return the most GPU-seconds that any policy can do until the horizon.

    Work is a fluid that the GPUs take at their full rate whenever there is some: no loading, no
    job that is too short for the rest of the GPUs.
    """
    left, now, arrived = 0.0, 0.0, 0.0
    for job in jobs:
        left = max(left - gpus * (job.arrives - now), 0.0) + job.seconds
        now, arrived = job.arrives, arrived + job.seconds
    return arrived - max(left - gpus * (horizon - now), 0.0)
