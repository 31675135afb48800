from __future__ import annotations

import threading
from datetime import UTC, datetime

import pytest

from dream_cad.exceptions import (
    IdempotencyConflictError,
    InvalidConfigError,
    JobNotFoundError,
    JobStateError,
    LeaseLostError,
    QueueFullError,
)
from dream_cad.queue import (
    JobFilter,
    JobPriority,
    JobQueue,
    JobStatus,
)
from tests.unit.queue.conftest import FakeClock, MakeQueue, claim, make_job

PROBLEM = {"type": "worker-lost", "title": "Worker lost", "detail": "The worker died."}


def test_example_of_the_api_reference(queue: JobQueue) -> None:
    job_ids = queue.create_batch(
        ["chair", "table", "lamp"], model_name="triposr", priority=JobPriority.HIGH
    )
    assert len(set(job_ids)) == 3
    assert [queue.get_job_status(job_id) for job_id in job_ids] == [JobStatus.PENDING] * 3
    job = queue.get_next_job()
    assert job is not None
    assert (job.id, job.prompt, job.model_name) == (job_ids[0], "chair", "triposr")
    queue.update_job_status(job.id, JobStatus.COMPLETED)
    assert queue.get_job_status(job.id) is JobStatus.COMPLETED


def test_enum_values() -> None:
    assert {status.value for status in JobStatus} == {
        "pending", "running", "completed", "failed", "cancelled"
    }  # fmt: skip
    assert [priority.value for priority in JobPriority] == [0, 1, 2, 3]
    assert JobPriority.URGENT.value == 3


def test_every_field_survives_the_database(queue: JobQueue, clock: FakeClock) -> None:
    job = make_job(
        "ein Stuhl, 椅子",
        JobPriority.URGENT,
        config={"seed": 3, "nested": {"x": [1, 2.5, None]}},
        input_uri="abc-input",
        created_at=datetime.fromtimestamp(clock.now, UTC),
    )
    queue.add_job(job)
    stored = queue.get_job(job.id)
    assert stored is not None
    assert stored.seq == 1
    assert (stored.level, stored.changed_at) == (3, job.created_at)
    stored.seq = stored.level = stored.changed_at = None
    assert stored == job


def test_higher_priority_first_then_older(queue: JobQueue) -> None:
    order = [JobPriority.LOW, JobPriority.HIGH, JobPriority.URGENT, JobPriority.HIGH]
    for number, priority in enumerate(order):
        queue.add_job(make_job(str(number), priority))
    assert [claim(queue)[0].prompt for _ in order] == ["2", "1", "3", "0"]
    assert queue.get_next_job() is None


def test_claims_can_be_limited_to_a_model_and_a_priority(queue: JobQueue) -> None:
    queue.add_job(make_job("other", JobPriority.URGENT, model_name="trellis"))
    queue.add_job(make_job("mine", JobPriority.HIGH))
    assert queue.get_next_job("triposr", above_priority=JobPriority.HIGH) is None
    job = queue.get_next_job("triposr", above_priority=JobPriority.NORMAL)
    assert job is not None
    assert job.prompt == "mine"
    assert queue.get_next_job("triposr") is None


def test_a_claim_leases_the_job(queue: JobQueue, clock: FakeClock) -> None:
    queue.add_job(make_job())
    job, _ = claim(queue)
    assert job.status is JobStatus.RUNNING
    assert job.attempts == 1
    assert job.started_at == datetime.fromtimestamp(clock.now, UTC)
    assert job.lease_until == datetime.fromtimestamp(clock.now + 30, UTC)


def test_progress_extends_the_lease(queue: JobQueue, clock: FakeClock) -> None:
    queue.add_job(make_job())
    job, token = claim(queue)
    clock.now += 29
    assert queue.report_progress(job.id, token, 0.5, "decoding") is False
    clock.now += 29
    assert queue.requeue_expired() == []
    stored = queue.get_job(job.id)
    assert stored is not None
    assert (stored.progress, stored.stage) == (0.5, "decoding")


