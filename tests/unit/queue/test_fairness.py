from __future__ import annotations

from collections import Counter

import pytest
from sqlalchemy import text

from dream_cad.queue import JobPriority, JobQueue
from tests.unit.queue.conftest import FakeClock, MakeQueue, claim, make_job

PROBLEM = {"type": "generation-failed", "detail": "no"}


def add(queue: JobQueue, owner: str, number: int, priority: JobPriority = JobPriority.LOW) -> None:
    queue.add_jobs([make_job(owner, priority, owner=owner) for _ in range(number)])


def serve(queue: JobQueue, seconds_of: dict[str, float], times: int) -> Counter[str]:
    """Run jobs one after another; returns GPU-seconds by owner."""
    spent: Counter[str] = Counter()
    for _ in range(times):
        job, token = claim(queue)
        queue.complete(job.id, token, gpu_seconds=seconds_of[job.owner])
        spent[job.owner] += seconds_of[job.owner]  # type: ignore[assignment]
    return spent


def test_a_flood_leaves_the_other_key_its_half(queue: JobQueue) -> None:
    add(queue, "flood", 200)
    add(queue, "small", 40)
    spent = serve(queue, {"flood": 2.0, "small": 2.0}, 60)
    assert spent["small"] >= 0.45 * spent.total()


def test_shares_are_of_gpu_seconds_not_of_jobs(queue: JobQueue) -> None:
    add(queue, "long", 100)
    add(queue, "short", 100)
    spent = serve(queue, {"long": 9.0, "short": 1.0}, 80)
    assert spent["short"] == pytest.approx(spent["long"], abs=10)


def test_weights_divide_unequally(queue: JobQueue) -> None:
    heavy, _ = queue.keys.create_key("heavy", weight=3.0)
    light, _ = queue.keys.create_key("light", weight=1.0)
    add(queue, heavy.id, 100)
    add(queue, light.id, 100)
    spent = serve(queue, {heavy.id: 1.0, light.id: 1.0}, 80)
    assert spent[heavy.id] == pytest.approx(60, abs=2)


def test_the_first_charge_is_by_weight_too(queue: JobQueue) -> None:
    heavy, _ = queue.keys.create_key("heavy", weight=4.0)
    for _ in range(2):
        queue.charge(heavy.id, 8.0)
    with queue._database.connect(write=False) as connection:
        spent = connection.execute(text("SELECT virtual_time FROM shares")).scalar_one()
    assert spent == pytest.approx(4.0)


def test_idleness_earns_no_credit(queue: JobQueue) -> None:
    add(queue, "busy", 60)
    serve(queue, {"busy": 5.0}, 20)
    add(queue, "fresh", 40)
    spent = serve(queue, {"busy": 1.0, "fresh": 1.0}, 20)
    assert spent["busy"] >= 9


def test_a_newcomer_gets_no_more_than_its_share_while_another_waits_elsewhere(
    queue: JobQueue,
) -> None:
    """An owner whose slow model has no GPU has had little; a newcomer does not start there."""
    queue.add_jobs([make_job("slow", owner="stuck", model_name="mvdream") for _ in range(5)])
    add(queue, "busy", 60)
    for _ in range(20):
        job = queue.get_next_job("triposr")
        assert job is not None
        queue.complete(job.id, str(job.lease_token), gpu_seconds=1.0)
    add(queue, "fresh", 40)
    owners = Counter()
    for _ in range(20):
        job = queue.get_next_job("triposr")
        assert job is not None
        queue.complete(job.id, str(job.lease_token), gpu_seconds=1.0)
        owners[job.owner] += 1
    assert owners["busy"] >= 9


def test_age_ranks_with_the_more_urgent_and_not_before_its_equals(
    make_queue: MakeQueue, clock: FakeClock
) -> None:
    queue = make_queue(ageing_s=100.0)
    add(queue, "many", 40)
    clock.now += 101
    assert queue.age() == 40
    add(queue, "fresh", 20)
    # All are LOW by wish: those that waited long do not push the others out of their half.
    spent = serve(queue, {"many": 1.0, "fresh": 1.0}, 20)
    assert spent["fresh"] >= 9
    # A NORMAL job goes before the fresh LOW ones, and shares with those that rank with it by age.
    add(queue, "normal", 10, JobPriority.NORMAL)
    spent = serve(queue, {"many": 1.0, "fresh": 1.0, "normal": 1.0}, 16)
    assert spent["fresh"] == 0
    assert spent["many"] >= 7
    assert spent["normal"] >= 7


