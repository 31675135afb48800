from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import pytest

from dream_cad.cli import run
from dream_cad.queue import JobPriority, JobQueue


@pytest.fixture
def queue() -> Iterator[JobQueue]:
    """The queue that the commands find: SQLite in the test's output folder."""
    queue = JobQueue()
    yield queue
    queue.close()


def output_of(capsys: pytest.CaptureFixture[str], *words: str) -> str:
    assert run(words) == 0
    return capsys.readouterr().out


def json_of(capsys: pytest.CaptureFixture[str], *words: str) -> Any:
    return json.loads(output_of(capsys, *words, "--json"))


def test_a_created_key_works_until_revoked(
    queue: JobQueue, capsys: pytest.CaptureFixture[str]
) -> None:
    text = output_of(capsys, "keys", "create", "team").strip()
    key = queue.keys.verify(text)
    assert key is not None
    assert key.scopes == {"submit", "read"}
    assert key.id in output_of(capsys, "keys", "list")
    output_of(capsys, "keys", "revoke", key.id)
    assert queue.keys.verify(text) is None
    assert "revoked" in output_of(capsys, "keys", "list")
    assert run(["keys", "revoke", key.id]) == 2
    assert "no valid key" in capsys.readouterr().err


def test_key_options(queue: JobQueue, capsys: pytest.CaptureFixture[str]) -> None:
    made = json_of(
        capsys, "keys", "create", "ops", "--scope", "admin", "--rate-per-minute", "9",
        "--max-pending", "7", "--weight", "2.5",
    )  # fmt: skip
    key = queue.keys.verify(made["key"])
    assert key is not None
    assert (key.rate_per_minute, key.max_pending, key.weight) == (9, 7, 2.5)
    (listed,) = json_of(capsys, "keys", "list")
    assert listed["scopes"] == ["admin"]
    assert made["key"].split("_", 2)[2] not in json.dumps(listed)
    assert run(["keys", "create", "x", "--scope", "root"]) == 2


def test_queue_status(queue: JobQueue, capsys: pytest.CaptureFixture[str]) -> None:
    queue.create_batch(["a", "b"], "triposr", priority=JobPriority.HIGH)
    state = json_of(capsys, "queue", "status")
    (row,) = state["depth"]
    assert (row["model"], row["priority"], row["count"]) == ("triposr", "HIGH", 2)
    assert state["counts"] == {"pending": 2, "running": 0}
    text = output_of(capsys, "queue", "status")
    assert "HIGH" in text
    assert "2 pending, 0 running; open" in text


def test_pause_drain_and_resume(queue: JobQueue, capsys: pytest.CaptureFixture[str]) -> None:
    queue.create_batch(["a"], "triposr")
    output_of(capsys, "queue", "pause", "--model", "triposr")
    assert queue.is_paused("triposr")
    assert "paused models: triposr" in output_of(capsys, "queue", "status")
    output_of(capsys, "queue", "resume", "--model", "triposr")
    output_of(capsys, "queue", "pause")
    assert "; paused" in output_of(capsys, "queue", "status")
    assert output_of(capsys, "queue", "drain", "--wait") == "drained\n"
    assert "; draining" in output_of(capsys, "queue", "status")
    assert queue.get_next_job() is None
    output_of(capsys, "queue", "resume")
    assert queue.get_next_job() is not None


def test_licences(queue: JobQueue, capsys: pytest.CaptureFixture[str]) -> None:
    output_of(capsys, "licenses", "accept", "triposr", "--by", "ada")
    rows = {row["model"]: row for row in json_of(capsys, "licenses", "list")}
    assert rows["triposr"]["accepted_by"] == "ada"
    assert rows["trellis"]["accepted_by"] is None
    assert queue.licenses.is_accepted("triposr", rows["triposr"]["license"])
    assert "ada" in output_of(capsys, "licenses", "list")
    assert run(["licenses", "accept", "nobody"]) == 1