@pytest.mark.parametrize("progress", [-0.1, 1.1, float("nan"), float("inf")])
def test_progress_out_of_range_is_refused(queue: JobQueue, progress: float) -> None:
    queue.add_job(make_job())
    job, token = claim(queue)
    with pytest.raises(InvalidConfigError, match="Progress"):
        queue.report_progress(job.id, token, progress)


def test_completion_keeps_artifact_and_timings(queue: JobQueue) -> None:
    queue.add_job(make_job())
    job, token = claim(queue)
    queue.complete(job.id, token, f"{job.id}-1", {"model_s": 1.5})
    stored = queue.get_job(job.id)
    assert stored is not None
    assert stored.status is JobStatus.COMPLETED
    assert (stored.artifact_uri, stored.timings) == (f"{job.id}-1", {"model_s": 1.5})
    assert stored.progress == 1.0
    assert stored.completed_at is not None
    assert stored.lease_token is None


def test_a_late_worker_is_refused(queue: JobQueue, clock: FakeClock) -> None:
    queue.add_job(make_job())
    late, late_token = claim(queue)
    clock.now += 31
    assert [job.status for job in queue.requeue_expired()] == [JobStatus.PENDING]
    job, token = claim(queue)
    assert job.attempts == 2
    with pytest.raises(LeaseLostError):
        queue.complete(late.id, late_token, "late")
    with pytest.raises(LeaseLostError):
        queue.fail(late.id, late_token, PROBLEM)
    with pytest.raises(LeaseLostError):
        queue.report_progress(late.id, late_token, 0.9)
    queue.complete(job.id, token, "in-time")
    stored = queue.get_job(job.id)
    assert stored is not None
    assert stored.artifact_uri == "in-time"


def test_expired_leases_use_up_the_attempts(queue: JobQueue, clock: FakeClock) -> None:
    queue.add_job(make_job(max_attempts=2))
    claim(queue)
    clock.now += 31
    queue.requeue_expired()
    claim(queue)
    clock.now += 31
    (job,) = queue.requeue_expired()
    assert job.status is JobStatus.FAILED
    assert job.error == "The worker stopped reporting. No attempt is left."
    assert queue.get_next_job() is None


def test_retry_keeps_the_place_in_line(queue: JobQueue) -> None:
    first = queue.add_job(make_job("first"))
    queue.add_job(make_job("second"))
    job, token = claim(queue)
    assert queue.retry(job.id, token, PROBLEM) is JobStatus.PENDING
    stored = queue.get_job(first)
    assert stored is not None
    assert stored.error == "The worker died."
    assert stored.progress == 0.0
    assert claim(queue)[0].id == first


def test_a_completed_retry_forgets_the_earlier_problem(queue: JobQueue) -> None:
    queue.add_job(make_job())
    job, token = claim(queue)
    queue.retry(job.id, token, PROBLEM)
    job, token = claim(queue)
    queue.complete(job.id, token, "key")
    stored = queue.get_job(job.id)
    assert stored is not None
    assert stored.error is None


def test_restart_recovery_takes_running_jobs_back(make_queue: MakeQueue) -> None:
    before = make_queue()
    before.create_batch(["a", "b"], "triposr")
    job, token = claim(before)
    before.close()
    after = make_queue()
    assert [taken.id for taken in after.recover()] == [job.id]
    assert claim(after)[0].id == job.id
    with pytest.raises(LeaseLostError):
        before.complete(job.id, token, "from before the restart")


def test_cancel_while_pending_is_immediate(queue: JobQueue) -> None:
    job_id = queue.add_job(make_job())
    assert queue.cancel(job_id) is JobStatus.CANCELLED
    assert queue.get_next_job() is None
    assert queue.cancel(job_id) is JobStatus.CANCELLED


