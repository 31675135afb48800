from __future__ import annotations

import asyncio
import threading
from typing import Any

from deployments.messages import Busy, Done, Event, Failed, Progress
from deployments.steps import StepRunner, Work
from dream_cad.exceptions import GenerationError, StorageError
from dream_cad.models.base import ProgressCallback


async def collect(runner: StepRunner, work: Work, job_id: str = "job") -> list[Event]:
    return [event async for event in runner.run(job_id, work)]


async def test_progress_then_the_product() -> None:
    told, go_on = threading.Event(), threading.Event()

    def work(progress: ProgressCallback) -> str:
        progress(0.5, "half")
        told.set()
        go_on.wait()
        return "product"

    events: list[Event] = []
    async for event in StepRunner().run("job", work):
        events.append(event)
        if len(events) == 2:
            go_on.set()
    assert events[:2] == [Progress(0.0, ""), Progress(0.5, "half")]
    assert isinstance(events[-1], Done)
    assert events[-1].product == "product"
    assert events[-1].seconds >= 0


async def test_progress_is_kept_in_range() -> None:
    go_on = threading.Event()

    def work(progress: ProgressCallback) -> None:
        progress(1.7, "over")
        go_on.wait()

    runner = StepRunner()
    events = runner.run("job", work)
    await anext(events)
    assert await anext(events) == Progress(1.0, "over")
    go_on.set()
    assert isinstance([event async for event in events][-1], Done)


async def test_errors_become_problems() -> None:
    def fail(_: ProgressCallback) -> None:
        raise GenerationError("No surface.", details={"threshold": 25})

    def full(_: ProgressCallback) -> None:
        raise StorageError("The disk is full.")

    def bug(_: ProgressCallback) -> None:
        raise KeyError("colour")

    runner = StepRunner()
    failed, stored, broken = [(await collect(runner, work))[-1] for work in (fail, full, bug)]
    assert isinstance(failed, Failed)
    assert failed.problem["type"] == "generation-failed"
    assert failed.problem["threshold"] == 25
    assert not failed.is_retryable
    assert isinstance(stored, Failed)
    assert stored.is_retryable
    assert isinstance(broken, Failed)
    assert "KeyError" in broken.problem["detail"]


async def test_cancellation_stops_at_the_next_step() -> None:
    started = threading.Event()

    def work(progress: ProgressCallback) -> None:
        while True:
            progress(0.1, "step")
            started.set()

    runner = StepRunner()
    running = asyncio.create_task(collect(runner, work))
    await asyncio.to_thread(started.wait)
    assert runner.cancel("somebody else") is False
    assert runner.cancel("job") is True
    last = (await running)[-1]
    assert isinstance(last, Failed)
    assert last.is_cancelled
    assert not runner.is_busy


async def test_a_second_job_is_told_to_come_back() -> None:
    go_on = threading.Event()
    runner = StepRunner()
    first = asyncio.create_task(collect(runner, lambda _: go_on.wait()))
    await asyncio.sleep(0)
    assert await collect(runner, lambda _: None, "other") == [Busy()]
    go_on.set()
    assert isinstance((await first)[-1], Done)
    assert isinstance((await collect(runner, lambda _: None, "other"))[-1], Done)


async def test_abandoned_work_that_does_not_stop_is_noticed() -> None:
    go_on, has_begun = threading.Event(), threading.Event()

    def work(progress: ProgressCallback) -> Any:
        progress(0.5, "begun")
        has_begun.set()
        go_on.wait()

    runner = StepRunner(grace_s=0.0)
    events = runner.run("job", work)
    await anext(events)
    assert not runner.is_stuck
    await events.aclose()  # type: ignore[attr-defined]
    assert runner.is_stuck
    assert runner.is_busy
    go_on.set()
    while runner.is_busy:
        await asyncio.sleep(0)
    assert not runner.is_stuck
