"""Jobs that come together become durable together."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from deployments.endings import announce
from dream_cad.exceptions import DreamCadError, InvalidConfigError
from dream_cad.queue import GenerationJob, JobQueue

POSITION_LIMIT = 5000
"""Places in line are counted so far: counting a deep queue for each answer would cost too much."""


@dataclass(frozen=True)
class Accepted:
    """A job as it is once it is durable, and its place in line while it waits."""

    job: GenerationJob
    position: int | None


def accept_all(queue: JobQueue, new_jobs: Sequence[GenerationJob]) -> list[Accepted | Exception]:
    """Add unrelated jobs with one commit; each becomes a record or its own error, in order.

    A job whose result is known (same ``cache_key``) is completed at once. A job of a known id is
    not added again: a gateway that lost an answer asks twice.

    Raises:
        StorageError: the database failed; nothing was added.
    """
    limits = _limits(queue, {job.owner for job in new_jobs})
    keys = {key for job in new_jobs if (key := _cache_key(job)) is not None}
    sources = queue.find_cached_all(keys) if keys else {}
    outcomes: dict[int, str | DreamCadError] = {}
    fresh: list[int] = []
    for index, job in enumerate(new_jobs):
        source = sources.get(_cache_key(job) or "")
        if source is None:
            fresh.append(index)
        else:
            outcomes[index] = _add_cached(queue, job, source)
    added = queue.add_each([new_jobs[index] for index in fresh], max_pending=limits)
    outcomes |= dict(zip(fresh, added, strict=True))
    with queue.grouped():
        return [_accepted(queue, job, outcomes[index]) for index, job in enumerate(new_jobs)]


def _cache_key(job: GenerationJob) -> str | None:
    return job.cache_key if job.policy.get("use_cache", True) else None


def _limits(queue: JobQueue, owners: set[str]) -> dict[str, int]:
    found = {owner: queue.keys.get(owner) for owner in owners if owner}
    return {
        owner: key.max_pending
        for owner, key in found.items()
        if key is not None and key.max_pending is not None
    }


def _add_cached(queue: JobQueue, job: GenerationJob, source: GenerationJob) -> str | DreamCadError:
    try:
        with queue.grouped():
            job_id = queue.add_cached(job, source)
            if (added := queue.get_job(job_id)) is not None:
                announce(queue, added)
    except DreamCadError as error:
        return error
    return job_id


def _accepted(
    queue: JobQueue, job: GenerationJob, outcome: str | DreamCadError
) -> Accepted | Exception:
    if isinstance(outcome, DreamCadError) and not isinstance(outcome, InvalidConfigError):
        return outcome
    found = queue.get_job(job.id if isinstance(outcome, DreamCadError) else outcome)
    if found is None:
        return outcome if isinstance(outcome, DreamCadError) else _gone(job)
    return Accepted(found, queue.position(found, limit=POSITION_LIMIT))


def _gone(job: GenerationJob) -> DreamCadError:
    return InvalidConfigError(f"The job {job.id} was deleted in the moment that it was added.")
