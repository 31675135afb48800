from __future__ import annotations

import asyncio
import threading
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from deployments.database_thread import DatabaseThread
from dream_cad.exceptions import InvalidConfigError, StorageError
from dream_cad.queue import JobQueue


@pytest.fixture
async def thread(tmp_path: Path) -> AsyncIterator[DatabaseThread]:
    thread = DatabaseThread(lambda: JobQueue(f"sqlite:///{tmp_path}/jobs.sqlite3"))
    await thread.open()
    yield thread
    await thread(thread.queue.close)


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
