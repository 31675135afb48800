"""The dispatch of one model's jobs: claim the best when a slot is free, and one ahead."""

from __future__ import annotations

import asyncio
import logging
import math
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from functools import partial
from typing import Any

from deployments.attempt import Stages
from deployments.charge import Charge
from deployments.database_thread import DatabaseThread
from deployments.endings import record_outcome
from deployments.joblog import job_fields
from deployments.jobrun import JobRun, Site
from deployments.messages import Failed, Finished, ModelInfo
from deployments.metrics import RouterMetrics
from deployments.plan import ModelPlan
from deployments.replicas import Replicas
from dream_cad.exceptions import JobStateError, StorageError
from dream_cad.queue import GenerationJob, JobPriority

logger = logging.getLogger(__name__)

_IDLE_S = 1.0
_WATCH_EVERY_S = 1.0
_ADOPT_EVERY_S = 0.25
_UNREADY_PAUSE_S = 15.0
_SMOOTHING = 0.3
_HIGHEST = max(priority.value for priority in JobPriority)


class Lane:
    """Keeps the slots of one model busy with the best jobs.

    A job stays in the queue until a slot is free; ``look_ahead`` jobs beyond the slots are
    claimed early so that their picture is made while the model works. Whoever is about to use a
    slot first looks for a more urgent job in the queue, and hands the slot to it: an urgent job
    runs next, whatever was claimed ahead.

    Args:
        plan: the model.
        stages: what its jobs run on.
        database: the queue's thread.
        metrics: what is counted.
        look_ahead: jobs prepared beyond the free slots.
        is_shared: other routers add jobs too, of which this lane hears a moment late.
        charge: whether this router dispatches.
        router_id: told to the replicas, so that they drop an earlier router's work.
        find_site: the lane of another model.
        on_change: called with the id of a job that changed.
    """

    def __init__(
        self,
        plan: ModelPlan,
        stages: Stages,
        database: DatabaseThread,
        metrics: RouterMetrics,
        *,
        look_ahead: int,
        is_shared: bool,
        charge: Charge,
        router_id: str,
        find_site: Callable[[str], Site | None],
        on_change: Callable[[str], None],
    ) -> None:
        self.plan = plan
        self.stages = stages
        self.info = self._unready()
        self.runs: dict[str, JobRun] = {}
        self.mean_s: float | None = None
        self._mean_gpu_s: float | None = None
        self.loads = 0
        self._database = database
        self._metrics = metrics
        self._look_ahead = look_ahead
        self._is_shared = is_shared
        self._charge = charge
        self._replicas = Replicas(stages.model, stages.text, router_id)
        self._find_site = find_site
        self._on_change = on_change
        self._wake = asyncio.Event()
        self._ceiling = _HIGHEST
        self._wakes = 0
        self._releases = 0
        self._tasks: set[asyncio.Task[None]] = set()

    def wake(self, job: GenerationJob | None = None) -> None:
        """Look at the queue now: for a job that has come, or for whatever may have changed."""
        self._ceiling = max(self._ceiling, _HIGHEST if job is None else _level_of(job))
        self._wakes += 1
        self._wake.set()

    def eta_s(self, position: int) -> float | None:
        """Estimate the seconds until the job at ``position`` in the line is done."""
        if self.mean_s is None:
            return None
        return self.mean_s * (1 + math.ceil(position / max(self.stages.gate.slots, 1)))

    def facts(self) -> dict[str, Any]:
        """Return what GET /v1/cluster shows of this model."""
        return {
            "ready": self.info.is_ready,
            "dispatches": self._charge.is_held,
            "slots": self.stages.gate.slots,
            "running": len(self.runs),
            "seconds_per_job": self.mean_s,
            "loads": self.loads,
            "num_gpus": self.plan.num_gpus,
        }

    async def serve(self) -> None:
        """Dispatch for ever, whenever this router is the one that does."""
        await self._until_licensed()
        watching = asyncio.create_task(self._watch())
        try:
            while True:
                await self._until_ready()
                await self._dispatch()
        finally:
            watching.cancel()

    async def _dispatch(self) -> None:
        """Start jobs while there is a replica, and this router is in charge."""
        while self._charge.is_held and self.stages.gate.slots > 0:
            self._wake.clear()
            job = await self._claim(self._needed_level())
            if job is None:
                await self._rest(_IDLE_S)
                if not self._wake.is_set():
                    self._ceiling = _HIGHEST  # something may have come that nobody told of
            else:
                self._start(job, is_reserved=False)

    async def _watch(self) -> None:
        """Count the replicas that can work, which come and go; for ever."""
        while True:
            self._count(await self._replicas.ask())
            if self.mean_s is None or not self._charge.is_held:
                await self._learn_mean()
            await asyncio.sleep(_WATCH_EVERY_S)

    def _count(self, infos: list[ModelInfo] | None) -> None:
        if infos is None:
            return  # busy or on the move: what was known last is the best guess
        ready = sum(info.is_ready for info in infos)
        if ready != self.stages.gate.slots:
            self.stages.gate.resize(ready)
            self._wake.set()
        self.info = next(
            (info for info in infos if info.is_ready), infos[0] if infos else self._unready()
        )

    def _unready(self) -> ModelInfo:
        return ModelInfo(is_ready=False, is_asleep=self.plan.may_sleep)

    async def _learn_mean(self) -> None:
        """Learn from the database what other routers, or this one before, have measured."""
        try:
            self.mean_s = await self._database(self._database.queue.mean_seconds, self.plan.name)
        except StorageError as error:
            logger.error("the seconds a job are not known: %s", error)

    @asynccontextmanager
    async def hold_slot(self, run: JobRun) -> AsyncIterator[None]:
        """Hold a slot of the model for the length of the block, unless a more urgent job needs it.

        A job that was given its slot when it was claimed has it already.
        """
        if not run.is_reserved:
            run.needs_slot = run.is_at_gate = True
            try:
                await self._take_turn(run)
            finally:
                run.is_at_gate = False
        run.is_reserved = run.needs_slot = False
        run.take_slot()
        self._wake.set()
        try:
            yield
        finally:
            run.leave_slot()
            self.stages.gate.release()

    async def _take_turn(self, run: JobRun) -> None:
        await self.stages.gate.acquire(run.rank)
        while True:
            try:
                urgent = await self._claim(run.level + 1)
            except BaseException:
                self.stages.gate.release()
                raise
            if urgent is None and not self._give_way(run):
                return
            if urgent is not None:
                # The slot is the other's now, from its first stage on; wait for the next one.
                self._start(urgent, is_reserved=True)
            await self.stages.gate.acquire(run.rank)

    def _give_way(self, run: JobRun) -> bool:
        """Hand a slot on to a more urgent job that was claimed while ``run`` looked for one."""
        if self.stages.gate.is_wanted_above(run.level):
            self.stages.gate.release()
            return True
        # One that is at the gate and waits no more has a slot of its own.
        others = [
            other for other in self._ahead() if other.level > run.level and not other.is_at_gate
        ]
        if not others:
            return False
        min(others, key=lambda other: other.rank).is_reserved = True
        return True

    def _start(self, job: GenerationJob, *, is_reserved: bool) -> None:
        run = JobRun(job, self, self._find_site, partial(self._on_change, job.id))
        run.is_reserved = is_reserved
        self.runs[job.id] = run
        task = asyncio.create_task(self._work(run))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _until_licensed(self) -> None:
        """Wait until an administrator has accepted the licence of the weights, if they have one."""
        license = self.plan.weights_license
        if not self.plan.needs_acceptance or license is None:
            return
        licenses = self._database.queue.licenses
        while not await self._database(licenses.is_accepted, self.plan.name, license):
            problem = {
                "type": "license-not-accepted",
                "title": "Licence not accepted",
                "detail": f"The weights of {self.plan.name} are under the {license}, which an "
                "administrator has to accept before they are served.",
                "hint": f"dream-cad licenses accept {self.plan.name}, or POST /v1/admin/licenses.",
            }
            self.info = ModelInfo(is_ready=False, problem=problem)
            await self._rest(_UNREADY_PAUSE_S)
            self._wake.clear()
        self.info = self._unready()

    async def _until_ready(self) -> None:
        """Wait for the charge, then ask the replicas until one can take jobs."""
        while True:
            if not await self._charge.wait(_IDLE_S):
                continue
            self._count(await self._replicas.adopt())
            if self.info.is_ready:
                self.loads += 1
                self._metrics.loads.inc(tags={"model": self.plan.name})
                logger.info("model %s is ready", self.plan.name)
                return
            await self._until_counted(_UNREADY_PAUSE_S if self.info.problem else _ADOPT_EVERY_S)

    async def _until_counted(self, seconds: float) -> None:
        """Wait until a replica that can work was counted, or for a while."""
        deadline = time.monotonic() + seconds
        while self.stages.gate.slots == 0 and (left := deadline - time.monotonic()) > 0:
            self._wake.clear()
            await self._rest(left)

    async def _rest(self, seconds: float) -> None:
        try:
            await asyncio.wait_for(self._wake.wait(), seconds)
        except TimeoutError:
            return

    def _needed_level(self) -> int:
        """Return the least level worth claiming: any, or more than what waits here already."""
        ahead = [run.level for run in self._ahead()]
        if len(ahead) < self.stages.gate.free + self._look_ahead:
            return 0
        return max(ahead, default=_HIGHEST) + 1

    def _ahead(self) -> list[JobRun]:
        """Return the runs that have yet to get a slot; not those that the finisher has."""
        return [run for run in self.runs.values() if run.needs_slot and not run.is_reserved]

    async def _claim(self, level: int) -> GenerationJob | None:
        """Claim the best job of at least ``level``.

        The database is not asked where the last answer still holds: a claim takes the best there
        is, so above it there is nothing until this lane is woken.
        """
        self._note_releases()
        if level > self._ceiling or not self._charge.is_held:
            return None
        wakes = self._wakes
        try:
            job: GenerationJob | None = await self._database(
                self._database.queue.get_next_job,
                self.plan.name,
                above_priority=level - 1 if level > 0 else None,
                estimate_s=self._estimate_s(),
            )
        except StorageError as error:
            logger.error("no job can be claimed: %s", error)
            return None
        if wakes == self._wakes and not self._is_shared:
            self._ceiling = level - 1 if job is None else _level_of(job)
        if job is not None:
            logger.info(
                "job running",
                extra={**job_fields(job), "model": self.plan.name, "attempt": job.attempts},
            )
            self._on_change(job.id)
        return job

    def _note_releases(self) -> None:
        """Jobs that waited for another one to end may stand in any line now."""
        releases = self._database.queue.releases
        if releases != self._releases:
            self._releases = releases
            self.wake()

    async def _work(self, run: JobRun) -> None:
        job_id = run.job.id
        started = time.monotonic()
        try:
            outcome = await self._outcome(run)
            if not run.is_abandoned:
                await self._record_or_discard(run, outcome)
            if isinstance(outcome, Finished):
                self._measure(time.monotonic() - started, run.usage.gpu_seconds)
        except StorageError as error:
            # The lease lapses and the sweeper gives the job another attempt.
            logger.error("job %s: the outcome cannot be recorded: %s", job_id, error)
        finally:
            self.runs.pop(job_id, None)
            self._changed(job_id)

    async def _outcome(self, run: JobRun) -> Finished | Failed:
        try:
            return await run.run()
        finally:
            run.needs_slot = False
            if run.is_reserved:
                self.stages.gate.release()  # it ended before it came to the model
                run.is_reserved = False

    async def _record_or_discard(self, run: JobRun, outcome: Finished | Failed) -> None:
        try:
            await self._record(run, outcome)
        except JobStateError as error:
            logger.warning("job %s: the outcome is dropped: %s", run.job.id, error)
            if isinstance(outcome, Finished):
                await run.discard(outcome)

    async def _record(self, run: JobRun, outcome: Finished | Failed) -> None:
        job, usage = run.job, run.usage
        status = await self._database.persistently(
            record_outcome,
            self._database.queue,
            job,
            outcome,
            timings=usage.timings,
            gpu_seconds=usage.gpu_seconds,
            peak_memory_bytes=usage.peak_memory_bytes,
            backoff_s=self.stages.backoff_s,
        )
        if not status.is_final:
            self.wake(job)
        problem = outcome.problem if isinstance(outcome, Failed) else {}
        self._metrics.ended(self.plan.name, status.value, usage.timings, problem)
        logger.info(
            "job %s",
            status.value,
            extra={
                **job_fields(job),
                "model": self.plan.name,
                "attempt": job.attempts,
                "seconds": round(run.elapsed_s, 3),
                "gpu_seconds": round(usage.gpu_seconds, 3),
                "problem": problem.get("detail"),
            },
        )

    def _estimate_s(self) -> float:
        """Estimate the GPU-seconds of the next job: waiting for a slot is no part of them."""
        return self.stages.gpu_share if self._mean_gpu_s is None else self._mean_gpu_s

    def _measure(self, seconds: float, gpu_seconds: float) -> None:
        self.mean_s = _smoothed(self.mean_s, seconds)
        self._mean_gpu_s = _smoothed(self._mean_gpu_s, gpu_seconds)

    def _changed(self, job_id: str) -> None:
        self._wake.set()
        self._on_change(job_id)


def _level_of(job: GenerationJob) -> int:
    return job.priority.value if job.level is None else job.level


def _smoothed(known: float | None, measured: float) -> float:
    return measured if known is None else known + _SMOOTHING * (measured - known)
