"""Two routers on one PostgreSQL: one dispatches, both answer, either may die."""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator

import pytest

from tests.cluster.conftest import Server, app_args, serving, until
from tests.postgres import PostgresServer


@pytest.fixture(scope="module")
def twin(tmp_path_factory: pytest.TempPathFactory, postgres: PostgresServer) -> Iterator[Server]:
    folder = tmp_path_factory.mktemp("twin")
    queue = {**app_args(folder)["queue"], "routers": 2}
    url = postgres.create_database("twin")
    with serving(folder, app_args(folder, database_url=url, queue=queue)) as running:
        yield running


def test_every_job_runs_once_whichever_router_took_it(twin: Server) -> None:
    ids = [twin.submit(f"job {n}") for n in range(20)]
    jobs = [twin.ended(job_id) for job_id in ids]
    assert {(job["status"], job["attempts"]) for job in jobs} == {("completed", 1)}


def test_waiting_and_cancelling_reach_the_router_at_work(twin: Server) -> None:
    for n in range(6):
        answer = twin.client.post("/v1/generate", json={"prompt": f"wait {n}"})
        assert answer.content[:4] == b"glTF"
    for _ in range(4):
        hold = twin.hold()
        job_id = twin.submit("to be cancelled", hold=str(hold))
        twin.until(job_id, "running", stage="")
        twin.client.delete(f"/v1/jobs/{job_id}")
        assert twin.ended(job_id)["status"] == "cancelled"
        hold.unlink()


def test_the_other_router_goes_on_when_one_dies(twin: Server) -> None:
    """Both are killed in turn, so that one of them was the one that dispatched."""
    hold = twin.hold()
    running = twin.submit("survivor", "urgent", hold=str(hold))
    twin.until(running, "running")
    waiting = [twin.submit(f"behind {n}", "low") for n in range(5)]
    for victim in twin.find_replicas("router"):
        os.kill(victim, signal.SIGKILL)
        until(
            lambda victim=victim: len(set(twin.find_replicas("router")) - {victim}) == 2,  # type: ignore[misc]
            "two routers",
        )
    hold.unlink()
    jobs = [twin.ended(job_id) for job_id in [running, *waiting]]
    assert {job["status"] for job in jobs} == {"completed"}
    assert jobs[0]["attempts"] >= 2
