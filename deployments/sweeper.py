"""What a router does on a timer: leases, ageing, giving up, expiry of results."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Mapping

from deployments.database_thread import DatabaseThread
from deployments.endings import give_up_overdue, take_back_expired
from deployments.joblog import job_fields
from deployments.jobrun import JobRun
from deployments.lane import Lane
from deployments.metrics import RouterMetrics
from deployments.workfolder import work_store
from dream_cad.artifacts import ArtifactStore
from dream_cad.exceptions import DreamCadError, JobNotFoundError, JobStateError, StorageError

logger = logging.getLogger(__name__)

_BEATS_PER_LEASE = 3
_LONGEST_BEAT_S = 5.0
_CLEAN_EVERY_S = 60.0


class Sweeper:
    """The timers of one router.

    Args:
        database: the queue's thread.
        lanes: by model.
        artifacts: where results are.
        metrics: what is shown.
        lease_s: how long a claim holds.
        keep_records_s: records of ended jobs without a result are deleted after so long.
        on_change: called with the id of a job that changed.
    """

    def __init__(
        self,
        database: DatabaseThread,
        lanes: Mapping[str, Lane],
        artifacts: ArtifactStore,
        metrics: RouterMetrics,
        *,
        lease_s: float,
        keep_records_s: float,
        on_change: Callable[[str], None],
    ) -> None:
        self._database = database
        self._lanes = lanes
        self._artifacts = artifacts
        self._metrics = metrics
        self._beat_s = min(lease_s / _BEATS_PER_LEASE, _LONGEST_BEAT_S)
        self._keep_records_s = keep_records_s
        self._on_change = on_change

    async def beat(self) -> None:
        """Extend the leases of what runs, and let time act on what waits; for ever."""
        while True:
            await asyncio.sleep(self._beat_s)
            try:
                await self._extend_all()
                await self._sweep()
            except StorageError as error:
                logger.error("the queue cannot be kept: %s", error)
            for lane in self._lanes.values():
                lane.wake()

    async def clean(self) -> None:
        """Delete expired results and old records; for ever."""
        while True:
            await asyncio.sleep(_CLEAN_EVERY_S)
            try:
                await self.clean_once()
            except DreamCadError as error:
                logger.error("expired results cannot be deleted: %s", error)

    async def clean_once(self) -> int:
        """Delete what has expired by now; returns the number of results."""
        queue = self._database.queue
        expired = await self._database(queue.expired_results)
        for job in expired:
            # The files first: after a crash in between, the record leads to them again.
            await asyncio.to_thread(self._artifacts.delete, job.artifact_uri)
            await self._database(queue.forget_result, job.id)
            logger.info("result expired", extra=job_fields(job))
        await self._clean_work()
        await self._database(queue.prune, self._keep_records_s)
        return len(expired)

    async def _clean_work(self) -> None:
        """Delete the working folders of jobs that have ended, however they did."""
        work = work_store(self._artifacts)
        for job_id in await asyncio.to_thread(work.keys):
            job = await self._database(self._database.queue.get_job, job_id)
            if job is None or job.status.is_final:
                await asyncio.to_thread(work.delete, job_id)

    async def _sweep(self) -> None:
        queue = self._database.queue
        for job in await self._database(take_back_expired, queue):
            logger.warning("lease lapsed", extra={**job_fields(job), "status": job.status.value})
            self._on_change(job.id)
        for job in await self._database(give_up_overdue, queue):
            logger.info("job gave up waiting", extra=job_fields(job))
            self._on_change(job.id)
        await self._database(queue.age)
        running = {name: len(lane.runs) for name, lane in self._lanes.items()}
        self._metrics.show_queue(await self._database(queue.depth), running)

    async def _extend_all(self) -> None:
        for lane in self._lanes.values():
            for run in list(lane.runs.values()):
                await self._extend(lane, run)

    async def _extend(self, lane: Lane, run: JobRun) -> None:
        job = run.job
        try:
            is_cancelled = await self._database(
                self._database.queue.report_progress,
                job.id,
                job.lease_token,
                job.progress,
                job.stage,
            )
        except (JobStateError, JobNotFoundError):
            if lane.runs.get(job.id) is run:
                run.abandon()
            return
        if is_cancelled:
            run.stop()
