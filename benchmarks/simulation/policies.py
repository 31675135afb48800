"""Who works on what: the served cluster, a pool of workers, and two baselines."""

from __future__ import annotations

from collections import defaultdict, deque

from benchmarks.simulation.engine import Cluster, Gpu
from benchmarks.simulation.line import Job
from benchmarks.simulation.workload import MODELS
from deployments.args import AutoscalingArgs
from deployments.autoscaling import Demand, QueuePolicy
from deployments.demand import MOST_COUNTED

_SCALING = AutoscalingArgs(max_replicas=1)


class Lanes(Cluster):
    """The served cluster: a lane for each model, replicas that follow the queue.

    A lane claims the best job of its model when one of its replicas is free; Serve's policy is the
    deployed one. GPUs that are free go to the model that lacks most.
    """

    def __post_init__(self) -> None:
        super().__post_init__()
        self._free = deque(self.all_gpus)
        self._idle: dict[str, list[Gpu]] = {model: [] for model in MODELS}
        self._replicas = dict.fromkeys(MODELS, 0)
        self._ready = dict.fromkeys(MODELS, 0)
        self._loading: set[Gpu] = set()
        self._target = dict.fromkeys(MODELS, 0)
        self._needed_at = dict.fromkeys(MODELS, 0.0)
        self._policies = {model: QueuePolicy(_SCALING.drain_s, _SCALING.idle_s) for model in MODELS}

    def arrived(self, job: Job) -> None:
        """Wake the lane of the job's model."""
        if self._idle[job.model]:
            self.freed(self._idle[job.model].pop())

    def freed(self, gpu: Gpu) -> None:
        """Let the replica's lane claim, unless the replica is one too many."""
        model = str(gpu.model)
        if gpu in self._loading:
            self._loading.remove(gpu)
            self._ready[model] += 1
        if self._replicas[model] > self._target[model]:
            self._stop(gpu)
            return
        estimate = self.estimate(model)
        job = self.line.claim(model, estimate)
        if job is None:
            self._idle[model].append(gpu)
        else:
            self.begin(gpu, job, estimate)

    def tick(self) -> None:
        """Ask the policy of each model, and hand out what is free."""
        waiting = self.line.model_waiting
        starving = {name for name in MODELS if waiting[name] and not self._ready[name]}
        for model, policy in self._policies.items():
            demand = Demand(
                min(waiting[model], MOST_COUNTED),
                self.running[model],
                self.mean_s[model],
                bool(starving - {model}),
            )
            target, needed_at = policy.decide(
                demand, self._target[model], self._needed_at[model], self.now
            )
            self._target[model], self._needed_at[model] = min(target, self.gpus), needed_at
            while self._idle[model] and self._replicas[model] > self._target[model]:
                self._stop(self._idle[model].pop())
        while self._free:
            lacking = {name: self._target[name] - self._replicas[name] for name in MODELS}
            model = max(lacking, key=lambda name: lacking[name])
            if lacking[model] <= 0:
                return
            gpu = self._free.popleft()
            self._replicas[model] += 1
            self._loading.add(gpu)
            self.load_model(gpu, model)

    def _stop(self, gpu: Gpu) -> None:
        self._replicas[str(gpu.model)] -= 1
        self._ready[str(gpu.model)] -= 1
        self._free.append(gpu)


class Workers(Cluster):
    """Workers that take any model's jobs, with or without a liking for the loaded one.

    With the queue of the library this is what ``BatchProcessor`` does; with the plain one it is
    first-in first-out.
    """

    has_favourite = True

    def __post_init__(self) -> None:
        super().__post_init__()
        self._idle: dict[str | None, list[Gpu]] = defaultdict(list)
        self._idle[None] = list(self.all_gpus)

    def arrived(self, job: Job) -> None:
        """Take an idle GPU that has the model, else any idle one."""
        pool = self._idle.get(job.model) or next((p for p in self._idle.values() if p), None)
        if pool:
            self.freed(pool.pop())

    def freed(self, gpu: Gpu) -> None:
        """Claim the best job of any model."""
        favourite = gpu.model if self.has_favourite else None
        job = self.line.claim(None, 10.0, favourite)
        if job is None:
            self._idle[gpu.model].append(gpu)
        else:
            self.begin(gpu, job, 10.0)


class Fifo(Workers):
    """Any GPU, the oldest job."""

    has_favourite = False


class Static(Cluster):
    """Every model has its own GPUs for ever, as many as its share of the whole work."""

    def __post_init__(self) -> None:
        super().__post_init__()
        work: dict[str, float] = defaultdict(float)
        for job in self.load.jobs:
            work[job.model] += job.seconds
        total = sum(work.values())
        self._idle: dict[str, list[Gpu]] = {model: [] for model in MODELS}
        names = list(MODELS)
        edges, done = [], 0.0
        for name in names:
            done += work[name]
            edges.append(round(self.gpus * done / total))
        for gpu in self.all_gpus:
            model = next(name for name, edge in zip(names, edges, strict=True) if gpu.number < edge)
            gpu.model = model
            self._idle[model].append(gpu)

    def arrived(self, job: Job) -> None:
        """Take an idle GPU of the model."""
        if self._idle[job.model]:
            self.freed(self._idle[job.model].pop())

    def freed(self, gpu: Gpu) -> None:
        """Claim the oldest job of the GPU's model."""
        job = self.line.claim(gpu.model, 10.0)
        if job is None:
            self._idle[str(gpu.model)].append(gpu)
        else:
            self.begin(gpu, job, 10.0)
