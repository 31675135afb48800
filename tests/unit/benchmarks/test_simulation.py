from __future__ import annotations

import random
from pathlib import Path

import pytest

from benchmarks.simulate_cluster import POLICIES, simulate
from benchmarks.simulation.line import Job, Line
from benchmarks.simulation.measures import fluid_bound
from benchmarks.simulation.policies import Lanes, Workers
from benchmarks.simulation.workload import MODELS, Load, make_flood, make_load, mean_seconds
from dream_cad.queue import GenerationJob, JobPriority, JobQueue

MODEL_NAMES = ("triposr", "trellis", "mvdream")


@pytest.mark.parametrize("seed", range(4))
def test_the_line_in_memory_claims_what_the_database_claims(tmp_path: Path, seed: int) -> None:
    """Adds, claims, ends and ageing at random, on both; every claim is the same job."""
    choose = random.Random(seed)
    clock = [1_000_000.0]
    queue = JobQueue(
        f"sqlite:///{tmp_path / 'jobs.sqlite3'}", ageing_s=100.0, clock=lambda: clock[0]
    )
    heavy, _ = queue.keys.create_key("heavy", weight=3.0)
    owners = [heavy.id, "one", "two"]
    line = Line({heavy.id: 3.0}, ageing_s=100.0)
    at_work: list[tuple[GenerationJob, Job]] = []
    seq = claims = 0
    with queue.grouped():
        for _ in range(250):
            clock[0] += choose.uniform(0, 12)
            verb = choose.random()
            if verb < 0.45:
                seq += 1
                model, owner = choose.choice(MODEL_NAMES), choose.choice(owners)
                priority = choose.choice(list(JobPriority))
                queue.add_job(
                    GenerationJob(prompt=str(seq), model_name=model, owner=owner, priority=priority)
                )
                line.add(Job(seq, model, owner, priority.value, clock[0], 1.0), clock[0])
            elif verb < 0.75:
                model_wanted = choose.choice([None, *MODEL_NAMES])
                favourite = choose.choice([None, *MODEL_NAMES])
                real = queue.get_next_job(model_wanted, prefer_model=favourite, estimate_s=2.0)
                paper = line.claim(model_wanted, 2.0, favourite)
                assert (real and real.prompt) == (paper and str(paper.seq))
                if real is not None and paper is not None:
                    assert real.level == paper.level
                    at_work.append((real, paper))
                    claims += 1
            elif verb < 0.9 and at_work:
                real, paper = at_work.pop(choose.randrange(len(at_work)))
                seconds = choose.uniform(0.1, 9.0)
                queue.complete(real.id, str(real.lease_token), gpu_seconds=seconds)
                line.charge(paper.owner, seconds - 2.0)
            else:
                queue.age()
                line.age(clock[0])
    queue.close()
    assert claims > 30


def one_model(count: int, gap_s: float = 0.0) -> Load:
    jobs = [Job(i, "triposr", f"bulk-{i % 3}", 1, i * gap_s, 3.0) for i in range(count)]
    return Load(jobs, {}, 600.0)


def test_a_single_gpu_loads_once_and_works_without_a_pause() -> None:
    load = one_model(10)
    record = Workers(load, Line({}), 1).run()
    found = record.summary(1)
    assert found["jobs_ended"] == 10
    assert found["loads_per_hour"] == 6  # one in 600 s
    latest = max(job.starts for job in load.jobs)
    assert latest == pytest.approx(MODELS["triposr"][1] + 9 * 3.0)


def test_replicas_of_lanes_follow_the_queue() -> None:
    load = one_model(400)
    Lanes(load, Line({}), 50).run()
    ends = max(job.starts for job in load.jobs) + 3.0
    # 1,200 GPU-seconds are to be done in a minute: 20 replicas, loaded after the first measurement.
    assert 60.0 < ends < 130.0


def test_the_bound_is_what_a_fluid_could_do() -> None:
    load = one_model(100)
    assert fluid_bound(load.jobs, 2, 600.0) == pytest.approx(300.0)
    assert fluid_bound(load.jobs, 2, 100.0) == pytest.approx(200.0)


def test_the_load_is_what_was_asked_for() -> None:
    load = make_load(4000, 10, seed=3)
    work = sum(job.seconds for job in load.jobs)
    assert work / (10 * load.horizon_s) == pytest.approx(0.92, rel=0.1)
    times = [job.arrives for job in load.jobs]
    assert times == sorted(times)
    assert times[-1] <= load.horizon_s
    assert {job.model for job in load.jobs} == set(MODELS)


@pytest.mark.parametrize("name", POLICIES)
def test_every_policy_ends_every_job(name: str) -> None:
    found = simulate(name, lambda: make_load(1000, 40), 40, 10.0)
    assert found["jobs_ended"] == 1000
    assert 0.0 < found["utilisation_of_bound"] <= 1.0


def test_our_order_beats_first_in_first_out_where_it_matters() -> None:
    ours = simulate("dream_cad, served", lambda: make_load(8000, 50), 50, 5.0)
    fifo = simulate("first-in first-out", lambda: make_load(8000, 50), 50, 5.0)
    assert ours["utilisation_of_bound"] > fifo["utilisation_of_bound"] + 0.2
    assert ours["wait_s"]["urgent"]["p99"] < fifo["wait_s"]["urgent"]["p50"]


def test_a_flood_is_shared_by_weight() -> None:
    found = simulate("dream_cad, workers", lambda: make_flood(6000, 20), 20, 1.0)
    assert found["jain"]["windows"] >= 2
    assert found["jain"]["mean"] > 0.95
    assert mean_seconds() > 3.0
