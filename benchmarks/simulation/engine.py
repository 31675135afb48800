"""Events in simulated time: jobs arrive, GPUs load models and work."""

from __future__ import annotations

import heapq
from abc import ABC, abstractmethod
from collections import defaultdict
from dataclasses import dataclass, field
from itertools import count
from typing import Protocol

from benchmarks.simulation.line import Job
from benchmarks.simulation.measures import Record
from benchmarks.simulation.workload import MODELS, Load

_SWEEP_S = 5.0
_TICK_S = 1.0
_SMOOTHING = 0.3


class Waiting(Protocol):
    """What policies need of a queue."""

    model_waiting: dict[str, int]

    def add(self, job: Job, now: float) -> None:
        """Let a job wait."""

    def claim(
        self, model: str | None, estimate_s: float, favourite: str | None = None
    ) -> Job | None:
        """Take the best job."""

    def charge(self, owner: str, seconds: float) -> None:
        """Correct what an owner was charged."""

    def age(self, now: float) -> None:
        """Let time act."""

    def waiting_of(self, owner: str) -> int:
        """Return how many jobs of an owner wait."""


@dataclass(slots=True, eq=False)
class Gpu:
    """One GPU: what is loaded, and the job that it works on."""

    number: int
    model: str | None = None
    job: Job | None = None
    estimate_s: float = 0.0
    begun: float = 0.0


@dataclass
class Cluster(ABC):
    """GPUs that work off a load; a policy says which GPU takes which job.

    Attributes:
        load: the jobs.
        line: where they wait.
        gpus: how many.
        ends_after: no event later than this many horizons is worked on.
    """

    load: Load
    line: Waiting
    gpus: int
    ends_after: float = 1.5
    now: float = 0.0
    record: Record = field(init=False)

    def __post_init__(self) -> None:
        self.record = Record(self.load)
        self.all_gpus = [Gpu(number) for number in range(self.gpus)]
        self.mean_s: dict[str, float | None] = dict.fromkeys(MODELS)
        self.running: dict[str, int] = defaultdict(int)
        self._events: list[tuple[float, int, Gpu]] = []
        self._numbers = count()

    @abstractmethod
    def arrived(self, job: Job) -> None:
        """Use an idle GPU for a job that has just been added, if there is a right one."""

    @abstractmethod
    def freed(self, gpu: Gpu) -> None:
        """Give a GPU that has ended its job, or loaded a model, its next work."""

    def tick(self) -> None:  # noqa: B027 - most policies decide nothing by the second
        """Decide what is decided by the second."""

    def run(self) -> Record:
        """Work until every job has ended, or the time is over."""
        latest = self.load.horizon_s * self.ends_after
        arrivals = iter(self.load.jobs)
        job = next(arrivals, None)
        next_tick, next_sweep = 0.0, 0.0
        left = len(self.load.jobs)
        while left and self.now <= latest:
            event = self._events[0][0] if self._events else float("inf")
            arrival = job.arrives if job is not None else float("inf")
            self.now = min(event, arrival, next_tick)
            if next_tick <= self.now:
                next_tick += _TICK_S
                if next_sweep <= self.now:
                    self.line.age(self.now)
                    next_sweep += _SWEEP_S
                self.tick()
                self.record.sample(self.now, self.line)
            elif job is not None and arrival <= event:
                self.line.add(job, self.now)
                self.arrived(job)
                job = next(arrivals, None)
            else:
                left -= self._end(heapq.heappop(self._events)[2])
        return self.record

    def begin(self, gpu: Gpu, job: Job, estimate_s: float) -> None:
        """Let a GPU work on a job; it changes its model first if it has another."""
        starts = self.now
        if gpu.model != job.model:
            self.record.count_load(self.now, is_swap=gpu.model is not None)
            gpu.model = job.model
            starts += MODELS[job.model][1]
        job.starts = gpu.begun = starts
        gpu.job, gpu.estimate_s = job, estimate_s
        self.running[job.model] += 1
        self._at(starts + job.seconds, gpu)

    def load_model(self, gpu: Gpu, model: str) -> None:
        """Let a GPU load a model ahead of any job."""
        self.record.count_load(self.now, is_swap=gpu.model is not None)
        gpu.model = model
        self._at(self.now + MODELS[model][1], gpu)

    def estimate(self, model: str) -> float:
        """Return what an owner is charged at the claim, as a lane does."""
        return self.mean_s[model] or 1.0

    def _end(self, gpu: Gpu) -> int:
        job, gpu.job = gpu.job, None
        if job is not None:
            self.running[job.model] -= 1
            self.line.charge(job.owner, job.seconds - gpu.estimate_s)
            known = self.mean_s[job.model]
            known = job.seconds if known is None else known
            self.mean_s[job.model] = known + _SMOOTHING * (job.seconds - known)
            self.record.ended(job, self.now)
        self.freed(gpu)
        return 0 if job is None else 1

    def _at(self, time: float, gpu: Gpu) -> None:
        heapq.heappush(self._events, (time, next(self._numbers), gpu))