def test_an_idle_queue_forgets_debts(queue: JobQueue) -> None:
    add(queue, "old", 10)
    serve(queue, {"old": 100.0}, 10)
    add(queue, "new", 20)
    add(queue, "old", 20)
    spent = serve(queue, {"old": 1.0, "new": 1.0}, 20)
    assert spent["old"] >= 9


@pytest.mark.parametrize("is_measured", [True, False])
def test_a_failed_attempt_is_charged_what_it_cost(queue: JobQueue, is_measured: bool) -> None:
    add(queue, "a", 2)
    add(queue, "b", 2)
    job, token = claim(queue)
    assert job.owner == "a"
    seconds = 5.0 if is_measured else None
    queue.retry(job.id, token, PROBLEM, 60.0, gpu_seconds=seconds)
    # Each claim charges an estimate of one second: b's first makes it level with a's estimate.
    assert [claim(queue)[0].owner for _ in range(2)] == (["b", "b"] if is_measured else ["b", "a"])


def test_all_attempts_of_a_job_are_charged_once(queue: JobQueue, clock: FakeClock) -> None:
    job_id = queue.add_job(make_job(owner="a", max_attempts=3))
    for seconds in (4.0, 2.0):
        queue.retry(job_id, claim(queue)[1], PROBLEM, gpu_seconds=seconds)
    queue.complete(job_id, claim(queue)[1], gpu_seconds=3.0)
    job = queue.get_job(job_id)
    assert job is not None
    assert job.gpu_seconds == pytest.approx(9.0)
    with queue._database.connect(write=False) as connection:
        spent = connection.execute(text("SELECT virtual_time FROM shares")).scalar_one()
    assert spent == pytest.approx(9.0)


def test_priority_goes_before_shares(queue: JobQueue) -> None:
    add(queue, "a", 3, JobPriority.HIGH)
    add(queue, "b", 3, JobPriority.LOW)
    queue.charge("a", 1000.0)
    assert [claim(queue)[0].owner for _ in range(6)] == ["a"] * 3 + ["b"] * 3


def test_claims_can_be_limited_to_owners(queue: JobQueue) -> None:
    add(queue, "a", 2, JobPriority.HIGH)
    add(queue, "b", 1)
    job = queue.get_next_job(owners={"b"})
    assert job is not None
    assert job.owner == "b"
    assert queue.get_next_job(owners={"b"}) is None


def test_a_worker_can_prefer_the_model_that_it_has(queue: JobQueue) -> None:
    queue.add_job(make_job("first", model_name="trellis"))
    queue.add_job(make_job("mine"))
    queue.add_job(make_job("urgent", JobPriority.URGENT, model_name="trellis"))
    prompts = [
        job.prompt
        for _ in range(3)
        if (job := queue.get_next_job(prefer_model="triposr")) is not None
    ]
    assert prompts == ["urgent", "mine", "first"]


def test_waiting_raises_the_level_up_to_urgent(make_queue: MakeQueue, clock: FakeClock) -> None:
    queue = make_queue(ageing_s=100.0)
    old = queue.add_job(make_job("old", JobPriority.LOW))
    levels = []
    for _ in range(4):
        clock.now += 101
        queue.add_job(make_job("later", JobPriority.URGENT))
        queue.age()
        job = queue.get_job(old)
        assert job is not None
        levels.append(job.level)
    assert levels == [1, 2, 3, 3]
    assert job.priority is JobPriority.LOW
    # Three ageing times old: it goes before URGENT jobs that came after it.
    assert claim(queue)[0].id == old
    assert claim(queue)[0].prompt == "later"


def test_ageing_takes_each_job_once_a_period(make_queue: MakeQueue, clock: FakeClock) -> None:
    queue = make_queue(ageing_s=100.0)
    queue.create_batch(["a", "b"], "triposr")
    assert queue.age() == 0
    clock.now += 100
    assert queue.age() == 2
    assert queue.age() == 0
