"""The router: owner of the queue, and the one place that decides what runs next."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import time
from collections.abc import Callable
from typing import Any

from ray.serve.handle import DeploymentHandle

from deployments.accepting import POSITION_LIMIT, Accepted, accept_all
from deployments.args import AppArgs
from deployments.calls import list_nodes
from deployments.charge import Charge
from deployments.database_thread import DatabaseThread
from deployments.demand import DemandTeller
from deployments.endings import cancel
from deployments.gateway_desk import GatewayDesk
from deployments.grouping import Grouping
from deployments.joblog import job_fields
from deployments.jobrun import JobRun
from deployments.lanes import open_lanes
from deployments.messages import JobView, ModelInfo
from deployments.metrics import RouterMetrics
from deployments.neighbours import Neighbours
from deployments.plan import ModelPlan
from deployments.starting import until_begun
from deployments.sweeper import Sweeper
from deployments.watching import Watch, Watchers, wait_for
from deployments.webhooks import WebhookSender
from dream_cad.artifacts import ArtifactStore
from dream_cad.exceptions import (
    JobNotFoundError,
    ModelUnavailableError,
    QueueFullError,
    StorageError,
)
from dream_cad.log import configure_logging
from dream_cad.queue import GenerationJob, JobFilter, JobQueue, JobStatus
from dream_cad.queue.database import OwnerLock, sqlite_path
from dream_cad.queue.jobs import new_job_id

logger = logging.getLogger(__name__)

_OWNERSHIP_TIMEOUT_S = 60.0
_MOST_TOGETHER = 256
_LICENSE_PROBLEM = "license-not-accepted"


class Router(GatewayDesk):
    """Accepts jobs, dispatches them to the models, and answers for their state.

    Durable: a job is in the database before ``submit`` returns, and its result before it is
    shown as completed. Of several routers (PostgreSQL) one dispatches, the others answer; when it
    dies its successor takes the running jobs back at once.

    Args:
        args: the application's arguments.
        database_url: the queue's database.
        artifacts_root: where results are published.
        plans: the deployed models.
        models: their handles by name.
        text: the text stage's handle, if there is one.
        finisher: the finisher's handle.
    """

    async def __init__(  # type: ignore[misc]  # Serve awaits it
        self,
        args: AppArgs,
        database_url: str,
        artifacts_root: str,
        plans: list[ModelPlan],
        models: dict[str, DeploymentHandle[Any]],
        text: DeploymentHandle[Any] | None,
        finisher: DeploymentHandle[Any],
    ) -> None:
        configure_logging()
        self._args = args
        self._thread = DatabaseThread(lambda: self._open(database_url))
        await self._thread.open()
        self._queue = self._thread.queue
        self._accept: Grouping[GenerationJob, Accepted] = Grouping(self._accept_all, _MOST_TOGETHER)
        self._watchers = Watchers()
        self._metrics = RouterMetrics()
        router_id = new_job_id()
        self._charge = Charge(self._thread, router_id)
        with contextlib.suppress(StorageError):  # it is tried again every second
            await self._charge.check()
        self._lanes = open_lanes(
            args,
            plans,
            models,
            text,
            finisher,
            database=self._thread,
            charge=self._charge,
            router_id=router_id,
            metrics=self._metrics,
            on_change=self._watchers.changed,
        )
        self._loops = [asyncio.create_task(loop) for loop in self._make_loops(artifacts_root)]

    def _open(self, database_url: str) -> JobQueue:
        path = sqlite_path(database_url)
        queue = JobQueue(
            database_url,
            lease_s=self._args.queue.lease_s,
            max_pending=self._args.limits.max_pending,
            ageing_s=self._args.queue.ageing_s,
            result_ttl_s=self._args.limits.result_ttl_s,
        )
        if path is not None:
            self._lock = OwnerLock(path)
            self._lock.acquire(_OWNERSHIP_TIMEOUT_S)
        return queue

    def _make_loops(self, artifacts_root: str) -> list[Any]:
        sweeper = Sweeper(
            self._thread,
            self._lanes,
            ArtifactStore(artifacts_root),
            self._metrics,
            lease_s=self._args.queue.lease_s,
            keep_records_s=self._args.limits.keep_records_s,
            on_change=self._watchers.changed,
        )
        sender = WebhookSender(self._queue.webhooks, self._args.webhooks, self._webhook_secret)
        lanes = [lane.serve() for lane in self._lanes.values()]
        loops = [self._charge.keep(), sweeper.beat(), sweeper.clean(), sender.run()]
        if self._args.queue.routers > 1:
            neighbours = Neighbours(self._thread, self._lanes, self._watchers.changed)
            loops.append(neighbours.listen())
        if any(lane.plan.autoscaling is not None for lane in self._lanes.values()):
            loops.append(DemandTeller(self._thread, self._lanes, self._charge).tell_all())
        return [*lanes, *loops]

    def check_health(self) -> None:
        """Let Serve replace a router one of whose loops has ended: none ever should.

        Raises:
            RuntimeError: one has.
        """
        for loop in self._loops:
            if loop.done():
                raise RuntimeError("a loop of the router has ended") from loop.exception()

    def _webhook_secret(self, owner: str) -> str | None:
        key = self._queue.keys.get(owner)
        return None if key is None else key.webhook_secret

    async def submit_many(self, jobs: list[GenerationJob]) -> list[JobView | Exception]:
        """Add unrelated jobs; adding the same id again gives the job that is there.

        A job whose result is known already (same ``cache_key``) is completed at once.

        Returns:
            For each the job, or QueueFullError with ``retry_after_s`` in its details,
            IdempotencyConflictError where the key was used for another request,
            ModelUnavailableError where the model's licence has not been accepted, or StorageError
            where it could not be made durable.
        """
        return await asyncio.gather(*map(self._outcome, jobs))

    async def _outcome(self, job: GenerationJob) -> JobView | Exception:
        try:
            return await self._submit(job)
        except Exception as error:  # noqa: BLE001 - one job's trouble is not the others'
            return error

    async def _submit(self, job: GenerationJob) -> JobView:
        self._require_license(job)
        try:
            accepted = await self._accept(job)
        except QueueFullError as error:
            error.details["retry_after_s"] = self._retry_after_s(job.model_name)
            raise
        if accepted.job.id == job.id:
            logger.info(
                "job accepted", extra={**job_fields(job), "model": job.model_name, "key": job.owner}
            )
        lane = self._lanes.get(accepted.job.model_name)
        if lane is not None:
            lane.wake(accepted.job)
            await until_begun(lane.runs.values(), accepted.job.priority.value)
        return self._view_at(accepted.job, accepted.position)

    async def make(self, job: GenerationJob, timeout_s: float) -> JobView:
        """Add a job, as ``submit_many`` does, and return it as ``wait`` does: one call for both.

        Raises:
            DreamCadError: it was not added; see ``submit_many``.
        """
        # What has begun to be added is added, whoever hangs up meanwhile.
        view = await asyncio.shield(self._submit(job))
        return view if view.job.status.is_final else await self.wait(view.job.id, timeout_s)

    async def _accept_all(self, jobs: list[GenerationJob]) -> list[Accepted | Exception]:
        outcomes: list[Accepted | Exception] = await self._database(accept_all, self._queue, jobs)
        return outcomes

    def _require_license(self, job: GenerationJob) -> None:
        lane = self._lanes.get(job.model_name)
        problem = lane.info.problem if lane is not None else None
        if problem is not None and problem.get("type") == _LICENSE_PROBLEM:
            raise ModelUnavailableError(
                str(problem["detail"]), hint=problem.get("hint"), details={"model": job.model_name}
            )

    async def get(self, job_id: str) -> JobView:
        """Return a job as it is now.

        Raises:
            JobNotFoundError: no such job.
        """
        return await self._view(await self._job(job_id))

    async def _job(self, job_id: str) -> GenerationJob:
        job: GenerationJob | None = await self._database(self._queue.get_job, job_id)
        if job is None:
            raise JobNotFoundError(f"There is no job {job_id!r}.", hint="Check the id.")
        return job

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
        status = await self._database(cancel, self._queue, job_id)
        if status is JobStatus.RUNNING and (run := self._find_run(job_id)) is not None:
            run.stop()
        self._watchers.changed(job_id)
        return await self.get(job_id)

    async def wait(self, job_id: str, timeout_s: float) -> JobView:
        """Return the job once it has ended, or after ``timeout_s`` seconds as it then is."""
        deadline = time.monotonic() + timeout_s
        with self._watching(job_id) as changed:
            while True:
                changed.clear()
                left = deadline - time.monotonic()
                # While it is at work here its progress is no news: the database need not be asked.
                if self._find_run(job_id) is None or left <= 0:
                    job = await self._job(job_id)
                    if job.status.is_final or left <= 0:
                        return await self._view(job)
                await wait_for(changed, min(left, 1.0))

    async def cluster(self) -> dict[str, Any]:
        """Return nodes, slots, queue depth by model and priority, loads, and what is paused."""
        switches = await self.switches()
        depth = await self._database(self._queue.depth)
        return {
            "paused": switches.all_paused,
            "paused_models": list(switches.models),
            "draining": switches.draining,
            "models": {name: lane.facts() for name, lane in self._lanes.items()},
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

    def _watching(self, job_id: str) -> Watch:
        return self._watchers.watch(job_id)

    async def _until_begun(self, jobs: list[GenerationJob]) -> None:
        level_of: dict[str, int] = {}
        for job in jobs:
            level_of[job.model_name] = max(level_of.get(job.model_name, 0), job.priority.value)
        for name, level in level_of.items():
            if name in self._lanes:
                await until_begun(self._lanes[name].runs.values(), level)

    def _wake_all(self) -> None:
        for lane in self._lanes.values():
            lane.wake()

    async def _view(self, job: GenerationJob) -> JobView:
        if job.status is not JobStatus.PENDING:
            return self._live_view(job)
        position = await self._database(self._queue.position, job, limit=POSITION_LIMIT)
        return self._view_at(job, position)

    def _view_at(self, job: GenerationJob, position: int | None) -> JobView:
        if position is None:
            return self._live_view(job)
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

    async def _database(self, verb: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
        """Call a method of the queue in the one thread that owns the database."""
        return await self._thread(verb, *args, **kwargs)
