"""The router: owner of the queue, and the one place that decides what runs next."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import AsyncIterator, Callable
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import Any

from ray.serve.handle import DeploymentHandle

import dream_cad
from deployments.args import AppArgs
from deployments.calls import list_nodes
from deployments.gate import PriorityGate
from deployments.gateway_desk import GatewayDesk
from deployments.jobrun import JobRun, Stages
from deployments.lane import Lane
from deployments.messages import JobView, ModelInfo
from deployments.plan import ModelPlan
from dream_cad.exceptions import (
    JobNotFoundError,
    JobStateError,
    QueueFullError,
    StorageError,
)
from dream_cad.queue import (
    GenerationJob,
    JobFilter,
    JobQueue,
    JobStatus,
)
from dream_cad.queue.database import OwnerLock, sqlite_path
from dream_cad.queue.jobs import new_job_id

logger = logging.getLogger(__name__)

_BEATS_PER_LEASE = 3
_OWNERSHIP_TIMEOUT_S = 60.0
_FINISHING_PER_SLOT = 4


class Router(GatewayDesk):
    """Accepts jobs, dispatches them to the models, and answers for their state.

    Durable: a job is in the database before ``submit`` returns, and its result before it is
    shown as completed. If this process dies, its successor takes the running jobs back at once
    (SQLite: the owner's file lock proves that it is dead) or when their leases lapse.

    Args:
        args: the application's arguments.
        database_url: the queue's database.
        plans: the deployed models.
        models: their handles by name.
        text: the text stage's handle, if there is one.
        finisher: the finisher's handle.
    """

    async def __init__(  # type: ignore[misc]  # Serve awaits it
        self,
        args: AppArgs,
        database_url: str,
        plans: list[ModelPlan],
        models: dict[str, DeploymentHandle[Any]],
        text: DeploymentHandle[Any] | None,
        finisher: DeploymentHandle[Any],
    ) -> None:
        self._args = args
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="database")
        self._queue = await asyncio.get_running_loop().run_in_executor(
            self._thread, self._open, database_url
        )
        self._watchers: dict[str, set[asyncio.Event]] = {}
        self._lanes = self._open_lanes(plans, models, text, finisher)
        loops = [lane.serve() for lane in self._lanes.values()]
        self._loops = [asyncio.create_task(loop) for loop in [*loops, self._beat()]]

    def _open(self, database_url: str) -> JobQueue:
        path = sqlite_path(database_url)
        queue = JobQueue(
            database_url,
            lease_s=self._args.queue.lease_s,
            max_pending=self._args.limits.max_pending,
        )
        if path is not None:
            self._lock = OwnerLock(path)
            self._lock.acquire(_OWNERSHIP_TIMEOUT_S)
            for job in queue.recover():
                logger.info(
                    "job %s taken back from an earlier router: %s", job.id, job.status.value
                )
        return queue

    def _open_lanes(
        self,
        plans: list[ModelPlan],
        models: dict[str, DeploymentHandle[Any]],
        text: DeploymentHandle[Any] | None,
        finisher: DeploymentHandle[Any],
    ) -> dict[str, Lane]:
        finishing = asyncio.Semaphore(
            _FINISHING_PER_SLOT * self._args.finisher.num_replicas * self._args.finisher.concurrency
        )
        text_gate = PriorityGate(self._args.text_to_image.num_replicas)
        router_id = new_job_id()
        lanes = {}
        for plan in plans:
            stages = Stages(
                model=models[plan.name],
                text=text if plan.needs_picture else None,
                text_gate=text_gate,
                finisher=finisher,
                gate=PriorityGate(plan.num_replicas),
                finishing=finishing,
                timeout_s=self._args.limits.job_timeout_s,
                grace_s=self._args.queue.cancel_grace_s,
                backoff_s=self._args.queue.retry_backoff_s,
                finish_options=plan.finish_options,
                receipt={"dream_cad": dream_cad.__version__, "checkpoint": plan.checkpoint},
            )
            lanes[plan.name] = Lane(
                plan,
                stages,
                self._queue,
                self._database,
                look_ahead=self._args.queue.look_ahead,
                router_id=router_id,
                on_change=self._changed,
            )
        return lanes

    async def submit(self, job: GenerationJob) -> JobView:
        """Add a job; adding the same id again gives the job that is there.

        Raises:
            QueueFullError: with ``retry_after_s`` in its details.
            IdempotencyConflictError: the key was used for another request.
            StorageError: the job could not be made durable.
        """
        known = await self._database(self._queue.get_job, job.id)
        if known is None:
            try:
                job_id = await self._database(self._queue.add_job, job)
            except QueueFullError as error:
                error.details["retry_after_s"] = self._retry_after_s(job.model_name)
                raise
            logger.info("job %s pending: %s, %s", job_id, job.model_name, job.priority.name)
        else:
            job_id = known.id
        if (lane := self._lanes.get(job.model_name)) is not None:
            lane.wake()
        return await self.get(job_id)

    async def get(self, job_id: str) -> JobView:
        """Return a job as it is now.

        Raises:
            JobNotFoundError: no such job.
        """
        job = await self._database(self._queue.get_job, job_id)
        if job is None:
            raise JobNotFoundError(f"There is no job {job_id!r}.", hint="Check the id.")
        return await self._view(job)

    async def list_jobs(
        self, wanted: JobFilter, cursor: str | None, limit: int
    ) -> tuple[list[JobView], str | None]:
        """Return a page of jobs, newest first, and the next page's cursor."""
        page = await self._database(self._queue.list_jobs, wanted, cursor=cursor, limit=limit)
        return [self._live_view(job) for job in page.jobs], page.next_cursor

    async def cancel(self, job_id: str) -> JobView:
        """Cancel a job: at once if it waits, at its next step if it runs.

        Raises:
            JobNotFoundError: no such job.
        """
        status = await self._database(self._queue.cancel, job_id)
        if status is JobStatus.RUNNING and (run := self._find_run(job_id)) is not None:
            run.stop()
        self._changed(job_id)
        return await self.get(job_id)

    async def wait(self, job_id: str, timeout_s: float) -> JobView:
        """Return the job once it has ended, or after ``timeout_s`` seconds as it then is."""
        deadline = time.monotonic() + timeout_s
        with _Watch(self._watchers, job_id) as changed:
            while True:
                changed.clear()
                view = await self.get(job_id)
                left = deadline - time.monotonic()
                if view.job.status.is_final or left <= 0:
                    return view
                await _wait_for(changed, min(left, 1.0))

    async def watch(self, job_id: str) -> AsyncIterator[JobView]:
        """Yield the job now and whenever it changed, until it has ended."""
        with _Watch(self._watchers, job_id) as changed:
            last: tuple[Any, ...] | None = None
            while True:
                changed.clear()
                view = await self.get(job_id)
                state = (view.job.status, view.job.stage, view.job.progress, view.position)
                if state != last:
                    last = state
                    yield view
                if view.job.status.is_final:
                    return
                await _wait_for(changed, 1.0)

    async def cluster(self) -> dict[str, Any]:
        """Return GPUs, replicas, queue depth by model and priority, and what is paused."""
        switches = await self.switches()
        depth = await self._database(self._queue.depth)
        return {
            "paused": switches.all_paused,
            "paused_models": list(switches.models),
            "draining": switches.draining,
            "models": {
                name: {
                    "ready": lane.info.is_ready,
                    "slots": lane.plan.num_replicas,
                    "running": len(lane.runs),
                    "seconds_per_job": lane.mean_s,
                }
                for name, lane in self._lanes.items()
            },
            "depth": [
                {
                    "model": entry.model_name,
                    "priority": entry.priority.name.lower(),
                    "count": entry.count,
                    "oldest_created_at": entry.oldest_created_at.isoformat(),
                }
                for entry in depth
            ],
            "nodes": [
                {"alive": node["Alive"], "resources": node["Resources"]} for node in list_nodes()
            ],
        }

    async def models(self) -> dict[str, ModelInfo]:
        """Return what each deployed model says of itself."""
        return {name: lane.info for name, lane in self._lanes.items()}

    def _watching(self, job_id: str) -> _Watch:
        return _Watch(self._watchers, job_id)

    def _wake_all(self) -> None:
        for lane in self._lanes.values():
            lane.wake()

    async def _view(self, job: GenerationJob) -> JobView:
        if job.status is not JobStatus.PENDING:
            return self._live_view(job)
        position = await self._database(self._queue.position, job)
        lane = self._lanes.get(job.model_name)
        return JobView(job, position, lane.eta_s(position) if lane else None)

    def _live_view(self, job: GenerationJob) -> JobView:
        run = self._find_run(job.id)
        if job.status is not JobStatus.RUNNING or run is None:
            return JobView(job, None, None)
        job.progress, job.stage = run.job.progress, run.job.stage
        mean_s = self._lanes[job.model_name].mean_s
        return JobView(job, None, max(mean_s - run.elapsed_s, 0.0) if mean_s else None)

    def _find_run(self, job_id: str) -> JobRun | None:
        return next(
            (lane.runs[job_id] for lane in self._lanes.values() if job_id in lane.runs), None
        )

    def _retry_after_s(self, model_name: str) -> float:
        lane = self._lanes.get(model_name)
        return max(1.0, lane.mean_s) if lane is not None and lane.mean_s else 30.0

    def _changed(self, job_id: str) -> None:
        for event in self._watchers.get(job_id, ()):
            event.set()

    async def _database(self, verb: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
        """Call a method of the queue in the one thread that owns the database."""
        loop = asyncio.get_running_loop()
        return await loop.run_in_executor(self._thread, partial(verb, *args, **kwargs))

    async def _beat(self) -> None:
        """Extend the leases of what runs, and take back what lapsed."""
        while True:
            await asyncio.sleep(self._args.queue.lease_s / _BEATS_PER_LEASE)
            try:
                for lane in self._lanes.values():
                    for run in list(lane.runs.values()):
                        await self._extend(run)
                for job in await self._database(self._queue.requeue_expired):
                    logger.warning("job %s: its lease lapsed, now %s", job.id, job.status.value)
                    self._changed(job.id)
            except StorageError as error:
                logger.error("the leases cannot be extended: %s", error)
            for lane in self._lanes.values():
                lane.wake()

    async def _extend(self, run: JobRun) -> None:
        job = run.job
        try:
            is_cancelled = await self._database(
                self._queue.report_progress, job.id, job.lease_token, job.progress, job.stage
            )
        except (JobStateError, JobNotFoundError):
            if self._find_run(job.id) is run:
                run.abandon()
            return
        if is_cancelled:
            run.stop()


class _Watch:
    """Registers an event that is set whenever a job changes."""

    def __init__(self, watchers: dict[str, set[asyncio.Event]], job_id: str) -> None:
        self._watchers, self._job_id, self._event = watchers, job_id, asyncio.Event()

    def __enter__(self) -> asyncio.Event:
        self._watchers.setdefault(self._job_id, set()).add(self._event)
        return self._event

    def __exit__(self, *_: object) -> None:
        events = self._watchers[self._job_id]
        events.discard(self._event)
        if not events:
            del self._watchers[self._job_id]


async def _wait_for(event: asyncio.Event, timeout_s: float) -> None:
    try:
        await asyncio.wait_for(event.wait(), timeout_s)
    except TimeoutError:
        return
