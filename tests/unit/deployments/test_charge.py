from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from deployments.charge import Charge
from deployments.database_thread import DatabaseThread
from dream_cad.exceptions import StorageError
from dream_cad.queue import GenerationJob, JobQueue, JobStatus
from tests.postgres import PostgresServer


async def open_thread(url: str) -> DatabaseThread:
    thread = DatabaseThread(lambda: JobQueue(url))
    await thread.open()
    return thread


@pytest.fixture
async def two(postgres: PostgresServer) -> AsyncIterator[list[DatabaseThread]]:
    url = postgres.create_database("charge")
    threads = [await open_thread(url) for _ in range(2)]
    yield threads
    for thread in threads:
        await thread(thread.queue.close)
    postgres.drop_database("charge")


async def test_the_next_router_takes_over_jobs_and_charge(two: list[DatabaseThread]) -> None:
    first, second = Charge(two[0], "first"), Charge(two[1], "second")
    await first.check()
    await second.check()
    assert (first.is_held, second.is_held) == (True, False)
    assert not await second.wait(0.01)
    job_id = await two[0](two[0].queue.add_job, GenerationJob(prompt="a chair", model_name="echo"))
    await two[0](two[0].queue.get_next_job, "echo")
    await two[0](two[0].queue.close)  # as when its process dies
    async with asyncio.timeout(30):  # PostgreSQL takes a moment to see that it is gone
        while not second.is_held:
            await second.check()
    assert await second.wait(1.0)
    assert await two[1](two[1].queue.get_job_status, job_id) is JobStatus.PENDING


async def test_the_same_router_keeps_its_jobs_over_an_outage(tmp_path: Path) -> None:
    thread = await open_thread(f"sqlite:///{tmp_path}/jobs.sqlite3")
    charge = Charge(thread, "only")
    await charge.check()
    job_id = await thread(thread.queue.add_job, GenerationJob(prompt="a chair", model_name="echo"))
    await thread(thread.queue.get_next_job, "echo")
    again = Charge(thread, "only")
    await again.check()
    assert await thread(thread.queue.get_job_status, job_id) is JobStatus.RUNNING
    await thread(thread.queue.close)


async def test_an_outage_is_told_and_leaves_the_charge_as_it_was(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    thread = await open_thread(f"sqlite:///{tmp_path}/jobs.sqlite3")
    charge = Charge(thread, "only")
    await charge.check()

    def away() -> bool:
        raise StorageError("the database is away")

    monkeypatch.setattr(thread.queue, "hold_dispatch", away)
    with pytest.raises(StorageError):
        await charge.check()
    assert charge.is_held
    await thread(thread.queue.close)
