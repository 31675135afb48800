from __future__ import annotations

import asyncio
import threading
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


async def test_the_thread_does_other_work_between_two_tries(thread: DatabaseThread) -> None:
    failed, is_back = asyncio.Event(), threading.Event()
    loop = asyncio.get_running_loop()

    def verb() -> str:
        if not is_back.is_set():
            loop.call_soon_threadsafe(failed.set)
            raise StorageError("the database is away")
        return "done"

    stubborn = asyncio.create_task(thread.persistently(verb))
    await failed.wait()
    assert await thread(lambda: "at once") == "at once"
    assert not stubborn.done()
    is_back.set()
    assert await stubborn == "done"


async def test_other_errors_are_not_tried_again(thread: DatabaseThread) -> None:
    calls: list[int] = []

    def verb() -> None:
        calls.append(1)
        raise InvalidConfigError("no")

    with pytest.raises(InvalidConfigError):
        await thread.persistently(verb)
    assert calls == [1]


async def test_a_caller_that_hangs_up_takes_no_answer_along(thread: DatabaseThread) -> None:
    first = asyncio.create_task(thread.add(job(), None))
    others = [asyncio.create_task(thread.add(job(), None)) for _ in range(5)]
    await asyncio.sleep(0)  # the first one's commit is under way, the others wait for the next
    first.cancel()
    async with asyncio.timeout(30):
        ids = await asyncio.gather(*others)
    assert len(set(ids)) == 5
    assert await thread(thread.queue.count, JobStatus.PENDING) == 6
