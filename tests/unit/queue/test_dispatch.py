"""Which of several routers dispatches, and how it learns what the others did."""

from __future__ import annotations

import time

import pytest
from sqlalchemy import create_engine, text

from dream_cad.exceptions import StorageError
from dream_cad.queue import JobQueue, JobStatus
from dream_cad.queue.database import with_driver
from tests.unit.queue.conftest import FakeClock, MakeQueue, claim, make_job


def wait_for_lock(queue: JobQueue) -> None:
    """PostgreSQL takes a moment to see that a connection is gone."""
    deadline = time.monotonic() + 30
    while not queue.hold_dispatch():
        assert time.monotonic() < deadline


def test_one_at_a_time_dispatches_and_the_next_follows(postgres_url: str) -> None:
    first, second = JobQueue(postgres_url), JobQueue(postgres_url)
    assert [first.hold_dispatch(), second.hold_dispatch(), first.hold_dispatch()] == [
        True,
        False,
        True,
    ]
    first.close()
    wait_for_lock(second)
    second.close()


def test_a_lost_connection_frees_the_lock_and_is_told(postgres_url: str) -> None:
    first, second = JobQueue(postgres_url), JobQueue(postgres_url)
    assert first.hold_dispatch()
    engine = create_engine(with_driver(postgres_url))
    others = "SELECT pg_terminate_backend(pid) FROM pg_locks WHERE locktype = 'advisory'"
    with engine.begin() as connection:
        connection.execute(text(others))
    with pytest.raises(StorageError, match="dispatch lock"):
        first.hold_dispatch()
    wait_for_lock(second)
    assert not first.hold_dispatch()
    engine.dispose()
    first.close()
    second.close()


def test_the_owner_of_a_sqlite_queue_always_dispatches(sqlite_url: str) -> None:
    queue = JobQueue(sqlite_url)
    assert queue.hold_dispatch()
    assert queue.hold_dispatch()
    queue.close()


def test_a_successor_takes_back_what_the_last_one_left(make_queue: MakeQueue) -> None:
    first, second = make_queue(), make_queue()
    assert first.succeed("first") == []
    first.add_job(make_job())
    job, _ = claim(first)
    assert first.succeed("first") == []
    assert first.get_job_status(job.id) is JobStatus.RUNNING
    (taken,) = second.succeed("second")
    assert (taken.id, taken.status) == (job.id, JobStatus.PENDING)
    assert second.succeed("second") == []


def test_changes_by_others_are_seen_once(make_queue: MakeQueue) -> None:
    here, there = make_queue(), make_queue()
    here.add_job(make_job())
    begin = here.newest_event()
    assert here.changed_since(begin) == (begin, [])
    second = there.add_job(make_job(model_name="mvdream"))
    claim(there, "mvdream")
    newest, changed = here.changed_since(begin)
    assert changed == [second]
    assert here.changed_since(newest) == (newest, [])


def test_the_newest_event_of_an_empty_queue_is_zero(queue: JobQueue) -> None:
    assert queue.newest_event() == 0


def test_waiting_jobs_are_counted_up_to_a_limit(queue: JobQueue) -> None:
    for _ in range(5):
        queue.add_job(make_job())
    queue.add_job(make_job(model_name="mvdream"))
    claim(queue, "triposr")
    assert queue.count_waiting("triposr") == 4
    assert queue.count_waiting("triposr", limit=3) == 3
    assert queue.count_waiting("trellis") == 0


def test_the_mean_is_of_completed_jobs_of_the_model(queue: JobQueue, clock: FakeClock) -> None:
    assert queue.mean_seconds("triposr") is None
    for seconds in (2.0, 4.0):
        queue.add_job(make_job())
        job, token = claim(queue)
        clock.now += seconds
        queue.complete(job.id, token, None)
    queue.add_job(make_job())
    job, token = claim(queue)
    clock.now += 100
    queue.fail(job.id, token, {"type": "generation-failed"})
    assert queue.mean_seconds("triposr") == pytest.approx(3.0)
    assert queue.mean_seconds("mvdream") is None


def test_running_jobs_that_were_asked_to_stop_are_listed(queue: JobQueue) -> None:
    queue.add_job(make_job())
    queue.add_job(make_job())
    job, _ = claim(queue)
    claim(queue)
    assert queue.asked_to_stop() == []
    queue.cancel(job.id)
    assert queue.asked_to_stop() == [job.id]
