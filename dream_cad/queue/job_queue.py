"""JobQueue: the durable priority queue that callers see."""

from __future__ import annotations

import math
import re
import threading
import time
from collections.abc import Callable, Sequence
from typing import Any

from sqlalchemy import ColumnElement

from dream_cad.exceptions import (
    IdempotencyConflictError,
    InvalidConfigError,
    JobNotFoundError,
    LeaseLostError,
    QueueFullError,
)
from dream_cad.queue.database import default_database_url, open_engine
from dream_cad.queue.jobs import (
    LEGAL_TRANSITIONS,
    GenerationJob,
    JobFilter,
    JobPage,
    JobPriority,
    JobStatus,
    new_job_id,
)
from dream_cad.queue.problems import (
    FAILED_BY_CALLER,
    SERVER_RESTARTED,
    WORKER_LOST,
    Problem,
    illegal_transition,
    job_not_found,
    validate_new_job,
)
from dream_cad.queue.store import JobStore, any_running, expired_at, held_by

_WAIT_POLL_S = 0.05
_RETRY_AFTER_S = 30.0


class JobQueue:
    """A durable queue of generation jobs; safe to use from several threads.

    A job added is on disk when the call returns. A claim leases it: whoever holds the lease
    token reports progress (which extends the lease) and ends it; a lease that lapses puts the
    job back, up to its ``max_attempts``. A job therefore may be *worked on* more than once, but
    has one result.

    Args:
        database_url: SQLAlchemy URL; by default DREAM_CAD_DATABASE_URL or SQLite in output_dir.
        lease_s: seconds a claim holds without a sign of life.
        max_pending: refuse jobs beyond so many waiting ones; None for no limit.
        clock: seconds since the epoch.
    """

    def __init__(
        self,
        database_url: str | None = None,
        *,
        lease_s: float = 30.0,
        max_pending: int | None = None,
        clock: Callable[[], float] = time.time,
    ) -> None:
        self._store = JobStore(open_engine(database_url or default_database_url()))
        self._lease_s = lease_s
        self._max_pending = max_pending
        self._clock = clock
        self._held: dict[str, str] = {}
        self._changed = threading.Condition()

    def close(self) -> None:
        """Close the database connections."""
        self._store.close()

    # Adding

    def add_job(self, job: GenerationJob) -> str:
        """Add a job and return its id.

        With an ``idempotency_key`` seen before, nothing is added and the first job's id comes
        back, provided that ``request_hash`` is the same.

        Raises:
            InvalidConfigError: the job has neither prompt nor input, or an unsafe or known id.
            IdempotencyConflictError: the key was used for another request.
            QueueFullError: ``max_pending`` jobs wait already.
        """
        validate_new_job(job)
        if (known := self._replay(job)) is not None:
            return known
        try:
            self._insert([job])
        except InvalidConfigError:
            # Another caller may have used the key since we looked.
            if (known := self._replay(job)) is not None:
                return known
            raise
        return job.id

    def create_batch(
        self,
        prompts: Sequence[str],
        model_name: str,
        *,
        priority: JobPriority = JobPriority.NORMAL,
        **kwargs: Any,
    ) -> list[str]:
        """Add one job a prompt, all or none, and return their ids in order.

        Args:
            prompts: the text prompts.
            model_name: the model to use.
            priority: urgency of all of them.
            **kwargs: generation options, the same for each.
        """
        batch_id = new_job_id()
        batch = [
            GenerationJob(
                prompt=prompt,
                model_name=model_name,
                config=dict(kwargs),
                priority=priority,
                batch_id=batch_id,
            )
            for prompt in prompts
        ]
        for job in batch:
            validate_new_job(job)
        if batch:
            self._insert(batch)
        return [job.id for job in batch]

    def _replay(self, job: GenerationJob) -> str | None:
        if job.idempotency_key is None:
            return None
        known = self._store.get_by_key(job.idempotency_key)
        if known is None:
            return None
        if known.request_hash != job.request_hash:
            raise IdempotencyConflictError(
                f"The idempotency key {job.idempotency_key!r} belongs to another request.",
                hint="Use a new key for a new request.",
                details={"job_id": known.id},
            )
        return known.id

    def _insert(self, new_jobs: list[GenerationJob]) -> None:
        depth = self._store.insert(new_jobs, self._max_pending)
        if depth is not None:
            raise QueueFullError(
                f"{depth} jobs wait and the limit is {self._max_pending}.",
                hint="Try again later.",
                details={"retry_after_s": _RETRY_AFTER_S, "pending": depth},
            )

    # Working

    def get_next_job(
        self, model_name: str | None = None, *, above_priority: JobPriority | None = None
    ) -> GenerationJob | None:
        """Claim the best pending job: highest priority first, the oldest of equals.

        Args:
            model_name: only jobs of this model.
            above_priority: only jobs more urgent than this.

        Returns:
            The job, running, with a fresh ``lease_token``; None if nothing waits.
        """
        return self._claim(
            model_name=model_name,
            above_priority=None if above_priority is None else above_priority.value,
        )

    def _claim(self, **wanted: Any) -> GenerationJob | None:
        now = self._clock()
        token = new_job_id()
        job = self._store.claim(token=token, now=now, lease_until=now + self._lease_s, **wanted)
        if job is not None:
            self._held[job.id] = token
            self._notify()
        return job

    def report_progress(
        self, job_id: str, token: str, progress: float | None = None, stage: str | None = None
    ) -> bool:
        """Extend the lease and note progress.

        Returns:
            Whether the job was asked to stop.

        Raises:
            LeaseLostError: the job is no longer the caller's.
            InvalidConfigError: ``progress`` is not in [0, 1].
        """
        if progress is not None and not (math.isfinite(progress) and 0.0 <= progress <= 1.0):
            raise InvalidConfigError(f"Progress must be in [0, 1], not {progress}.")
        until = self._clock() + self._lease_s
        job = self._store.extend(job_id, token, until, progress, stage)
        if job is None:
            raise self._lease_lost(job_id)
        self._notify()
        return job.cancel_requested

    def complete(
        self,
        job_id: str,
        token: str,
        artifact_uri: str | None = None,
        timings: dict[str, float] | None = None,
    ) -> None:
        """Record the result of a job.

        Raises:
            LeaseLostError: the job is no longer the caller's; the result must be thrown away.
        """
        self._finish(
            job_id,
            token,
            JobStatus.COMPLETED,
            artifact_uri=artifact_uri,
            timings=timings or {},
            problem=None,
        )

    def fail(self, job_id: str, token: str, problem: Problem) -> None:
        """Record a failure that trying again would not mend; see ``complete``."""
        self._finish(job_id, token, JobStatus.FAILED, problem=problem)

    def confirm_cancelled(self, job_id: str, token: str) -> None:
        """Record that the work on a job has stopped as asked; see ``complete``."""
        self._finish(job_id, token, JobStatus.CANCELLED)

    def retry(self, job_id: str, token: str, problem: Problem) -> JobStatus:
        """Put a job back after a failure that another attempt may mend.

        Returns:
            PENDING, or FAILED if no attempt is left, or CANCELLED if it was asked to stop.

        Raises:
            LeaseLostError: the job is no longer the caller's.
        """
        taken_back = self._requeue(held_by(job_id, token), problem)
        if not taken_back:
            raise self._lease_lost(job_id)
        return taken_back[0].status

    def _finish(self, job_id: str, token: str, status: JobStatus, **values: Any) -> None:
        job = self._store.finish(job_id, token, status, self._clock(), **values)
        if job is None:
            raise self._lease_lost(job_id)
        self._held.pop(job_id, None)
        self._notify()

    def _lease_lost(self, job_id: str) -> LeaseLostError | JobNotFoundError:
        self._held.pop(job_id, None)
        if self._store.get(job_id) is None:
            return job_not_found(job_id)
        return LeaseLostError(
            f"The lease on job {job_id} was lost; its result is not accepted.",
            hint="The job was given to another worker, or has ended.",
        )

    def requeue_expired(self) -> list[GenerationJob]:
        """Take back the jobs whose worker has given no sign of life for ``lease_s`` seconds."""
        return self._requeue(expired_at(self._clock()), WORKER_LOST)

    def recover(self) -> list[GenerationJob]:
        """Take back every running job: for a new owner whose predecessor is known to be dead."""
        return self._requeue(any_running(), SERVER_RESTARTED)

    def _requeue(self, which: ColumnElement[bool], problem: Problem) -> list[GenerationJob]:
        detail = f"{problem.get('detail', '')} No attempt is left."
        taken_back = self._store.requeue(
            which, self._clock(), problem, {**problem, "detail": detail}
        )
        for job in taken_back:
            self._held.pop(job.id, None)
        if taken_back:
            self._notify()
        return taken_back

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
            if (job := self._store.request_cancel(job_id)) is not None:
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
            return self._claim(job_id=job.id) is not None
        if status is JobStatus.CANCELLED:
            return self._store.cancel_pending(job.id, self._clock()) is not None
        return self._store.fail_pending(job.id, self._clock(), FAILED_BY_CALLER)

    def _leave_running(self, job: GenerationJob, status: JobStatus) -> None:
        token = self._held.get(job.id)
        if token is None:
            raise self._lease_lost(job.id)
        if status is JobStatus.PENDING:
            self.retry(job.id, token, FAILED_BY_CALLER)
        elif status is JobStatus.FAILED:
            self.fail(job.id, token, FAILED_BY_CALLER)
        else:
            self._finish(job.id, token, status)

    # Looking

    def get_job(self, job_id: str) -> GenerationJob | None:
        """Return a job, or None if there is none of that id."""
        return self._store.get(job_id)

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
        before = None
        if cursor is not None:
            if not re.fullmatch(r"[0-9]{1,18}", cursor):
                raise InvalidConfigError(
                    "The cursor is not valid.", hint="Pass next_cursor of the page before."
                )
            before = int(cursor)
        found = self._store.list_jobs(wanted or JobFilter(), before, limit + 1)
        page = found[:limit]
        return JobPage(page, str(page[-1].seq) if len(found) > limit else None)

    def count(self, status: JobStatus, model_name: str | None = None) -> int:
        """Return the number of jobs in a state."""
        return self._store.count(status, model_name)

    def position(self, job: GenerationJob) -> int | None:
        """Return a pending job's place in its model's line, 1 being next; None otherwise."""
        return self._store.count_before(job) + 1 if job.status is JobStatus.PENDING else None

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

    def _notify(self) -> None:
        with self._changed:
            self._changed.notify_all()
