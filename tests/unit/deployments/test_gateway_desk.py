from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import contextmanager
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from deployments.gateway_desk import GatewayDesk
from deployments.messages import JobView
from deployments.watching import Watchers
from dream_cad.exceptions import JobNotFoundError, QueueFullError
from dream_cad.queue import GenerationJob, JobQueue, JobStatus


class Desk(GatewayDesk):
    """The desk on a queue of its own, as the router has it."""

    def __init__(self, queue: JobQueue) -> None:
        self._queue = queue
        self._watchers = Watchers()
        self.changed = asyncio.Event()
        self.runs: dict[str, Any] = {}
        self.woken = 0

    async def get(self, job_id: str) -> JobView:
        job = self._queue.get_job(job_id)
        if job is None:
            raise JobNotFoundError("no such job")
        return JobView(job, None, None)

    async def _database(self, verb: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
        return verb(*args, **kwargs)

    @contextmanager
    def _watching(self, job_id: str) -> Any:
        yield self.changed

    def _find_run(self, job_id: str) -> Any:
        return self.runs.get(job_id)

    def _wake_all(self) -> None:
        self.woken += 1

    async def _until_begun(self, jobs: list[GenerationJob]) -> None:
        assert self.woken

    def _require_license(self, job: GenerationJob) -> None:
        return

    def _retry_after_s(self, model_name: str) -> float:
        return 12.0


@pytest.fixture
async def desk(tmp_path: Path) -> AsyncIterator[Desk]:
    queue = JobQueue(f"sqlite:///{tmp_path}/jobs.sqlite3", max_pending=5)
    yield Desk(queue)
    queue.close()


def jobs(count: int) -> list[GenerationJob]:
    return [GenerationJob(prompt=f"p{number}", model_name="echo") for number in range(count)]


async def test_a_repeated_batch_is_the_same_batch(desk: Desk) -> None:
    sent = jobs(3)
    first = await desk.submit_batch(sent, "n", "")
    again = await desk.submit_batch(sent, "n", "")
    assert first.id == again.id
    assert len(desk._queue.list_jobs().jobs) == 3
    assert desk.woken == 1


async def test_a_batch_that_does_not_fit_says_when_to_return(desk: Desk) -> None:
    with pytest.raises(QueueFullError) as caught:
        await desk.submit_batch(jobs(6), "", "")
    assert caught.value.details["retry_after_s"] == 12.0


async def test_a_keys_quota_holds_for_batches(desk: Desk) -> None:
    key, _ = desk._queue.keys.create_key("k", max_pending=2)
    with pytest.raises(QueueFullError):
        await desk.submit_batch(jobs(3), "", key.id)
    assert (await desk.submit_batch(jobs(2), "", key.id)).owner == key.id


async def test_unknown_batches(desk: Desk) -> None:
    with pytest.raises(JobNotFoundError):
        await desk.batch("nobody")


async def test_following_replays_then_waits_for_the_end(desk: Desk) -> None:
    queue = desk._queue
    queue.add_job(GenerationJob(id="j", prompt="x", model_name="echo"))
    claimed = queue.get_next_job()
    assert claimed is not None
    assert claimed.lease_token is not None
    stream = desk.follow("j", None)
    seen = [await anext(stream) for _ in range(2)]
    assert [event.kind for event in seen] == ["pending", "running"]
    assert seen[0].view.job.status is JobStatus.PENDING  # as it was then
    queue.report_progress("j", claimed.lease_token, 0.5, "step 5 of 10")
    desk.changed.set()
    progress = await anext(stream)
    assert (progress.event_id, progress.kind) == (None, "progress")
    assert (progress.view.job.progress, progress.view.job.stage) == (0.5, "step 5 of 10")
    queue.complete("j", claimed.lease_token, "key")
    desk.changed.set()
    rest = [event async for event in stream]
    assert [event.kind for event in rest] == ["completed"]
    resumed = [event.event_id async for event in desk.follow("j", seen[0].event_id)]
    assert resumed == [seen[1].event_id, rest[0].event_id]
    assert [event async for event in desk.follow("j", rest[0].event_id)] == []


async def test_links_are_signed_with_a_secret_of_their_own(desk: Desk) -> None:
    key, other = (desk._queue.keys.create_key(name)[0] for name in "ab")
    secret = await desk.link_secret(key.id)
    assert secret not in (None, key.webhook_secret, await desk.link_secret(other.id))
    assert secret == await desk.link_secret(key.id)
    desk._queue.keys.revoke(key.id)
    for unknown in (key.id, "", "nobody"):
        assert await desk.link_secret(unknown) is None


async def test_keys_leave_without_their_secrets(desk: Desk) -> None:
    assert not await desk.any_key()
    _, text = desk._queue.keys.create_key("k")
    assert await desk.any_key()
    found = await desk.verify_key(text)
    assert found is not None
    assert found.webhook_secret == ""
    assert [key.webhook_secret for key in await desk.keys()] == [""]
    assert await desk.verify_key("dcad_x_y") is None


async def test_switches_and_licences(desk: Desk) -> None:
    await desk.pause("echo")
    await desk.drain()
    switches = await desk.switches()
    assert (switches.models, switches.draining) == (("echo",), True)
    await desk.resume("echo")
    await desk.undrain()
    assert (await desk.switches()).models == ()
    await desk.accept_license("echo", "MIT", "me")
    assert [entry.accepted_by for entry in await desk.licenses()] == ["me"]


async def test_cancelling_a_batch_stops_its_runs_and_tells_who_waits(desk: Desk) -> None:
    sent = jobs(2)
    for job in sent:
        job.policy = {"webhook": "https://hooks.example.com/x"}
    batch = await desk.submit_batch(sent, "n", "")
    running = desk._queue.get_next_job()
    assert running is not None
    stopped: list[str] = []
    desk.runs[running.id] = SimpleNamespace(stop=lambda: stopped.append(running.id))
    waiting = next(job.id for job in sent if job.id != running.id)
    with desk._watchers.watch(waiting) as changed:
        await desk.cancel_batch(batch.id)
        assert changed.is_set()
    assert stopped == [running.id]
    assert desk._queue.get_job_status(waiting) is JobStatus.CANCELLED
    assert [call.event for call in await desk.deliveries(waiting)] == ["job.cancelled"]
    assert await desk.deliveries(running.id) == []
    with pytest.raises(JobNotFoundError):
        await desk.cancel_batch("nobody")
