from __future__ import annotations

import pytest

from dream_cad.exceptions import InvalidConfigError
from dream_cad.queue import JobQueue, JobStatus
from tests.unit.queue.conftest import claim, make_job

PROBLEM = {"type": "generation-failed", "detail": "no"}


def test_a_job_starts_after_those_it_needs(queue: JobQueue) -> None:
    first, second = (queue.add_job(make_job(name)) for name in ("first", "second"))
    last = queue.add_job(make_job("last", depends_on=[first, second]))
    for left in (2, 1):
        job = queue.get_job(last)
        assert job is not None
        assert (job.waits_for, job.depends_on) == (left, [first, second])
        done, token = claim(queue)
        assert done.id != last
        queue.complete(done.id, token, "key")
    assert claim(queue)[0].id == last


def test_needs_that_are_already_met_do_not_hold(queue: JobQueue) -> None:
    first = queue.add_job(make_job())
    job, token = claim(queue)
    queue.complete(job.id, token, "key")
    last = queue.add_job(make_job(depends_on=[first]))
    assert claim(queue)[0].id == last


@pytest.mark.parametrize("how", ["fail", "cancel", "attempts"])
def test_a_lost_need_fails_all_generations(queue: JobQueue, how: str) -> None:
    first = queue.add_job(make_job(max_attempts=1))
    child = queue.add_job(make_job(depends_on=[first]))
    grandchild = queue.add_job(make_job(depends_on=[child]))
    if how == "cancel":
        queue.cancel(first)
    else:
        job, token = claim(queue)
        end = queue.fail if how == "fail" else queue.retry
        end(job.id, token, PROBLEM)  # type: ignore[operator]
    for job_id in (child, grandchild):
        job = queue.get_job(job_id)  # type: ignore[assignment]
        assert job.status is JobStatus.FAILED
        assert job.problem is not None
        assert job.problem["type"] == "dependency-failed"


def test_a_chain_can_be_added_at_once(queue: JobQueue) -> None:
    first = make_job("first")
    second = make_job("second", depends_on=[first.id])
    queue.add_jobs([first, second])
    job, token = claim(queue)
    assert job.id == first.id
    assert queue.get_next_job() is None
    queue.complete(job.id, token, "key")
    assert claim(queue)[0].id == second.id


def test_needs_that_cannot_be_met_are_refused(queue: JobQueue) -> None:
    lost = queue.add_job(make_job())
    queue.cancel(lost)
    for need in ("nobody", lost):
        with pytest.raises(InvalidConfigError, match="depends on"):
            queue.add_job(make_job(depends_on=[need]))
    later = make_job()
    with pytest.raises(InvalidConfigError, match="unknown"):
        queue.add_jobs([make_job(depends_on=[later.id]), later])