def test_cancel_while_running_flags_the_worker(queue: JobQueue) -> None:
    job_id = queue.add_job(make_job())
    job, token = claim(queue)
    assert queue.cancel(job_id) is JobStatus.RUNNING
    assert queue.report_progress(job.id, token, 0.4) is True
    queue.confirm_cancelled(job.id, token)
    assert queue.get_job_status(job_id) is JobStatus.CANCELLED


def test_a_cancelled_job_is_not_tried_again(queue: JobQueue, clock: FakeClock) -> None:
    job_id = queue.add_job(make_job())
    claim(queue)
    queue.cancel(job_id)
    clock.now += 31
    (job,) = queue.requeue_expired()
    assert job.status is JobStatus.CANCELLED


def test_cancel_of_an_ended_job_changes_nothing(queue: JobQueue) -> None:
    job_id = queue.add_job(make_job())
    job, token = claim(queue)
    queue.complete(job.id, token, "key")
    assert queue.cancel(job_id) is JobStatus.COMPLETED


def test_unknown_ids(queue: JobQueue) -> None:
    assert queue.get_job("nobody") is None
    assert queue.get_job_status("nobody") is None
    with pytest.raises(JobNotFoundError):
        queue.cancel("nobody")
    with pytest.raises(JobNotFoundError):
        queue.update_job_status("nobody", JobStatus.RUNNING)
    with pytest.raises(JobNotFoundError):
        queue.complete("nobody", "token")
    with pytest.raises(JobNotFoundError):
        queue.wait("nobody", 0)


def test_idempotency_key_gives_the_same_job(queue: JobQueue) -> None:
    first = queue.add_job(make_job(idempotency_key="key", request_hash="h1"))
    assert queue.add_job(make_job(idempotency_key="key", request_hash="h1")) == first
    assert queue.count(JobStatus.PENDING) == 1
    with pytest.raises(IdempotencyConflictError):
        queue.add_job(make_job(idempotency_key="key", request_hash="h2"))


def test_the_same_id_twice_is_refused(queue: JobQueue) -> None:
    job = make_job()
    queue.add_job(job)
    with pytest.raises(InvalidConfigError, match="exists already"):
        queue.add_job(job)


@pytest.mark.parametrize(
    "fields",
    [
        {"prompt": ""},
        {"prompt": "  \n"},
        {"model_name": ""},
        {"model_name": "m" * 129},
        {"id": "../etc/passwd"},
        {"id": ""},
        {"max_attempts": 0},
        {"status": JobStatus.RUNNING},
        {"idempotency_key": "k" * 256},
    ],
)
def test_bad_jobs_are_refused(queue: JobQueue, fields: dict[str, object]) -> None:
    with pytest.raises(InvalidConfigError):
        queue.add_job(make_job(**fields))
    assert queue.count(JobStatus.PENDING) == 0


def test_a_batch_is_all_or_none(make_queue: MakeQueue) -> None:
    queue = make_queue(max_pending=2)
    with pytest.raises(InvalidConfigError):
        queue.create_batch(["a", ""], "triposr")
    with pytest.raises(QueueFullError) as caught:
        queue.create_batch(["a", "b", "c"], "triposr")
    assert caught.value.details["retry_after_s"] > 0
    assert queue.count(JobStatus.PENDING) == 0
    assert queue.create_batch([], "triposr") == []
    ids = queue.create_batch(["a", "b"], "triposr", seed=1)
    page = queue.list_jobs(JobFilter(batch_id=queue.get_job(ids[0]).batch_id))  # type: ignore[union-attr]
    assert {job.id for job in page.jobs} == set(ids)
    assert all(job.config == {"seed": 1} for job in page.jobs)


def test_running_jobs_do_not_count_as_waiting(make_queue: MakeQueue) -> None:
    queue = make_queue(max_pending=1)
    queue.add_job(make_job("a"))
    with pytest.raises(QueueFullError):
        queue.add_job(make_job("b"))
    claim(queue)
    queue.add_job(make_job("b"))


