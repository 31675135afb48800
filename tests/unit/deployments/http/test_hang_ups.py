"""A client of /v1/generate that hangs up takes its job along, unless it can come back for it."""

from __future__ import annotations

import asyncio

import pytest

from deployments.messages import JobView
from dream_cad.queue import GenerationJob, JobStatus
from tests.unit.deployments.http.conftest import Stand


class SlowDoor:
    """Lets a job into the queue when the test says so."""

    def __init__(self, stand: Stand) -> None:
        self._stand = stand
        self.at_door = asyncio.Event()
        self.is_open = asyncio.Event()
        self.job_id = ""

    async def make(self, job: GenerationJob, timeout_s: float) -> JobView:
        self.job_id = job.id
        self.at_door.set()
        await self.is_open.wait()
        view = await self._stand.router.submit(job)
        return await self._stand.router.wait(view.job.id, timeout_s)


async def hang_up(stand: Stand, door: SlowDoor, headers: dict[str, str]) -> None:
    body = {"prompt": "a cube"}
    asking = asyncio.create_task(stand.client.post("/v1/generate", json=body, headers=headers))
    await door.at_door.wait()
    asking.cancel()
    with pytest.raises(asyncio.CancelledError):
        await asking
    door.is_open.set()


async def status_of(stand: Stand, door: SlowDoor, wanted: JobStatus) -> JobStatus:
    """Return the job's state once it is the one wanted, or after some patience."""
    status = None
    for _ in range(300):
        status = stand.queue.get_job_status(door.job_id)
        if status is wanted:
            break
        await asyncio.sleep(0.01)
    assert status is not None
    return status


async def test_a_job_on_its_way_into_the_queue_is_cancelled(
    stand: Stand, monkeypatch: pytest.MonkeyPatch
) -> None:
    door = SlowDoor(stand)
    monkeypatch.setattr(stand.router, "make", door.make)
    await hang_up(stand, door, {})
    assert await status_of(stand, door, JobStatus.CANCELLED) is JobStatus.CANCELLED


async def test_with_a_key_the_job_stays(stand: Stand, monkeypatch: pytest.MonkeyPatch) -> None:
    door = SlowDoor(stand)
    monkeypatch.setattr(stand.router, "make", door.make)
    await hang_up(stand, door, {"Idempotency-Key": "come-back"})
    assert await status_of(stand, door, JobStatus.PENDING) is JobStatus.PENDING
    stand.complete()
    answer = await stand.client.post(
        "/v1/generate", json={"prompt": "a cube"}, headers={"Idempotency-Key": "come-back"}
    )
    assert answer.status_code == 200
