"""Hundreds of jobs under way while everything dies in turn: none lost, none with two results."""

from __future__ import annotations

import os
import signal
from pathlib import Path
from typing import Any

import httpx
import psycopg
import pytest

from tests.cluster.conftest import Server, app_args, serving, until
from tests.postgres import PostgresServer

pytestmark = pytest.mark.long

JOBS = 1200  # hundreds must still wait when the last fault comes
PARTS = ("model-echo", "mesh-finisher", "router", "gateway")


def submit_batch(server: Server) -> str:
    items = [{"prompt": f"job {n}"} for n in range(JOBS)]
    answer = server.client.post("/v1/batches", json={"items": items, "priority": "low"})
    assert answer.status_code == 202, answer.text
    return str(answer.json()["id"])


def counts(server: Server, batch_id: str) -> dict[str, int]:
    return dict(server.client.get(f"/v1/batches/{batch_id}").json()["counts"])


def completed_beyond(server: Server, batch_id: str, number: int) -> None:
    until(lambda: counts(server, batch_id)["completed"] > number, f"more than {number}")


def once_more(server: Server, key: str) -> str:
    """Submit with an idempotency key, as a client does that lost the answer before."""
    headers = {"Idempotency-Key": key}

    def accepted() -> str | None:
        try:
            answer = server.client.post("/v1/jobs", json={"prompt": key}, headers=headers)
        except httpx.TransportError:
            return None
        return str(answer.json()["id"]) if answer.status_code == 202 else None

    return until(accepted, "accepted")


def check_all_done(server: Server, batch_id: str, singles: list[str], database: str) -> None:
    until(lambda: counts(server, batch_id)["completed"] == JOBS, "all completed")
    for job_id in singles:
        assert server.ended(job_id)["status"] == "completed"
    with psycopg.connect(database) as connection:
        ends = connection.execute(
            "SELECT job_id, count(*) FROM job_events"
            " WHERE kind IN ('completed', 'failed', 'cancelled') GROUP BY job_id"
        ).fetchall()
        artifacts = connection.execute("SELECT id, artifact_uri FROM jobs").fetchall()
    assert len(ends) == JOBS + len(set(singles))
    assert {number for _, number in ends} == {1}
    assert len({uri for _, uri in artifacts}) == len(artifacts)
    published = {
        path.parent.name for path in Path(server.folder).glob("outputs/jobs/*/result.json")
    }
    assert {str(uri) for _, uri in artifacts} <= published


def test_nothing_is_lost_whatever_dies(tmp_path: Path, postgres: PostgresServer) -> None:
    url = postgres.create_database("faults")
    args = app_args(
        tmp_path, database_url=url, limits={"max_attempts": 20}, finisher={"preview_size": 16}
    )
    singles: list[str] = []
    with serving(tmp_path, args) as server:
        batch_id = submit_batch(server)
        for number, part in enumerate(PARTS):
            completed_beyond(server, batch_id, counts(server, batch_id)["completed"] + 5)
            (victim,) = server.find_replicas(part)
            os.kill(victim, signal.SIGKILL)
            first, second = (once_more(server, f"single {number}") for _ in range(2))
            assert first == second
            singles.append(first)
        completed_beyond(server, batch_id, counts(server, batch_id)["completed"] + 5)
        postgres.kill()
        postgres.start()
        singles.append(once_more(server, "after the database"))
        completed_beyond(server, batch_id, counts(server, batch_id)["completed"] + 5)
        assert counts(server, batch_id)["pending"] > 0
        server.kill_everything()
    with serving(tmp_path, args) as server:
        assert once_more(server, "single 0") == singles[0]
        check_all_done(server, batch_id, singles, _plain(url))


def _plain(url: Any) -> str:
    return str(url).replace("postgresql+psycopg", "postgresql")