def test_listing_pages_newest_first(queue: JobQueue) -> None:
    ids = queue.create_batch([str(n) for n in range(5)], "triposr")
    first = queue.list_jobs(limit=2)
    second = queue.list_jobs(limit=2, cursor=first.next_cursor)
    third = queue.list_jobs(limit=2, cursor=second.next_cursor)
    seen = [job.id for page in (first, second, third) for job in page.jobs]
    assert seen == ids[::-1]
    assert third.next_cursor is None
    with pytest.raises(InvalidConfigError, match="cursor"):
        queue.list_jobs(cursor="1; DROP TABLE jobs")


def test_listing_filters(queue: JobQueue) -> None:
    queue.add_job(make_job("mine"))
    queue.add_job(make_job("other", model_name="trellis"))
    claim(queue, "triposr")
    running = queue.list_jobs(JobFilter(status=JobStatus.RUNNING)).jobs
    others = queue.list_jobs(JobFilter(model_name="trellis")).jobs
    assert [job.prompt for job in running] == ["mine"]
    assert [job.prompt for job in others] == ["other"]


def test_position_in_line(queue: JobQueue) -> None:
    slow = queue.add_job(make_job("slow", JobPriority.LOW))
    queue.add_job(make_job("elsewhere", JobPriority.URGENT, model_name="trellis"))
    fast = queue.add_job(make_job("fast", JobPriority.HIGH))
    positions = [queue.position(queue.get_job(job_id)) for job_id in (slow, fast)]  # type: ignore[arg-type]
    assert positions == [2, 1]
    job, _ = claim(queue, "triposr")
    assert queue.position(job) is None


@pytest.mark.parametrize("final", [JobStatus.COMPLETED, JobStatus.FAILED, JobStatus.CANCELLED])
def test_final_states_are_final(queue: JobQueue, final: JobStatus) -> None:
    job_id = queue.add_job(make_job())
    queue.update_job_status(job_id, JobStatus.RUNNING)
    queue.update_job_status(job_id, final)
    for status in JobStatus:
        with pytest.raises(JobStateError):
            queue.update_job_status(job_id, status)
    assert queue.get_job_status(job_id) is final


def test_status_updates_of_a_waiting_job(queue: JobQueue) -> None:
    failed, cancelled, other = queue.create_batch(["a", "b", "c"], "triposr")
    queue.update_job_status(failed, JobStatus.FAILED)
    queue.update_job_status(cancelled, JobStatus.CANCELLED)
    with pytest.raises(JobStateError, match="pending and cannot become completed"):
        queue.update_job_status(other, JobStatus.COMPLETED)
    queue.update_job_status(other, JobStatus.RUNNING)
    queue.update_job_status(other, JobStatus.PENDING)
    assert claim(queue)[0].id == other


def test_only_the_claimer_may_update_a_running_job(make_queue: MakeQueue) -> None:
    mine, other = make_queue(), make_queue()
    job_id = mine.add_job(make_job())
    claim(mine)
    with pytest.raises(LeaseLostError):
        other.update_job_status(job_id, JobStatus.COMPLETED)
    mine.update_job_status(job_id, JobStatus.COMPLETED)


def test_concurrent_claims_never_share_a_job(make_queue: MakeQueue) -> None:
    queues = [make_queue() for _ in range(3)]
    ids = queues[0].create_batch([str(n) for n in range(60)], "triposr")
    claimed: list[str] = []

    def work(queue: JobQueue) -> None:
        while (job := queue.get_next_job()) is not None:
            claimed.append(job.id)

    threads = [threading.Thread(target=work, args=(queue,)) for queue in queues for _ in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(claimed) == sorted(ids)


def test_wait_returns_when_the_job_ends(queue: JobQueue) -> None:
    job_id = queue.add_job(make_job())
    job, token = claim(queue)
    assert queue.wait(job_id, timeout_s=0).status is JobStatus.RUNNING
    worker = threading.Thread(target=queue.complete, args=(job.id, token, "key"))
    worker.start()
    assert queue.wait(job_id, timeout_s=30).status is JobStatus.COMPLETED
    worker.join()
