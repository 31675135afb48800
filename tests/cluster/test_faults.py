from __future__ import annotations

import shutil
import threading
from typing import Any

import pytest

from tests.cluster.conftest import Server, until


def test_a_killed_replica_does_not_lose_its_job(server: Server) -> None:
    job_id, hold = server.occupy()
    waiting = server.submit("next", "low")
    server.kill_replica("model-echo")
    job = server.until(job_id, "pending", "running", stage="")
    hold.unlink()
    job = server.ended(job_id)
    assert job["status"] == "completed"
    assert job["attempts"] == 2
    assert job["error"] is None
    assert server.ended(waiting)["status"] == "completed"


def test_a_model_that_crashes_once_is_tried_again(server: Server) -> None:
    job = server.ended(server.submit(crash="once", marker=str(server.new_path())))
    assert (job["status"], job["attempts"]) == ("completed", 2)


def test_a_poison_job_fails_alone(server: Server) -> None:
    poison = server.submit(crash="always")
    healthy = server.submit("healthy", "low")
    job = server.ended(poison)
    assert (job["status"], job["attempts"]) == ("failed", 3)
    assert job["error"]["type"] == "service-unavailable"
    assert "No attempt is left" in job["error"]["detail"]
    job = server.ended(healthy)
    assert (job["status"], job["attempts"]) == ("completed", 1)


def test_a_killed_router_loses_nothing(server: Server) -> None:
    running, hold = server.occupy()
    before = [server.submit(f"before {n}", "low") for n in range(4)]
    victim = server.kill_replica("router")
    during: list[str] = []

    def submit_during_the_outage() -> None:
        during.extend(server.submit(f"during {n}", "low") for n in range(3))

    client = threading.Thread(target=submit_during_the_outage)
    client.start()
    until(lambda: server.find_replicas("router") not in ([], [victim]), "a new router")
    # The new router stops what the old one began, and begins it anew.
    job = until(lambda: _second_attempt(server, running), "a second attempt")
    assert job["status"] == "running"
    hold.unlink()
    client.join()
    assert len(during) == 3
    jobs = {job_id: server.ended(job_id) for job_id in [running, *before, *during]}
    assert {job["status"] for job in jobs.values()} == {"completed"}
    assert jobs[running]["attempts"] == 2


def _second_attempt(server: Server, job_id: str) -> dict[str, Any] | None:
    job = server.get(job_id)
    return job if job["attempts"] == 2 and "holding" in job["stage"] else None


def test_a_killed_gateway_is_replaced(server: Server) -> None:
    job_id, hold = server.occupy()
    server.kill_replica("gateway")
    until(lambda: server.client.get("/healthz").status_code == 200, "a new gateway")
    hold.unlink()
    assert server.ended(job_id)["status"] == "completed"


def test_a_killed_finisher_does_not_lose_the_job(server: Server) -> None:
    server.kill_replica("mesh-finisher")
    job = server.ended(server.submit("after the finisher's death"))
    assert job["status"] == "completed"


def test_a_full_disk_fails_the_job_with_its_reason(server: Server) -> None:
    if server.disk is None:
        pytest.skip("mounting a small file system needs root")
    filler = server.disk / "filler"
    filler.write_bytes(bytes(shutil.disk_usage(server.disk).free))
    try:
        job = server.ended(server.submit("no room"))
    finally:
        filler.unlink()
    assert job["status"] == "failed"
    assert job["attempts"] == 3
    assert job["error"]["type"] == "storage-failed"
    assert "the disk is full" in job["error"]["detail"]
    assert server.ended(server.submit("room again"))["status"] == "completed"
