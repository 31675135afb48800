from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from deployments.database_thread import DatabaseThread
from dream_cad.exceptions import InvalidConfigError, StorageError
from dream_cad.queue import GenerationJob, JobQueue, JobStatus


@pytest.fixture
async def thread(tmp_path: Path) -> AsyncIterator[DatabaseThread]:
    thread = DatabaseThread(lambda: JobQueue(f"sqlite:///{tmp_path}/jobs.sqlite3"))
    await thread.open()
    yield thread
    await thread(thread.queue.close)


def job(**fields: Any) -> GenerationJob:
    return GenerationJob(prompt="a cube", model_name="echo", **fields)


async def test_jobs_that_come_together_are_all_added(thread: DatabaseThread) -> None:
    jobs = [job() for _ in range(40)]
    ids = await asyncio.gather(*(thread.add(one, None) for one in jobs))
    assert ids == [one.id for one in jobs]
    assert await thread(thread.queue.count, JobStatus.PENDING) == 40


async def test_a_bad_job_fails_alone(thread: DatabaseThread) -> None:
    bad = GenerationJob(prompt=" ", model_name="echo")
    outcomes = await asyncio.gather(
        thread.add(job(), None), thread.add(bad, None), thread.add(job(), None),
        return_exceptions=True,
    )  # fmt: skip
    assert isinstance(outcomes[1], InvalidConfigError)
    assert await thread(thread.queue.count, JobStatus.PENDING) == 2


async def test_an_owners_limit_holds_within_a_group(thread: DatabaseThread) -> None:
    outcomes = await asyncio.gather(
        *(thread.add(job(owner="studio"), 2) for _ in range(5)), return_exceptions=True
    )
    assert [isinstance(outcome, Exception) for outcome in outcomes] == [False] * 2 + [True] * 3


async def test_what_must_not_be_lost_is_tried_again(thread: DatabaseThread) -> None:
    calls = 0

    def verb() -> str:
        nonlocal calls
        calls += 1
        if calls < 3:
            raise StorageError("the database is away")
        return "done"

    assert await thread.persistently(verb) == "done"
    assert calls == 3
