"""The real lane, runs, gate and queue; only the replicas are local."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

import pytest

from deployments.attempt import Stages
from deployments.charge import Charge
from deployments.database_thread import DatabaseThread
from deployments.gate import PriorityGate
from deployments.lane import Lane
from deployments.messages import Done, Failed, Finished, ModelInfo, Picture
from deployments.metrics import RouterMetrics
from deployments.plan import ModelPlan
from dream_cad.queue import GenerationJob, JobPriority, JobQueue, JobStatus

_TRIALS = 100


class Stream:
    """What a streaming call into a replica gives."""

    def __init__(self, events: AsyncIterator[Any]) -> None:
        self._events = events

    def __aiter__(self) -> AsyncIterator[Any]:
        return self._events

    def cancel(self) -> None:
        """Nothing is left to stop: the test has no replica."""


class Method:
    """A method of a replica: ``handle.method.remote(request)``."""

    def __init__(self, remote: Callable[..., Any]) -> None:
        self.remote = remote


class Stage:
    """A stage that notes who came and keeps each until the test lets it go."""

    def __init__(self) -> None:
        self.came: list[str] = []
        self.product: Any = None
        self.error: Exception | None = None
        self.replicas = 1
        self.failures: list[Failed] = []
        self.discarded: list[str] = []
        self._doors: dict[str, asyncio.Event] = {}
        self.generate = Method(lambda request: Stream(self._generate(request)))
        self.finish = Method(self._finish)
        self.discard = Method(self._discard)
        self.broadcast = self._broadcast

    def options(self, **_: Any) -> Stage:
        return self

    def let_go(self, *prompts: str) -> None:
        for prompt in prompts:
            self._door(prompt).set()

    def _door(self, prompt: str) -> asyncio.Event:
        return self._doors.setdefault(prompt, asyncio.Event())

    async def _generate(self, request: Any) -> AsyncIterator[Any]:
        self.came.append(request.prompt)
        await self._door(request.prompt).wait()
        if self.error is not None:
            raise self.error
        yield self.failures.pop() if self.failures else Done(self.product, 0.0)

    async def _finish(self, request: Any) -> Finished:
        prompt = request.receipt["prompt"]
        self.came.append(prompt)
        await self._door(prompt).wait()
        return Finished(request.key, {})

    async def _discard(self, key: str) -> None:
        self.discarded.append(key)

    def _broadcast(self, *_: Any) -> Any:
        return self

    async def results_async(self, timeout_s: float) -> list[ModelInfo]:
        return [ModelInfo(is_ready=True)] * self.replicas


class Bench:
    """A lane at work."""

    def __init__(self, lane: Lane, thread: DatabaseThread, text: Stage, model: Stage) -> None:
        self.lane, self.thread, self.text, self.model = lane, thread, text, model
        self.finisher: Any = lane.stages.finisher
        self.serving = asyncio.create_task(lane.serve())

    async def add(self, prompt: str, priority: JobPriority = JobPriority.LOW) -> str:
        job = GenerationJob(prompt=prompt, model_name="echo", priority=priority)
        job_id = await self.thread(self.thread.queue.add_job, job)
        self.lane.wake(job)
        return str(job_id)

    async def until(self, condition: Callable[[], bool]) -> None:
        async with asyncio.timeout(30):
            while not condition():
                await asyncio.sleep(0.0005)

    async def status(self, job_id: str) -> JobStatus:
        return JobStatus(await self.thread(self.thread.queue.get_job_status, job_id))


@pytest.fixture
async def open_bench(tmp_path: Path) -> AsyncIterator[Any]:
    """Return a function that opens a lane: slots, and whether text becomes a picture first."""

    opened: list[Bench] = []

    async def open_it(slots: int = 1, *, with_text: bool = False) -> Bench:
        thread = DatabaseThread(lambda: JobQueue(f"sqlite:///{tmp_path}/jobs.sqlite3"))
        await thread.open()
        text, model, finisher = Stage(), Stage(), Stage()
        text.product = Picture(None, {})
        model.replicas = slots
        charge = Charge(thread, "test")
        await charge.check()
        stages: Any = Stages(
            model=model,  # type: ignore[arg-type]
            text=text if with_text else None,  # type: ignore[arg-type]
            text_gate=PriorityGate(1),
            finisher=finisher,  # type: ignore[arg-type]
            gate=PriorityGate(slots),
            finishing=asyncio.Semaphore(8),
            timeout_s=60.0,
            grace_s=1.0,
            backoff_s=0.0,
            finish_options=frozenset(),
            text_options={},
            receipt={},
        )
        lane = Lane(
            ModelPlan("echo", is_deployed=True, reason="", num_replicas=slots),
            stages,
            thread,
            RouterMetrics(),
            look_ahead=1,
            is_shared=False,
            charge=charge,
            router_id="test",
            find_site=lambda name: None,
            on_change=lambda job_id: None,
        )
        opened.append(Bench(lane, thread, text, model))
        return opened[0]

    yield open_it
    for bench in opened:
        while not bench.serving.done():  # wait_for of Python 3.11 may swallow a cancellation
            bench.serving.cancel()
            await asyncio.wait({bench.serving}, timeout=0.1)
        await bench.thread(bench.thread.queue.close)


async def test_an_urgent_job_starts_next_whenever_it_comes(open_bench: Any) -> None:
    """The slot becomes free while the urgent job, which is durable already, is being claimed."""
    bench = await open_bench()
    names = ("low1", "low2", "urgent")
    bench.finisher.let_go(*(f"{name} {n}" for name in names for n in range(_TRIALS)))
    for n in range(_TRIALS):
        bench.model.came.clear()
        await bench.add(f"low1 {n}")
        await bench.until(lambda n=n: bench.model.came == [f"low1 {n}"])
        await bench.add(f"low2 {n}")
        await bench.until(lambda: len(bench.lane.runs) == 2)
        await bench.add(f"urgent {n}", JobPriority.URGENT)
        bench.model.let_go(f"low1 {n}", f"low2 {n}", f"urgent {n}")
        await bench.until(lambda: len(bench.model.came) == 3 and not bench.lane.runs)
        assert bench.model.came == [f"low1 {n}", f"urgent {n}", f"low2 {n}"]
    assert bench.lane.stages.gate.free == 1


async def test_an_urgent_job_gets_the_slot_while_its_picture_is_drawn(open_bench: Any) -> None:
    bench = await open_bench(with_text=True)
    await _reserve_for_urgent(bench)
    bench.text.let_go("urgent")
    await bench.until(lambda: not bench.lane.runs)
    assert bench.model.came == ["low1", "urgent", "low2"]
    assert bench.lane.stages.gate.free == 1


async def test_many_slots_are_all_given_back(open_bench: Any) -> None:
    bench = await open_bench(3)
    names = [f"{priority.name} {n}" for n in range(20) for priority in JobPriority]
    bench.model.let_go(*names)
    bench.finisher.let_go(*names)
    ids = [await bench.add(name, JobPriority[name.split()[0]]) for name in names]
    await bench.until(lambda: len(bench.finisher.came) == len(names) and not bench.lane.runs)
    assert {await bench.status(job_id) for job_id in ids} == {JobStatus.COMPLETED}
    assert sorted(bench.model.came) == sorted(names)
    assert bench.lane.stages.gate.free == 3


async def test_the_model_goes_on_while_meshes_are_finished(open_bench: Any) -> None:
    bench = await open_bench()
    names = [str(n) for n in range(5)]
    bench.model.let_go(*names)
    for name in names:
        await bench.add(name)
    await bench.until(lambda: len(bench.finisher.came) == len(names))
    bench.finisher.let_go(*names)
    await bench.until(lambda: not bench.lane.runs)


async def test_an_unforeseen_error_gives_the_reserved_slot_back(open_bench: Any) -> None:
    asyncio.get_running_loop().set_exception_handler(lambda *_: None)
    bench = await open_bench(with_text=True)
    await _reserve_for_urgent(bench)
    bench.text.error = LookupError("nobody thought of this")
    bench.text.let_go("urgent")
    await bench.until(lambda: bench.model.came == ["low1", "low2"] and not bench.lane.runs)
    assert bench.lane.stages.gate.free == 1


async def _reserve_for_urgent(bench: Bench) -> None:
    """Leave an urgent job at the text stage, with the one slot reserved for it."""
    bench.finisher.let_go("low1", "low2", "urgent")
    bench.text.let_go("low1", "low2")
    await bench.add("low1")
    await bench.until(lambda: bench.model.came == ["low1"])
    await bench.add("low2")
    await bench.until(lambda: bench.text.came == ["low1", "low2"])
    await bench.add("urgent", JobPriority.URGENT)
    await bench.until(lambda: bench.text.came == ["low1", "low2", "urgent"])
    bench.model.let_go("low1", "low2", "urgent")
    await bench.until(lambda: any(run.is_reserved for run in bench.lane.runs.values()))
    assert bench.model.came == ["low1"]


async def test_a_result_of_a_lost_lease_is_deleted(open_bench: Any) -> None:
    bench = await open_bench()
    bench.model.let_go("late")
    job_id = await bench.add("late")
    await bench.until(lambda: bench.finisher.came == ["late"])
    queue = bench.thread.queue

    def taken_back_and_cancelled() -> None:
        queue.recover()
        queue.cancel(job_id)

    await bench.thread(taken_back_and_cancelled)
    bench.finisher.let_go("late")
    await bench.until(lambda: bench.finisher.discarded == [f"{job_id}-1"])
    assert await bench.status(job_id) is JobStatus.CANCELLED


async def test_work_that_nobody_stopped_here_is_tried_again(open_bench: Any) -> None:
    """A replica that another router adopted gives the work up."""
    bench = await open_bench()
    bench.model.failures = [Failed({"type": "generation-cancelled"}, False, is_cancelled=True)]
    bench.model.let_go("stolen")
    bench.finisher.let_go("stolen")
    job_id = await bench.add("stolen")
    await bench.until(lambda: bench.model.came == ["stolen"] * 2 and not bench.lane.runs)
    assert await bench.status(job_id) is JobStatus.COMPLETED


async def test_an_urgent_job_that_waited_for_another_starts_next(open_bench: Any) -> None:
    """Nobody tells the lane of it but the end of the job that it waited for."""
    bench = await open_bench()
    first = await bench.add("first")
    await bench.until(lambda: bench.model.came == ["first"])
    needy = GenerationJob(
        prompt="needy", model_name="echo", priority=JobPriority.URGENT, depends_on=[first]
    )
    await bench.thread(bench.thread.queue.add_job, needy)
    names = [f"low {n}" for n in range(4)]
    for name in names:
        await bench.add(name)
    bench.finisher.let_go("first", "needy", *names)
    bench.model.let_go("first")
    await bench.until(lambda: bench.model.came == ["first", "low 0"])
    await bench.until(lambda: needy.id in bench.lane.runs)
    bench.model.let_go("low 0", "needy")
    await bench.until(lambda: len(bench.model.came) >= 3)
    assert bench.model.came[:3] == ["first", "low 0", "needy"]
    bench.model.let_go(*names)
    await bench.until(lambda: len(bench.model.came) == 6 and not bench.lane.runs)


async def test_the_database_is_asked_once_a_job_while_nothing_urgent_comes(
    open_bench: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    bench = await open_bench()
    names = [f"low {n}" for n in range(50)]
    bench.model.let_go(*names)
    bench.finisher.let_go(*names)
    claims = 0
    claim = bench.thread.queue.get_next_job

    def counted(*args: Any, **kwargs: Any) -> GenerationJob | None:
        nonlocal claims
        claims += 1
        return claim(*args, **kwargs)

    monkeypatch.setattr(bench.thread.queue, "get_next_job", counted)
    await bench.thread(bench.thread.queue.pause, None)
    for name in names:
        await bench.add(name)
    await bench.thread(bench.thread.queue.resume, None)
    claims = 0
    bench.lane.wake()
    await bench.until(lambda: len(bench.finisher.came) == 50 and not bench.lane.runs)
    assert claims < 1.5 * len(names)
