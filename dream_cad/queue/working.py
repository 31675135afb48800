"""The verbs of JobQueue that workers and timers use."""

from __future__ import annotations

import math
from collections.abc import Collection
from typing import Any

from sqlalchemy import ColumnElement

from dream_cad.exceptions import InvalidConfigError, JobNotFoundError, LeaseLostError
from dream_cad.queue.base import QueueBase
from dream_cad.queue.claim import Lease, Wanted
from dream_cad.queue.jobs import GenerationJob, JobPriority, JobStatus, new_job_id
from dream_cad.queue.problems import (
    DEADLINE_PASSED,
    SERVER_RESTARTED,
    WAIT_EXPIRED,
    WORKER_LOST,
    Problem,
    job_not_found,
)
from dream_cad.queue.store import any_running, expired_at, held_by

_LONGEST_BACKOFF_S = 600.0
_AGED_AT_ONCE = 1000


class Working(QueueBase):
    """Claiming jobs, reporting on them, and what time does to them."""

    def get_next_job(
        self,
        model_name: str | None = None,
        *,
        above_priority: JobPriority | int | None = None,
        owners: Collection[str] | None = None,
        prefer_model: str | None = None,
        estimate_s: float = 1.0,
    ) -> GenerationJob | None:
        """Claim the best pending job: the most urgent level, its least-served owner, the oldest.

        Level is the priority, raised by waiting (see ``age``). Nothing is claimed while the queue
        is paused or draining; paused models and batches, jobs that wait for others, and jobs whose
        next attempt is not due are passed over.

        Args:
            model_name: only jobs of this model.
            above_priority: only jobs of a higher level than this.
            owners: only jobs of these owners.
            prefer_model: among equal levels, this model's jobs first, for a worker that has it.
            estimate_s: GPU-seconds that the owner is charged until the work was measured.

        Returns:
            The job, running, with a fresh ``lease_token``; None if nothing waits.
        """
        above = above_priority.value if isinstance(above_priority, JobPriority) else above_priority
        floor = 0 if above is None else above + 1
        wanted = Wanted(model_name, floor, owners, prefer_model)
        return self._claimed(self._store.claim(wanted, self._new_lease(estimate_s)))

    def claim_job(self, job_id: str, *, estimate_s: float = 1.0) -> GenerationJob | None:
        """Claim a certain job whatever its place in the line; None if it is not pending."""
        return self._claimed(self._store.claim_one(job_id, self._new_lease(estimate_s)))

    def _new_lease(self, estimate_s: float) -> Lease:
        now = self._clock()
        return Lease(new_job_id(), now, now + self.lease_s, estimate_s)

    def _claimed(self, job: GenerationJob | None) -> GenerationJob | None:
        if job is None:
            return None
        if job.lease_token is not None:
            self._held[job.id] = job.lease_token
        self._notify()
        return self._bound(job)

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
        until = self._clock() + self.lease_s
        is_asked_to_stop = self._store.extend(job_id, token, until, progress, stage)
        if is_asked_to_stop is None:
            raise self._lease_lost(job_id)
        self._notify()
        return is_asked_to_stop

    def complete(
        self,
        job_id: str,
        token: str,
        artifact_uri: str | None = None,
        timings: dict[str, float] | None = None,
        *,
        gpu_seconds: float | None = None,
        peak_memory_bytes: int | None = None,
    ) -> None:
        """Record the result of a job.

        Args:
            job_id: the job.
            token: proof of the claim.
            artifact_uri: where the result was published.
            timings: seconds by stage.
            gpu_seconds: measured; corrects what the owner was charged. None keeps the estimate.
            peak_memory_bytes: GPU memory used at most.

        Raises:
            LeaseLostError: the job is no longer the caller's; the result must be thrown away.
        """
        ttl = self._result_ttl_s
        self._finish(
            job_id,
            token,
            JobStatus.COMPLETED,
            gpu_seconds,
            artifact_uri=artifact_uri,
            timings=timings or {},
            peak_memory_bytes=peak_memory_bytes,
            expires_at=None if ttl is None or artifact_uri is None else self._clock() + ttl,
            problem=None,
        )

    def fail(
        self, job_id: str, token: str, problem: Problem, *, gpu_seconds: float | None = None
    ) -> None:
        """Record a failure that trying again would not mend; see ``complete``."""
        self._finish(job_id, token, JobStatus.FAILED, gpu_seconds, problem=problem)

    def confirm_cancelled(
        self, job_id: str, token: str, *, gpu_seconds: float | None = None
    ) -> None:
        """Record that the work on a job has stopped as asked; see ``complete``."""
        self._finish(job_id, token, JobStatus.CANCELLED, gpu_seconds)

    def retry(
        self,
        job_id: str,
        token: str,
        problem: Problem,
        delay_s: float = 0.0,
        *,
        gpu_seconds: float | None = None,
    ) -> JobStatus:
        """Put a job back after a failure that another attempt may mend.

        Args:
            job_id: the job.
            token: proof of the claim.
            problem: why this attempt failed.
            delay_s: seconds before the next attempt may start, at most 600.
            gpu_seconds: what this attempt cost; its owner is charged that instead of the
                estimate. None keeps the estimate until the job has ended.

        Returns:
            PENDING, or FAILED if no attempt is left, or CANCELLED if it was asked to stop.

        Raises:
            LeaseLostError: the job is no longer the caller's.
        """
        taken_back = self._requeue(held_by(job_id, token), problem, delay_s, gpu_seconds)
        if not taken_back:
            raise self._lease_lost(job_id)
        return taken_back[0].status

    def _finish(
        self,
        job_id: str,
        token: str,
        status: JobStatus,
        gpu_seconds: float | None = None,
        **values: Any,
    ) -> None:
        if not self._store.finish(job_id, token, status, self._clock(), gpu_seconds, **values):
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
        self._sweeps.unstick(self._clock() + _LONGEST_BACKOFF_S)
        return self._requeue(any_running(), SERVER_RESTARTED)

    def hold_dispatch(self) -> bool:
        """Become or stay the one dispatcher of this queue; call it every second or so.

        Returns:
            Whether this object is it. SQLite: always, since its owner is alone.

        Raises:
            StorageError: the database does not answer; see ``DispatchLock.hold``.
        """
        return self._dispatch_lock.hold()

    def succeed(self, dispatcher: str) -> list[GenerationJob]:
        """Take back every job that another dispatcher left running; call it once it holds.

        Args:
            dispatcher: id of the caller; one that was the last already takes nothing back.
        """
        return self.recover() if self._dispatch.succeed(dispatcher) else []

    def newest_event(self) -> int:
        """Return the number of the newest change of state, to begin ``changed_since`` with."""
        return self._dispatch.newest_event()

    def changed_since(self, seq: int, *, limit: int = 1000) -> tuple[int, list[str]]:
        """Return the newest number and the ids of jobs whose state another process changed."""
        return self._dispatch.changed_since(seq, limit)

    def _requeue(
        self,
        which: ColumnElement[bool],
        problem: Problem,
        delay_s: float = 0.0,
        gpu_seconds: float | None = None,
    ) -> list[GenerationJob]:
        detail = f"{problem.get('detail', '')} No attempt is left."
        now = self._clock()
        not_before = now + min(delay_s, _LONGEST_BACKOFF_S) if delay_s > 0 else 0.0
        spent = {**problem, "detail": detail}
        taken_back = self._store.requeue(which, now, problem, spent, not_before, gpu_seconds)
        for job in taken_back:
            self._held.pop(job.id, None)
        if taken_back:
            self._notify()
        return taken_back

    def age(self) -> int:
        """Raise by one the level of jobs that waited ``ageing_s`` seconds at their present one.

        Call it regularly; each call raises up to 1,000 jobs and returns how many. A LOW job thus
        ranks with URGENT ones after three times ``ageing_s``, and is then served in its turn.
        """
        return self._sweeps.age(self._clock(), self._ageing_s, _AGED_AT_ONCE)

    def expire(self) -> list[GenerationJob]:
        """Fail the pending jobs that were to start or to end by now, and return them."""
        now = self._clock()
        failed = [
            job
            for column, problem in (("start_by", WAIT_EXPIRED), ("deadline", DEADLINE_PASSED))
            for job in self._store.change(self._sweeps.overdue(now, problem, column), now)
        ]
        if failed:
            self._notify()
        return failed

    def charge(self, owner: str, seconds: float) -> None:
        """Charge an owner GPU-seconds beyond its jobs' own (negative: give back)."""
        self._sweeps.charge(owner, seconds)

    def expired_results(self, limit: int = 100) -> list[GenerationJob]:
        """Return jobs whose results have expired and are shared with no job that still needs them.

        Delete each artifact first, then ``forget_result``: a crash between leaves a job to repeat.
        """
        return self._sweeps.expired_results(self._clock(), limit)

    def forget_result(self, job_id: str) -> bool:
        """Note that a job's artifact was deleted; False if it had none."""
        return self._sweeps.forget_result(job_id)

    def prune(self, older_than_s: float, limit: int = 1000) -> int:
        """Delete the records, events and deliveries of jobs that ended that long ago.

        Jobs that still have an artifact are kept. Returns how many were deleted.
        """
        return self._sweeps.prune(self._clock() - older_than_s, limit)
