"""Backoff, time limits, expiry, pruning, and clocks that jump."""

from __future__ import annotations

from datetime import UTC, datetime

import pytest

from dream_cad.exceptions import InvalidConfigError
from dream_cad.queue import GenerationJob, JobQueue, JobStatus
from dream_cad.queue.connection import SteadyClock
from tests.unit.queue.conftest import FakeClock, MakeQueue, claim, make_job

PROBLEM = {"type": "worker-lost", "detail": "The worker died."}


def at(clock: FakeClock, seconds: float) -> datetime:
    return datetime.fromtimestamp(clock.now + seconds, UTC)


def test_a_retry_can_rest_first(queue: JobQueue, clock: FakeClock) -> None:
    first = queue.add_job(make_job("first"))
    queue.add_job(make_job("second"))
    job, token = claim(queue)
    queue.retry(job.id, token, PROBLEM, delay_s=5.0)
    assert claim(queue)[0].prompt == "second"
    assert queue.get_next_job() is None
    clock.now += 5
    assert claim(queue)[0].id == first


@pytest.mark.parametrize(
    ("limit", "kind"), [("start_by", "wait-expired"), ("deadline", "deadline-passed")]
)
def test_jobs_that_wait_too_long_fail(
    queue: JobQueue, clock: FakeClock, limit: str, kind: str
) -> None:
    late = queue.add_job(make_job(**{limit: at(clock, 10)}))
    queue.add_job(make_job())
    clock.now += 10
    assert queue.expire() == []
    clock.now += 1
    (job,) = queue.expire()
    assert (job.id, job.status) == (late, JobStatus.FAILED)
    assert job.problem is not None
    assert job.problem["type"] == kind


def test_start_by_is_met_by_the_first_attempt(queue: JobQueue, clock: FakeClock) -> None:
    queue.add_job(make_job(start_by=at(clock, 10)))
    job, token = claim(queue)
    queue.retry(job.id, token, PROBLEM)
    clock.now += 60
    assert queue.expire() == []


def completed(queue: JobQueue, key: str | None = None) -> GenerationJob:
    queue.add_job(make_job(cache_key=key))
    job, token = claim(queue)
    queue.complete(job.id, token, f"{job.id}-1")
    stored = queue.get_job(job.id)
    assert stored is not None
    return stored


def test_results_expire_and_are_forgotten(make_queue: MakeQueue, clock: FakeClock) -> None:
    queue = make_queue(result_ttl_s=100.0)
    job = completed(queue)
    assert job.expires_at == at(clock, 100)
    assert queue.expired_results() == []
    clock.now += 101
    assert [old.id for old in queue.expired_results()] == [job.id]
    assert queue.forget_result(job.id)
    assert not queue.forget_result(job.id)
    assert queue.expired_results() == []


def test_a_finished_request_is_found_again(make_queue: MakeQueue, clock: FakeClock) -> None:
    queue = make_queue(result_ttl_s=100.0)
    source = completed(queue, "hash")
    found = queue.find_cached("hash")
    assert found is not None
    assert found.id == source.id
    assert queue.find_cached("other") is None
    clock.now += 50
    copy = queue.add_cached(make_job(cache_key="hash"), found)
    stored = queue.get_job(copy)
    assert stored is not None
    assert (stored.status, stored.cached_from) == (JobStatus.COMPLETED, source.id)
    assert stored.artifact_uri == source.artifact_uri
    # The copy still needs the artifact that the first job's time is over for.
    clock.now += 51
    assert queue.expired_results() == []
    clock.now += 50
    assert {job.id for job in queue.expired_results()} == {source.id, copy}
    assert queue.find_cached("hash") is None


def test_only_results_can_be_shared(queue: JobQueue) -> None:
    pending = make_job()
    queue.add_job(pending)
    with pytest.raises(InvalidConfigError, match="no result"):
        queue.add_cached(make_job(), pending)


def test_old_records_are_pruned_with_their_events(queue: JobQueue, clock: FakeClock) -> None:
    old = queue.add_job(make_job(tags=["a"]))
    queue.cancel(old)
    kept = completed(queue)
    clock.now += 100
    assert queue.prune(older_than_s=50.0) == 1
    assert queue.get_job(old) is None
    assert queue.events_after(old) == []
    assert queue.get_job(kept.id) is not None


def test_a_step_of_the_wall_clock_does_not_move_a_steady_one() -> None:
    wall, monotonic = FakeClock(), FakeClock()
    steady = SteadyClock(wall, monotonic)
    begin = steady()
    wall.now += 86_400
    monotonic.now += 2
    assert steady() == begin + 2


def test_leases_outlive_a_step_of_the_wall_clock(make_queue: MakeQueue) -> None:
    wall, monotonic = FakeClock(), FakeClock()
    queue = make_queue(clock=SteadyClock(wall, monotonic))
    queue.add_job(make_job())
    job, token = claim(queue)
    for step in (3600.0, -7200.0):
        wall.now += step
        assert queue.requeue_expired() == []
    queue.complete(job.id, token, "key")


def test_a_restart_with_the_clock_set_back_frees_resting_jobs(
    make_queue: MakeQueue, clock: FakeClock
) -> None:
    queue = make_queue()
    queue.add_job(make_job())
    job, token = claim(queue)
    queue.retry(job.id, token, PROBLEM, delay_s=60.0)
    clock.now -= 3600
    assert queue.get_next_job() is None
    queue.recover()
    assert claim(queue)[0].id == job.id
