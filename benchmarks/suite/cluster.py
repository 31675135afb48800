"""Cases spread over the workers of a Ray cluster; one that dies costs one case, not the pass."""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Iterator, Sequence
from typing import Any

import ray
from ray.exceptions import RayError

from benchmarks.suite.worker import Outcome, SuiteWorker, WorkerSetup
from deployments.plan import accelerator_options
from dream_cad.benchmark.results import BenchmarkResult
from dream_cad.benchmark.suites import SuiteCase
from jobs.batch.planning import cluster_nodes

CPUS = 2.0  # of a worker without a GPU


def run_cases(
    setup: WorkerSetup,
    cases: Sequence[SuiteCase],
    *,
    num_gpus: float,
    accelerators: Sequence[str] = (),
    workers: int | None = None,
) -> Iterator[tuple[SuiteCase, Outcome]]:
    """Run the cases on as many workers as fit, each alone on its GPUs or CPUs; yield as they end.

    Args:
        setup: of every worker.
        cases: in the order in which they begin.
        num_gpus: what the model needs; it gets whole GPUs, so that nothing else is measured.
        accelerators: Ray's labels of the GPUs that it may be on; none for any.
        workers: at most so many.
    """
    needs = _needs(num_gpus)
    nodes = [n for n in cluster_nodes() if not accelerators or n.accelerator in accelerators]
    room = max(1, sum(_fitting(node.cpus, node.gpus, needs) for node in nodes))
    count = min(room, len(cases), workers or room)
    make = ray.remote(SuiteWorker).options(**needs, **accelerator_options(tuple(accelerators)))
    waiting = deque(cases)
    busy: dict[Any, tuple[Any, SuiteCase]] = {}

    def begin(worker: Any) -> None:
        if waiting:
            case = waiting.popleft()
            busy[worker.run.remote(case)] = (worker, case)
        else:
            ray.kill(worker)

    for _ in range(count):
        begin(make.remote(setup))
    while busy:
        (ended,), _ = ray.wait(list(busy), num_returns=1)
        worker, case = busy.pop(ended)
        try:
            outcome = ray.get(ended)
        except RayError as error:  # the worker died, or broke while judging
            outcome = Outcome(_failed(setup.model, case, error))
            ray.kill(worker)
            worker = make.remote(setup)
        begin(worker)
        yield case, outcome


def _needs(num_gpus: float) -> dict[str, float]:
    if num_gpus > 0:
        return {"num_gpus": math.ceil(num_gpus), "num_cpus": 1}
    largest = max((node.cpus for node in cluster_nodes()), default=1.0)
    return {"num_gpus": 0, "num_cpus": min(CPUS, largest)}


def _fitting(cpus: float, gpus: int, needs: dict[str, float]) -> int:
    by_cpu = int(cpus // needs["num_cpus"])
    return min(by_cpu, int(gpus // needs["num_gpus"])) if needs["num_gpus"] else by_cpu


def _failed(model: str, case: SuiteCase, error: RayError) -> BenchmarkResult:
    text = f"{type(error).__name__}: {str(error).strip().splitlines()[-1]}"
    return BenchmarkResult(model, case.prompt, False, 0.0, 0.0, 0.0, error_message=text, failures=1)
