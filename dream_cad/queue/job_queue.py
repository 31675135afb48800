"""The job queue that models, servers and scripts see."""

from __future__ import annotations

import math
import time
from collections.abc import Collection

from dream_cad.exceptions import LeaseLostError
from dream_cad.queue.adding import Adding, parse_cursor
from dream_cad.queue.jobs import (
    LEGAL_TRANSITIONS,
    Depth,
    GenerationJob,
    JobEvent,
    JobFilter,
    JobPage,
    JobStatus,
)
from dream_cad.queue.problems import FAILED_BY_CALLER, illegal_transition, job_not_found
from dream_cad.queue.schema import condition, jobs
from dream_cad.queue.state import Switches, with_drain, with_pause
from dream_cad.queue.working import Working

_WAIT_POLL_S = 0.05
_JOBS_AVERAGED = 20
_JOBS_LOOKED_AT = 500


class JobQueue(Adding, Working):
    """A durable queue of generation jobs; safe to use from several threads.

    A job added is on disk when the call returns. A claim leases it: whoever holds the lease
    token reports progress (which extends the lease) and ends it; a lease that lapses puts the
    job back, up to its ``max_attempts``. A job therefore may be *worked on* more than once, but
    has one result.

    Args:
        database_url: SQLAlchemy URL; by default DREAM_CAD_DATABASE_URL or SQLite in output_dir.
        lease_s: seconds a claim holds without a sign of life.
        max_pending: refuse jobs beyond so many waiting ones; None for no limit.
        ageing_s: seconds of waiting after which a job's level rises by one.
        result_ttl_s: seconds after which results may be deleted; None for never.
        result_loader: makes the ``result`` of a completed job.
        clock: seconds since the epoch; by default one that no step of the wall clock moves.

    Attributes:
        database_url: the URL of its database.
        lease_s: see the arguments.
        keys: API keys (KeyStore).
        webhooks: the outbox of webhooks (WebhookStore).
        licenses: accepted licences (LicenseStore).
        memory: measured memory peaks (MemoryStore).
    """

    # Cancelling and setting the state

    def cancel(self, job_id: str) -> JobStatus:
        """Cancel a job: at once if it waits, at its next step if it runs.

        Cancelling an ended job changes nothing.

        Returns:
            The state now; RUNNING means that the worker will stop at its next step.

        Raises:
            JobNotFoundError: no such job.
        """
        # It may be claimed or put back between two looks; each round sees at least one change.
        while True:
            if (job := self._store.cancel_pending(job_id, self._clock())) is not None:
                break
            if (job := self._store.request_cancel(job_id, self._clock())) is not None:
                break
            job = self.get_job(job_id)
            if job is None:
                raise job_not_found(job_id)
            if job.status.is_final:
                return job.status
        self._notify()
        return job.status

    def update_job_status(self, job_id: str, status: JobStatus) -> None:
        """Move a job to another state, as a worker that uses this queue object.

        Raises:
            JobNotFoundError: no such job.
            JobStateError: the state does not follow the present one.
            LeaseLostError: the job runs, but was not claimed through this object.
        """
        job = self.get_job(job_id)
        if job is None:
            raise job_not_found(job_id)
        if status not in LEGAL_TRANSITIONS[job.status]:
            raise illegal_transition(job, status)
        if job.status is JobStatus.RUNNING:
            self._leave_running(job, status)
        elif not self._leave_pending(job, status):
            raise illegal_transition(self.get_job(job_id) or job, status)
        self._notify()

    def _leave_pending(self, job: GenerationJob, status: JobStatus) -> bool:
        if status is JobStatus.RUNNING:
            return self.claim_job(job.id) is not None
        if status is JobStatus.CANCELLED:
            return self._store.cancel_pending(job.id, self._clock()) is not None
        return self._store.fail_pending(job.id, self._clock(), FAILED_BY_CALLER)

    def _leave_running(self, job: GenerationJob, status: JobStatus) -> None:
        token = self._held.get(job.id)
        if token is None:
            raise LeaseLostError(
                f"Job {job.id} was not claimed through this queue object.",
                hint="Only the worker that claimed a job may move it.",
            )
        if status is JobStatus.PENDING:
            self.retry(job.id, token, FAILED_BY_CALLER)
        elif status is JobStatus.FAILED:
            self.fail(job.id, token, FAILED_BY_CALLER)
        else:
            self._finish(job.id, token, status)

    # Switches

    def pause(self, model_name: str | None = None) -> None:
        """Let no job start, or none of one model; running ones go on. Survives restarts."""
        self._state.change(with_pause(model_name, True))

    def resume(self, model_name: str | None = None) -> None:
        """Undo ``pause`` with the same argument."""
        self._state.change(with_pause(model_name, False))
        self._notify()

    def is_paused(self, model_name: str | None = None) -> bool:
        """Return whether everything, or this model, is paused."""
        switches = self._state.read()
        return switches.all_paused or model_name in switches.models

    def drain(self) -> None:
        """Start nothing more, so that the servers can be replaced; jobs are still accepted."""
        self._state.change(with_drain(True))

    def undrain(self) -> None:
        """End draining: jobs start again."""
        self._state.change(with_drain(False))
        self._notify()

    def switches(self) -> Switches:
        """Return what is paused, and whether the queue drains."""
        return self._state.read()

    # Looking

    def get_job(self, job_id: str) -> GenerationJob | None:
        """Return a job, or None if there is none of that id."""
        job = self._store.get(job_id)
        return self._bound(job) if job is not None else None

    def get_job_status(self, job_id: str) -> JobStatus | None:
        """Return the state of a job, or None if there is none of that id."""
        job = self._store.get(job_id)
        return job.status if job is not None else None

    def list_jobs(
        self, wanted: JobFilter | None = None, *, cursor: str | None = None, limit: int = 50
    ) -> JobPage:
        """Return a page of jobs, newest first.

        Raises:
            InvalidConfigError: the cursor is not one that a page gave.
        """
        before = None if cursor is None else parse_cursor(cursor)
        found = self._listing.list_jobs(wanted or JobFilter(), before, limit + 1)
        page = [self._bound(job) for job in found[:limit]]
        return JobPage(page, str(page[-1].seq) if len(found) > limit else None)

    def find_cached(self, cache_key: str) -> GenerationJob | None:
        """Return the newest completed job of a cache key whose result is still there."""
        return self.find_cached_all([cache_key]).get(cache_key)

    def find_cached_all(self, cache_keys: Collection[str]) -> dict[str, GenerationJob]:
        """Return the newest completed job of each cache key that has a result."""
        found = self._listing.cached(cache_keys, self._clock())
        return {key: self._bound(job) for key, job in found.items()}

    def count(self, status: JobStatus, model_name: str | None = None) -> int:
        """Return the number of jobs in a state."""
        wanted = [condition(f"status = '{status.value}'")]
        if model_name is not None:
            return self._store.count(*wanted, jobs.c.model_name == model_name)
        return self._store.count(*wanted)

    def depth(self) -> list[Depth]:
        """Return how many jobs can start, by model and level, and since when the oldest waits."""
        return self._listing.depth()

    def count_waiting(self, model_name: str, *, limit: int = 1000) -> int:
        """Return how many jobs of a model can start, counting no further than ``limit``."""
        return self._listing.count_waiting(model_name, limit)

    def mean_seconds(self, model_name: str) -> float | None:
        """Return the mean seconds that a model's latest jobs took; None if none ended lately."""
        return self._listing.mean_seconds(model_name, _JOBS_AVERAGED, _JOBS_LOOKED_AT)

    @property
    def releases(self) -> int:
        """How often the end of a job through this object let others start that waited for it."""
        return self._store.releases

    def asked_to_stop(self) -> list[str]:
        """Return the ids of the running jobs that were asked to stop."""
        return self._listing.asked_to_stop()

    def position(self, job: GenerationJob, *, limit: int | None = None) -> int | None:
        """Return a pending job's place in its model's line by level and age; None otherwise.

        Fair shares can serve it earlier or later than its place says.

        Args:
            job: the job.
            limit: count no further, which bounds the time in a deep queue.
        """
        if job.status is not JobStatus.PENDING:
            return None
        return self._listing.count_before(job, limit) + 1

    def events_after(self, job_id: str, seq: int = 0, *, limit: int = 1000) -> list[JobEvent]:
        """Return a job's changes of state with a number above ``seq``, in order."""
        return self._listing.events_after(job_id, seq, limit)

    def wait(self, job_id: str, timeout_s: float | None = None) -> GenerationJob:
        """Block until a job has ended, or the time is over, and return it as it then is.

        Raises:
            JobNotFoundError: no such job.
        """
        deadline = None if timeout_s is None else time.monotonic() + timeout_s
        while True:
            with self._changed:
                job = self.get_job(job_id)
                if job is None:
                    raise job_not_found(job_id)
                left = math.inf if deadline is None else deadline - time.monotonic()
                if job.status.is_final or left <= 0:
                    return job
                # Other processes cannot notify us: look again after a while in any case.
                self._changed.wait(min(left, _WAIT_POLL_S))
