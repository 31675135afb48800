from __future__ import annotations

import pytest

from dream_cad.exceptions import (
    IdempotencyConflictError,
    InvalidConfigError,
    JobNotFoundError,
    QueueFullError,
)
from dream_cad.queue import GenerationJob, JobQueue, JobStatus
from tests.unit.queue.conftest import MakeQueue, claim, make_job

PROBLEM = {"type": "generation-failed", "detail": "no"}


def jobs_of(*prompts: str) -> list[GenerationJob]:
    return [make_job(prompt) for prompt in prompts]


def test_a_batch_is_one_object(queue: JobQueue) -> None:
    batch_id = queue.add_batch(jobs_of("a", "b", "c"), owner="k1", name="chairs")
    job, token = claim(queue)
    queue.complete(job.id, token, "key")
    batch = queue.get_batch(batch_id)
    assert batch is not None
    assert (batch.name, batch.owner, batch.total, batch.paused) == ("chairs", "k1", 3, False)
    assert batch.counts[JobStatus.COMPLETED] == 1
    assert batch.counts[JobStatus.PENDING] == 2
    assert batch.counts[JobStatus.FAILED] == 0
    assert queue.get_batch("nobody") is None


def test_items_come_in_order_by_pages(queue: JobQueue) -> None:
    batch_id = queue.add_batch(jobs_of(*"abcde"), owner="k1")
    first = queue.list_batch(batch_id, limit=3)
    second = queue.list_batch(batch_id, first.next_cursor, limit=3)
    assert [job.prompt for job in first.jobs + second.jobs] == list("abcde")
    assert [job.batch_index for job in second.jobs] == [3, 4]
    assert second.next_cursor is None
    assert {job.owner for job in first.jobs} == {"k1"}
    with pytest.raises(InvalidConfigError):
        queue.list_batch(batch_id, "x")


def test_a_paused_batch_rests_and_others_go_on(queue: JobQueue) -> None:
    batch_id = queue.add_batch(jobs_of("a", "b"))
    other = queue.add_job(make_job("other"))
    queue.pause_batch(batch_id)
    assert claim(queue)[0].id == other
    assert queue.get_next_job() is None
    queue.resume_batch(batch_id)
    assert claim(queue)[0].prompt == "a"


def test_cancelling_a_batch_leaves_other_jobs_alone(queue: JobQueue) -> None:
    batch_id = queue.add_batch(jobs_of("a", "b", "c", "d"), owner="k1")
    done, token = claim(queue)
    queue.complete(done.id, token, "key")
    running, token = claim(queue)
    other = queue.add_job(make_job("other"))
    concerned = {job.prompt: job.status for job in queue.cancel_batch(batch_id)}
    cancelled = JobStatus.CANCELLED
    assert concerned == {"b": JobStatus.RUNNING, "c": cancelled, "d": cancelled}
    assert queue.report_progress(running.id, token)
    assert queue.get_job_status(done.id) is JobStatus.COMPLETED
    assert queue.get_job_status(other) is JobStatus.PENDING
    assert [job.prompt for job in queue.cancel_batch(batch_id)] == ["b"]
    queue.confirm_cancelled(running.id, token)
    assert queue.cancel_batch(batch_id) == []
    with pytest.raises(JobNotFoundError):
        queue.cancel_batch("nobody")


def test_retrying_replaces_the_failed_ones(queue: JobQueue) -> None:
    batch_id = queue.add_batch(jobs_of("a", "b", "c"), owner="k1")
    for _ in range(2):
        job, token = claim(queue)
        queue.fail(job.id, token, PROBLEM)
    fresh = queue.retry_failed(batch_id)
    items = queue.list_batch(batch_id).jobs
    assert [job.id for job in items[:2]] == fresh
    assert [job.prompt for job in items] == ["a", "b", "c"]
    assert all((job.status, job.attempts) == (JobStatus.PENDING, 0) for job in items)
    batch = queue.get_batch(batch_id)
    assert batch is not None
    assert batch.counts[JobStatus.FAILED] == 0
    old = queue.get_job(job.id)
    assert old is not None
    assert (old.status, old.superseded, old.batch_id) == (JobStatus.FAILED, True, batch_id)
    assert queue.retry_failed(batch_id) == []


