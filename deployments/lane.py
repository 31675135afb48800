"""The dispatch of one model's jobs: claim the best when a slot is free, and one ahead."""

from __future__ import annotations

import asyncio
import logging
import math
import time
from collections.abc import Awaitable, Callable
from functools import partial
from typing import Any, Protocol

from deployments.failures import CLUSTER_ERRORS
from deployments.jobrun import JobRun, Stages
from deployments.messages import Failed, Finished, ModelInfo
from deployments.plan import ModelPlan
from dream_cad.exceptions import JobStateError, StorageError
from dream_cad.queue import GenerationJob, JobPriority, JobQueue

logger = logging.getLogger(__name__)

_IDLE_S = 1.0
_ADOPT_EVERY_S = 0.25
_UNREADY_PAUSE_S = 15.0
_SMOOTHING = 0.3


class Database(Protocol):
    """Runs a method of the queue in the thread that owns the database."""

    def __call__(self, verb: Callable[..., Any], *args: Any, **kwargs: Any) -> Awaitable[Any]:
        """Call ``verb(*args, **kwargs)`` there."""


class Lane:
    """Keeps the slots of one model busy with the best jobs.

    A job stays in the queue until a slot is free; ``look_ahead`` jobs beyond the slots are
    claimed early so that their picture is made while the model works. A job more urgent than all
    of those is claimed too and overtakes them at the gate, so an urgent job runs next.

    Args:
        plan: the model.
        stages: what its jobs run on.
        queue: the queue, called only through ``database``.
        database: see Database.
        look_ahead: jobs prepared beyond the free slots.
        router_id: told to the replicas, so that they drop an earlier router's work.
        on_change: called with the id of a job that changed.
    """

    def __init__(
        self,
        plan: ModelPlan,
        stages: Stages,
        queue: JobQueue,
        database: Database,
        *,
        look_ahead: int,
        router_id: str,
        on_change: Callable[[str], None],
    ) -> None:
        self.plan = plan
        self.info = ModelInfo(is_ready=False)
        self.runs: dict[str, JobRun] = {}
        self.mean_s: float | None = None
        self._stages = stages
        self._queue = queue
        self._database = database
        self._look_ahead = look_ahead
        self._router_id = router_id
        self._on_change = on_change
        self._wake = asyncio.Event()
        self._tasks: set[asyncio.Task[None]] = set()

    def wake(self) -> None:
        """Look at the queue now."""
        self._wake.set()

    def eta_s(self, position: int) -> float | None:
        """Estimate the seconds until the job at ``position`` in the line is done."""
        if self.mean_s is None:
            return None
        return self.mean_s * (1 + math.ceil(position / max(self.plan.num_replicas, 1)))

    async def serve(self) -> None:
        """Dispatch for ever."""
        await self._until_ready()
        while True:
            self._wake.clear()
            job = await self._claim()
            if job is None:
                await self._rest(_IDLE_S)
                continue
            run = JobRun(job, self._stages, partial(self._changed, job.id))
            self.runs[job.id] = run
            task = asyncio.create_task(self._work(run))
            self._tasks.add(task)
            task.add_done_callback(self._tasks.discard)

    async def _until_ready(self) -> None:
        """Ask the replicas until one can take jobs."""
        while True:
            try:
                asked = self._stages.model.broadcast("adopt", self._router_id)
                infos: list[ModelInfo] = await asked.results_async()
                if self._stages.text is not None:
                    await self._stages.text.broadcast("adopt", self._router_id).results_async()
            except CLUSTER_ERRORS as error:
                logger.info("model %s is silent: %s", self.plan.name, type(error).__name__)
                infos = []
            if infos:
                self.info = next((info for info in infos if info.is_ready), infos[0])
            if self.info.is_ready:
                logger.info("model %s is ready", self.plan.name)
                return
            await asyncio.sleep(_UNREADY_PAUSE_S if infos else _ADOPT_EVERY_S)

    async def _rest(self, seconds: float) -> None:
        try:
            await asyncio.wait_for(self._wake.wait(), seconds)
        except TimeoutError:
            return

    async def _claim(self) -> GenerationJob | None:
        ahead = [run.job.priority.value for run in self.runs.values() if not run.has_slot]
        above = None
        if len(ahead) >= self._stages.gate.free + self._look_ahead:
            if not ahead or max(ahead) == JobPriority.URGENT.value:
                return None
            above = JobPriority(max(ahead))
        try:
            job: GenerationJob | None = await self._database(
                self._queue.get_next_job, self.plan.name, above_priority=above
            )
        except StorageError as error:
            logger.error("no job can be claimed: %s", error)
            return None
        if job is not None:
            logger.info("job %s running, attempt %d of %d", job.id, job.attempts, job.max_attempts)
            self._on_change(job.id)
        return job

    async def _work(self, run: JobRun) -> None:
        job_id = run.job.id
        started = time.monotonic()
        try:
            outcome = await run.run()
            if not run.is_abandoned:
                await self._record(run, outcome)
            if isinstance(outcome, Finished):
                self._measure(time.monotonic() - started)
        except JobStateError as error:
            logger.warning("job %s: the outcome is dropped: %s", job_id, error)
        except StorageError as error:
            # The lease lapses and the sweeper gives the job another attempt.
            logger.error("job %s: the outcome cannot be recorded: %s", job_id, error)
        finally:
            self.runs.pop(job_id, None)
            self._changed(job_id)

    async def _record(self, run: JobRun, outcome: Finished | Failed) -> None:
        job, token = run.job, run.job.lease_token or ""
        queue = self._queue
        if isinstance(outcome, Finished):
            await self._database(queue.complete, job.id, token, outcome.key, run.timings)
            state = "completed"
        elif outcome.is_cancelled:
            await self._database(queue.confirm_cancelled, job.id, token)
            state = "cancelled"
        elif outcome.is_retryable:
            status = await self._database(queue.retry, job.id, token, outcome.problem)
            state = f"{status.value} again: {outcome.problem.get('detail')}"
        else:
            await self._database(queue.fail, job.id, token, outcome.problem)
            state = f"failed: {outcome.problem.get('detail')}"
        logger.info("job %s %s after %.2f s", job.id, state, run.elapsed_s)

    def _measure(self, seconds: float) -> None:
        known = self.mean_s if self.mean_s is not None else seconds
        self.mean_s = known + _SMOOTHING * (seconds - known)

    def _changed(self, job_id: str) -> None:
        self._wake.set()
        self._on_change(job_id)
