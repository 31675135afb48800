"""Switches, events, triggers, groups, idempotency by owner, tags, depth."""

from __future__ import annotations

import pytest
from sqlalchemy import text
from sqlalchemy.exc import DatabaseError

from dream_cad.exceptions import (
    DreamCadError,
    IdempotencyConflictError,
    InvalidConfigError,
    LeaseLostError,
    QueueFullError,
)
from dream_cad.queue import JobFilter, JobPriority, JobQueue, JobStatus
from dream_cad.queue.database import open_engine
from tests.unit.queue.conftest import FakeClock, MakeQueue, claim, make_job

PROBLEM = {"type": "worker-lost", "detail": "The worker died."}
ILLEGAL = {
    "a final state changes": "UPDATE jobs SET status = 'pending', completed_at = NULL "
    "WHERE status = 'cancelled'",
    "pending completes": "UPDATE jobs SET status = 'completed', completed_at = 1 "
    "WHERE status = 'pending'",
}


def test_a_paused_queue_starts_nothing_until_resumed(make_queue: MakeQueue) -> None:
    queue, other = make_queue(), make_queue()
    queue.add_job(make_job())
    queue.pause()
    assert other.is_paused()
    assert other.get_next_job() is None
    other.resume()
    assert not queue.is_paused()
    claim(queue)


def test_a_paused_model_lets_others_go_on(queue: JobQueue) -> None:
    queue.add_job(make_job("a", JobPriority.URGENT))
    queue.add_job(make_job("b", model_name="trellis"))
    queue.pause("triposr")
    assert queue.is_paused("triposr")
    assert not queue.is_paused("trellis")
    assert queue.get_next_job("triposr") is None
    assert claim(queue)[0].prompt == "b"
    queue.resume("triposr")
    assert claim(queue)[0].prompt == "a"


def test_draining_starts_nothing_but_accepts(queue: JobQueue) -> None:
    queue.drain()
    queue.add_job(make_job())
    assert queue.get_next_job() is None
    assert queue.switches().draining
    queue.undrain()
    claim(queue)


def test_every_change_of_state_is_an_event(queue: JobQueue, clock: FakeClock) -> None:
    job_id = queue.add_job(make_job())
    job, token = claim(queue)
    queue.retry(job.id, token, PROBLEM)
    _, token = claim(queue)
    queue.report_progress(job_id, token, 0.5)
    queue.complete(job_id, token, "key")
    events = queue.events_after(job_id)
    assert [event.kind for event in events] == [
        "pending", "running", "pending", "running", "completed"
    ]  # fmt: skip
    assert events[2].data == {"attempt": 1, "problem": PROBLEM}
    assert events[3].data["attempt"] == 2
    assert events[1].at.timestamp() == clock.now
    later = queue.events_after(job_id, events[2].seq)
    assert later == events[3:]


@pytest.mark.parametrize("statement", ILLEGAL.values(), ids=ILLEGAL.keys())
def test_the_database_refuses_illegal_transitions(database_url: str, statement: str) -> None:
    queue = JobQueue(database_url)
    queue.add_job(make_job())
    queue.cancel(queue.add_job(make_job()))
    queue.close()
    engine = open_engine(database_url)
    with pytest.raises(DatabaseError, match="illegal transition"), engine.begin() as connection:
        connection.execute(text(statement))
    engine.dispose()


def test_a_group_commits_once_and_bad_calls_alone_are_undone(queue: JobQueue) -> None:
    queue.add_job(make_job("first"))
    with queue.grouped():
        job, token = claim(queue)
        queue.add_job(make_job("second"))
        with pytest.raises(LeaseLostError):
            queue.complete(job.id, "wrong", "key")
        with pytest.raises(InvalidConfigError):
            queue.add_job(make_job(id=job.id))
        queue.complete(job.id, token, "key")
    assert queue.get_job_status(job.id) is JobStatus.COMPLETED
    assert queue.count(JobStatus.PENDING) == 1


def test_an_error_that_leaves_a_group_undoes_it(queue: JobQueue) -> None:
    def add_good_and_bad() -> None:
        with queue.grouped():
            queue.add_job(make_job())
            queue.add_job(make_job(""))

    with pytest.raises(InvalidConfigError):
        add_good_and_bad()
    assert queue.count(JobStatus.PENDING) == 0


def test_each_job_of_a_group_has_its_own_outcome(make_queue: MakeQueue) -> None:
    queue = make_queue(max_pending=3)
    first = make_job(idempotency_key="key", request_hash="1")
    outcomes = queue.add_each(
        [
            first,
            make_job(""),
            make_job(idempotency_key="key", request_hash="1"),
            make_job(idempotency_key="key", request_hash="2"),
            make_job("b", owner="k1"),
            make_job("c", owner="k1"),
            make_job("d"),
            make_job("e"),
        ],
        max_pending={"k1": 1},
    )
    kinds = [type(one) if isinstance(one, DreamCadError) else str for one in outcomes]
    assert kinds == [
        str, InvalidConfigError, str, IdempotencyConflictError, str, QueueFullError, str,
        QueueFullError,
    ]  # fmt: skip
    assert outcomes[2] == first.id
    assert queue.count(JobStatus.PENDING) == 3


def test_add_jobs_resolves_keys_singly(queue: JobQueue) -> None:
    known = queue.add_job(make_job(idempotency_key="k", request_hash="1"))
    fresh = make_job(idempotency_key="new", request_hash="1")
    twin = make_job(idempotency_key="new", request_hash="1")
    ids = queue.add_jobs([make_job(idempotency_key="k", request_hash="1"), fresh, twin])
    assert ids == [known, fresh.id, fresh.id]
    assert queue.count(JobStatus.PENDING) == 2


def test_keys_of_different_owners_do_not_meet(queue: JobQueue) -> None:
    ids = [
        queue.add_job(make_job(idempotency_key="k", request_hash=owner, owner=owner))
        for owner in ("a", "b")
    ]
    assert len(set(ids)) == 2


def test_listing_by_owner_and_tag(queue: JobQueue) -> None:
    mine = queue.add_job(make_job(owner="a", tags=["chairs", "demo"]))
    queue.add_job(make_job(owner="b", tags=["demo"]))
    assert [job.id for job in queue.list_jobs(JobFilter(owner="a")).jobs] == [mine]
    (tagged,) = queue.list_jobs(JobFilter(tag="chairs")).jobs
    assert tagged.tags == ["chairs", "demo"]


def test_depth_by_model_and_priority(queue: JobQueue) -> None:
    queue.add_jobs([make_job(), make_job(), make_job("u", JobPriority.URGENT)])
    queue.add_job(make_job(model_name="trellis"))
    claim(queue, "trellis")
    found = {(row.model_name, row.priority): row.count for row in queue.depth()}
    assert found == {("triposr", JobPriority.NORMAL): 2, ("triposr", JobPriority.URGENT): 1}


def test_places_are_counted_up_to_a_limit(queue: JobQueue) -> None:
    ids = queue.create_batch([str(number) for number in range(20)], "triposr")
    last = queue.get_job(ids[-1])
    assert last is not None
    assert queue.position(last) == 20
    assert queue.position(last, limit=5) == 6
