"""Replicas follow the queue: none while nobody asks, more while jobs wait, none again."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.cluster.conftest import Server, app_args, serving, until

MODEL = "model-echo"


@pytest.fixture(scope="module")
def scaled(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    folder = tmp_path_factory.mktemp("scaled")
    autoscaling = {"min_replicas": 0, "max_replicas": 2, "drain_s": 0.01, "idle_s": 2}
    models = [{"name": "echo", "autoscaling": autoscaling}]
    with serving(folder, app_args(folder, models=models)) as running:
        yield running


def test_a_model_sleeps_until_a_job_comes_and_sleeps_again(scaled: Server) -> None:
    (model,) = [m for m in scaled.client.get("/v1/models").json()["models"] if m["name"] == "echo"]
    assert (model["state"], model["available"]) == ("asleep", True)
    assert scaled.find_replicas(MODEL) == []
    job = scaled.ended(scaled.submit("wake up"))
    assert (job["status"], job["attempts"]) == ("completed", 1)
    until(lambda: scaled.find_replicas(MODEL) == [], "asleep again")
    assert scaled.ended(scaled.submit("wake up again"))["status"] == "completed"
    cluster = scaled.client.get("/v1/cluster").json()["models"]["echo"]
    assert cluster["loads"] == 2


def test_waiting_jobs_get_a_second_replica_and_none_is_stopped_at_work(scaled: Server) -> None:
    holds = [scaled.hold() for _ in range(2)]
    ids = [scaled.submit(f"at once {n}", hold=str(hold)) for n, hold in enumerate(holds)]
    for job_id in ids:
        scaled.until(job_id, "running", stage="holding")
    assert len(scaled.find_replicas(MODEL)) == 2
    holds[0].unlink()
    assert scaled.ended(ids[0])["status"] == "completed"
    slots = lambda: scaled.client.get("/v1/cluster").json()["models"]["echo"]["slots"]  # noqa: E731
    until(lambda: slots() == 1, "one slot less")
    assert scaled.get(ids[1])["status"] == "running"
    holds[1].unlink()
    job = scaled.ended(ids[1])
    assert (job["status"], job["attempts"]) == ("completed", 1)
