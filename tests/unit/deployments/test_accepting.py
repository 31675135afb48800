from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from deployments.accepting import Accepted, accept_all
from dream_cad.exceptions import IdempotencyConflictError, InvalidConfigError, QueueFullError
from dream_cad.queue import GenerationJob, JobQueue, JobStatus


@pytest.fixture
def queue(tmp_path: Path) -> Iterator[JobQueue]:
    queue = JobQueue(f"sqlite:///{tmp_path}/jobs.sqlite3")
    yield queue
    queue.close()


def new(**fields: Any) -> GenerationJob:
    return GenerationJob(**{"prompt": "a cube", "model_name": "echo", **fields})


def accept(queue: JobQueue, *jobs: GenerationJob) -> list[Any]:
    return list(accept_all(queue, jobs))


def test_jobs_that_come_together_stand_in_line_in_order(queue: JobQueue) -> None:
    accepted = accept(queue, *(new() for _ in range(3)))
    assert [one.position for one in accepted] == [1, 2, 3]
    assert queue.count(JobStatus.PENDING) == 3


def test_a_bad_job_fails_alone(queue: JobQueue) -> None:
    queue.add_job(new(idempotency_key="used", request_hash="one"))
    outcomes = accept(
        queue, new(), new(prompt=" "), new(idempotency_key="used", request_hash="two"), new()
    )
    kinds = [type(outcome) for outcome in outcomes]
    assert kinds == [Accepted, InvalidConfigError, IdempotencyConflictError, Accepted]


def test_the_same_job_again_is_the_one_that_is_there(queue: JobQueue) -> None:
    job = new()
    (first,) = accept(queue, job)
    other, again = accept(queue, new(), new(id=job.id))
    assert (again.job.id, again.job.seq) == (first.job.id, first.job.seq)
    assert other.job.id != job.id
    assert queue.count(JobStatus.PENDING) == 2


def test_a_known_result_completes_a_job_at_once(queue: JobQueue) -> None:
    source = new(cache_key="k")
    queue.add_job(source)
    claimed = queue.get_next_job()
    assert claimed is not None
    assert claimed.lease_token is not None
    queue.complete(claimed.id, claimed.lease_token, "results/1")
    cached, anew, other = accept(
        queue, new(cache_key="k"), new(cache_key="k", policy={"use_cache": False}), new()
    )
    assert (cached.job.status, cached.job.cached_from) == (JobStatus.COMPLETED, source.id)
    assert cached.position is None
    assert {one.job.status for one in (anew, other)} == {JobStatus.PENDING}


def test_a_keys_limit_holds_within_a_group(queue: JobQueue) -> None:
    key, _ = queue.keys.create_key("studio", max_pending=2)
    outcomes = accept(queue, *(new(owner=key.id) for _ in range(4)), new())
    assert [type(outcome) for outcome in outcomes] == [
        *[Accepted] * 2,
        *[QueueFullError] * 2,
        Accepted,
    ]