def test_a_repeated_retry_adds_nothing_and_answers_the_same(queue: JobQueue) -> None:
    batch_id = queue.add_batch(jobs_of("a", "b", "c"), owner="k1")
    other = queue.add_batch(jobs_of("d"), owner="k1")
    assert queue.retry_failed(batch_id, "key", "hash") == []  # not remembered: nothing was made
    for _ in range(2):
        job, token = claim(queue)
        queue.fail(job.id, token, PROBLEM)
    fresh = queue.retry_failed(batch_id, "key", "hash")
    assert len(fresh) == 2
    job, token = claim(queue)
    queue.fail(job.id, token, PROBLEM)
    assert queue.retry_failed(batch_id, "key", "hash") == fresh
    for batch in (batch_id, other):
        with pytest.raises(IdempotencyConflictError):
            queue.retry_failed(batch, "key", "hash of another request")
    (later,) = queue.retry_failed(batch_id, "new key", "new hash")
    assert later not in fresh
    assert queue.retry_failed(batch_id, "key", "hash") == fresh


def test_retried_jobs_of_a_paused_batch_rest_too(queue: JobQueue) -> None:
    batch_id = queue.add_batch(jobs_of("a"))
    job, token = claim(queue)
    queue.fail(job.id, token, PROBLEM)
    queue.pause_batch(batch_id)
    assert len(queue.retry_failed(batch_id)) == 1
    assert queue.get_next_job() is None


def test_bad_batches_are_refused(make_queue: MakeQueue) -> None:
    queue = make_queue(max_pending=3)
    with pytest.raises(InvalidConfigError):
        queue.add_batch([])
    with pytest.raises(InvalidConfigError):
        queue.add_batch(jobs_of("a", ""))
    with pytest.raises(InvalidConfigError):
        queue.add_batch(jobs_of("a"), name="n" * 201)
    with pytest.raises(QueueFullError):
        queue.add_batch(jobs_of(*"abcd"))
    with pytest.raises(QueueFullError, match="of this key"):
        queue.add_batch(jobs_of("a", "b"), owner="k1", max_pending=1)
    assert queue.list_jobs().jobs == []
    for verb in (queue.pause_batch, queue.resume_batch, queue.retry_failed):
        with pytest.raises(JobNotFoundError, match="batch"):
            verb("nobody")  # type: ignore[operator]


def test_ten_thousand_items_are_one_transaction(queue: JobQueue) -> None:
    batch_id = queue.add_batch([make_job(str(number)) for number in range(10_000)])
    batch = queue.get_batch(batch_id)
    assert batch is not None
    assert batch.counts[JobStatus.PENDING] == batch.total == 10_000


def test_a_batch_shares_the_newest_result_of_each_key(queue: JobQueue) -> None:
    for key in ("k1", "k1", "k2"):
        queue.add_job(make_job(cache_key=key))
        job, token = claim(queue)
        queue.complete(job.id, token, f"results/{job.id}")
    newest = queue.find_cached_all(["k1", "k2", "k3"])
    assert sorted(newest) == ["k1", "k2"]
    assert newest["k1"].seq == 2
    batch_id = queue.add_batch(
        [make_job(cache_key=key) for key in ("k1", "k3", "k2")], sources=newest
    )
    jobs = queue.list_batch(batch_id).jobs
    assert [job.status.value for job in jobs] == ["completed", "pending", "completed"]
    assert jobs[0].artifact_uri == newest["k1"].artifact_uri


def test_the_first_jobs_key_stands_for_the_batch(queue: JobQueue) -> None:
    def jobs(request_hash: str) -> list[GenerationJob]:
        first = make_job(idempotency_key="key", request_hash=request_hash)
        return [first, make_job()]

    batch_id = queue.add_batch(jobs("one"))
    assert queue.add_batch(jobs("one")) == batch_id
    assert queue.count(JobStatus.PENDING) == 2
    with pytest.raises(IdempotencyConflictError):
        queue.add_batch(jobs("another"))
