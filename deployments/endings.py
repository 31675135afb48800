"""The end of a job in the database: its state, and the webhook that tells of it, in one commit."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from deployments.messages import Failed, Finished
from deployments.webhooks import completion_message
from dream_cad.queue import GenerationJob, JobQueue, JobStatus


def announce(queue: JobQueue, job: GenerationJob) -> None:
    """Put the webhook of an ended job into the outbox, if its client asked for one."""
    url = job.policy.get("webhook")
    if url is None or not job.status.is_final:
        return
    event, body = completion_message(job)
    queue.webhooks.schedule(job, url, event, body)


def _ended(queue: JobQueue, job_id: str, verb: Callable[[], Any]) -> JobStatus:
    with queue.grouped():
        verb()
        job = queue.get_job(job_id)
        if job is None:
            return JobStatus.CANCELLED
        announce(queue, job)
        return job.status


def record_outcome(
    queue: JobQueue,
    job: GenerationJob,
    outcome: Finished | Failed,
    *,
    timings: dict[str, float],
    gpu_seconds: float,
    peak_memory_bytes: int | None,
    backoff_s: float,
) -> JobStatus:
    """Record how an attempt ended and return the job's state.

    Args:
        queue: the queue; call this in its thread.
        job: the job with its lease.
        outcome: of the attempt.
        timings: seconds by stage.
        gpu_seconds: what the job's owner is charged.
        peak_memory_bytes: GPU memory used at most, where it was measured.
        backoff_s: pause before another attempt, times the attempts so far.

    Raises:
        JobStateError: the lease was lost; the outcome is dropped.
        StorageError: the database is away.
    """
    token = job.lease_token or ""

    def record() -> JobStatus:
        if isinstance(outcome, Finished):
            queue.complete(
                job.id,
                token,
                outcome.key,
                timings,
                gpu_seconds=gpu_seconds,
                peak_memory_bytes=peak_memory_bytes,
            )
            return JobStatus.COMPLETED
        if outcome.is_cancelled:
            queue.confirm_cancelled(job.id, token, gpu_seconds=gpu_seconds)
            return JobStatus.CANCELLED
        if not outcome.is_retryable:
            queue.fail(job.id, token, outcome.problem, gpu_seconds=gpu_seconds)
            return JobStatus.FAILED
        return queue.retry(
            job.id, token, outcome.problem, backoff_s * job.attempts, gpu_seconds=gpu_seconds
        )

    if job.policy.get("webhook") is None:
        return record()
    return _ended(queue, job.id, record)


def cancel(queue: JobQueue, job_id: str) -> JobStatus:
    """Cancel a job: at once if it waits, else flag it; see ``JobQueue.cancel``."""
    before = queue.get_job_status(job_id)
    if before is not None and before.is_final:
        return before
    return _ended(queue, job_id, lambda: queue.cancel(job_id))


def add_batch(
    queue: JobQueue, jobs: list[GenerationJob], owner: str, name: str, max_pending: int | None
) -> str:
    """Add a batch; jobs whose result is known already end at once. Returns the batch's id."""
    keys = {
        job.cache_key
        for job in jobs
        if job.cache_key is not None and job.policy.get("use_cache", True)
    }
    with queue.grouped():
        batch_id = queue.add_batch(
            jobs,
            owner=owner,
            name=name,
            max_pending=max_pending,
            sources=queue.find_cached_all(keys),
        )
        for job in jobs:
            announce(queue, job)
    return batch_id


def take_over(queue: JobQueue, router_id: str) -> list[GenerationJob]:
    """Take back what an earlier router left running; see ``JobQueue.succeed``."""
    with queue.grouped():
        taken = queue.succeed(router_id)
        for job in taken:
            announce(queue, job)
    return taken


def cancel_batch(queue: JobQueue, batch_id: str) -> list[GenerationJob]:
    """Cancel all of a batch, see ``JobQueue.cancel_batch``, and announce what ended by it."""
    with queue.grouped():
        concerned = queue.cancel_batch(batch_id)
        for job in concerned:
            announce(queue, job)
    return concerned


def give_up_overdue(queue: JobQueue) -> list[GenerationJob]:
    """Fail the pending jobs that were to start or to end by now, and announce it."""
    with queue.grouped():
        failed = queue.expire()
        for job in failed:
            announce(queue, job)
    return failed


def take_back_expired(queue: JobQueue) -> list[GenerationJob]:
    """Take back jobs whose lease lapsed; those with no attempt left have failed."""
    with queue.grouped():
        taken = queue.requeue_expired()
        for job in taken:
            announce(queue, job)
    return taken
