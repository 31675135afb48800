"""One claim of a job: tries, gates, limits of time, and being stopped."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from datetime import UTC, datetime, timedelta
from types import SimpleNamespace
from typing import Any

import pytest

from deployments.attempt import Stages
from deployments.gate import PriorityGate
from deployments.jobrun import JobRun
from deployments.messages import Done, Failed, Finished, Picture, Progress, Rejected
from dream_cad.queue import GenerationJob

BROKEN = Failed({"type": "generation-failed", "detail": "round"}, is_retryable=False)
LOST = Failed({"type": "service-unavailable", "detail": "lost"}, is_retryable=True)
REFUSED = Rejected([{"gate": "watertight", "wanted": True, "measured": False}])
SEED, NEXT = 7, 7 + 1_000_003


class Model:
    """A stage that answers what the test says: a Done, a Failed, or an event to wait for."""

    def __init__(self, *answers: Any) -> None:
        self.answers = list(answers)
        self.requests: list[Any] = []
        self.cancelled: list[str] = []
        self.is_deaf = False
        self.begun = asyncio.Event()
        self.stopped = asyncio.Event()
        self.generate = SimpleNamespace(remote=self._stream)

    def options(self, **_: Any) -> Model:
        return self

    def _stream(self, request: Any) -> Any:
        self.requests.append(request)
        return self._events()

    async def _events(self) -> AsyncIterator[Any]:
        answer = self.answers.pop(0) if self.answers else Done("mesh", 1.5)
        yield Progress(0.5, "sampling")
        if answer == "wait":
            self.begun.set()
            await self.stopped.wait()
            answer = Failed({"type": "generation-cancelled"}, False, is_cancelled=True)
        yield answer

    def broadcast(self, method: str, job_id: str) -> Any:
        assert method == "cancel"
        self.cancelled.append(job_id)
        if not self.is_deaf:
            self.stopped.set()

        async def results(timeout_s: float) -> list[bool]:
            return [True]

        return SimpleNamespace(results_async=results)


class Finisher:
    """Publishes, or refuses as often as told."""

    def __init__(self) -> None:
        self.refusals: list[Rejected] = []
        self.qualities: list[float] = []
        self.requests: list[Any] = []
        self.discarded: list[str] = []
        self.finish = SimpleNamespace(remote=self._finish)
        self.discard = SimpleNamespace(remote=self._discard)

    async def _finish(self, request: Any) -> Finished | Rejected:
        self.requests.append(request)
        if self.refusals:
            return self.refusals.pop(0)
        quality = self.qualities.pop(0) if self.qualities else None
        return Finished(request.key, {"export_s": 0.1}, quality)

    async def _discard(self, key: str) -> None:
        self.discarded.append(key)


class Site:
    """The lane of a model, with nothing but its stages and a slot."""

    def __init__(self, model: Model, finisher: Finisher, text: Model | None, **limits: Any) -> None:
        fields = {"timeout_s": 60.0, "grace_s": 5.0, **limits}
        self.held = 0
        self.stages = Stages(
            model=model,  # type: ignore[arg-type]
            text=text,  # type: ignore[arg-type]
            text_gate=PriorityGate(1),
            finisher=finisher,  # type: ignore[arg-type]
            gate=PriorityGate(1),
            finishing=asyncio.Semaphore(4),
            backoff_s=0.0,
            finish_options=frozenset({"target_faces"}),
            text_options={},
            receipt={"license": "MIT"},
            gpu_share=0.5,
            **fields,
        )

    @asynccontextmanager
    async def hold_slot(self, run: JobRun) -> AsyncIterator[None]:
        self.held += 1
        yield


class Bench:
    """A run, its sites by model, and what they saw."""

    def __init__(self, model: Model, *, text: Model | None = None, **limits: Any) -> None:
        self.model, self.finisher = model, Finisher()
        self.sites = {"a": Site(model, self.finisher, text, **limits)}
        self.told: list[str] = []

    def add_site(self, name: str, model: Model, text: Model | None = None) -> None:
        self.sites[name] = Site(model, self.finisher, text)

    def start(self, **fields: Any) -> JobRun:
        fields.setdefault("config", {"seed": SEED})
        job = GenerationJob(prompt="a cube", model_name="a", attempts=1, id="job", **fields)
        find: Callable[[str], Any] = self.sites.get
        run = JobRun(job, self.sites["a"], find, lambda: self.told.append(job.stage))
        self.run = run
        return run


@pytest.fixture(autouse=True)
def local_streams(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(
        "deployments.attempt.stream_of",
        lambda handle, method, *args: getattr(handle, method).remote(*args),
    )
    monkeypatch.setattr("deployments.attempt.cancel_stream", lambda stream: None)


def policy(**fields: Any) -> dict[str, Any]:
    return {"require": {"watertight": True}, **fields}


async def test_a_job_is_made_and_finished() -> None:
    bench = Bench(Model(Done("mesh", 2.0, peak_memory_bytes=5)))
    run = bench.start(config={"seed": SEED, "target_faces": 100, "steps": 4})
    outcome = await run.run()
    assert outcome == Finished("job-1", {"export_s": 0.1})
    (request,) = bench.model.requests
    assert (request.job_id, request.options) == ("job", {"seed": SEED, "steps": 4})
    (finish,) = bench.finisher.requests
    assert (finish.result, finish.options) == ("mesh", {"target_faces": 100})
    assert finish.receipt["license"] == "MIT"
    assert finish.receipt["options"]["seed"] == SEED
    assert run.usage.timings == {"model_s": 2.0, "export_s": 0.1}
    assert run.usage.gpu_seconds == 1.0  # two seconds of half a GPU
    assert run.usage.peak_memory_bytes == 5
    assert "model: sampling" in bench.told
    assert bench.told[-1] == "finishing"


async def test_a_refused_result_is_made_again_from_another_seed() -> None:
    bench = Bench(Model())
    bench.finisher.refusals = [REFUSED]
    outcome = await bench.start(policy=policy(max_tries=3)).run()
    assert outcome == Finished("job-1-1", {"export_s": 0.1})
    assert [request.options["seed"] for request in bench.model.requests] == [SEED, NEXT]
    assert any(stage.startswith("try 2 of 3, ") for stage in bench.told)
    assert bench.run.usage.timings["model_s"] == 3.0


async def test_the_refusal_says_which_gate_failed_in_which_try() -> None:
    bench = Bench(Model())
    bench.finisher.refusals = [REFUSED] * 2
    outcome = await bench.start(policy=policy(models=["a", "gone"], max_tries=3)).run()
    assert isinstance(outcome, Failed)
    assert not outcome.is_retryable
    assert outcome.problem["type"] == "not-accepted"
    tries = [(one["model"], one["failed"][0]["gate"]) for one in outcome.problem["tries"]]
    assert tries == [("a", "watertight"), ("a", "watertight"), ("gone", "model")]


async def test_a_model_that_fails_gives_way_to_the_next() -> None:
    bench = Bench(Model(BROKEN))
    other = Model()
    bench.add_site("b", other)
    outcome = await bench.start(policy={"models": ["a", "b"]}).run()
    assert isinstance(outcome, Finished)
    assert len(other.requests) == 1
    assert (bench.sites["a"].held, bench.sites["b"].held) == (1, 1)


@pytest.mark.parametrize("failure", [BROKEN, LOST])
async def test_a_single_try_fails_with_its_own_problem(failure: Failed) -> None:
    bench = Bench(Model(failure))
    assert await bench.start().run() == failure


async def test_trouble_of_the_cluster_is_for_another_attempt_not_another_try() -> None:
    bench = Bench(Model(LOST))
    other = Model()
    bench.add_site("b", other)
    assert await bench.start(policy={"models": ["a", "b"]}).run() == LOST
    assert other.requests == []


async def test_the_best_of_several_is_kept_and_the_others_are_discarded() -> None:
    bench = Bench(Model())
    bench.add_site("b", Model())
    bench.add_site("c", Model(BROKEN))
    bench.finisher.qualities = [60.0, 80.0]
    outcome = await bench.start(policy={"models": ["a", "b", "c"], "pick": "best"}).run()
    assert outcome == Finished("job-1-1", {"export_s": 0.1}, 80.0)
    assert bench.finisher.discarded == ["job-1"]
    assert all(request.is_ranked for request in bench.finisher.requests)


async def test_an_attempt_that_is_begun_anew_leaves_no_result_behind() -> None:
    bench = Bench(Model())
    bench.add_site("b", Model(LOST))
    bench.finisher.qualities = [60.0]
    assert await bench.start(policy={"models": ["a", "b"], "pick": "best"}).run() == LOST
    assert bench.finisher.discarded == ["job-1"]


async def test_a_stopped_run_leaves_no_result_behind() -> None:
    bench = Bench(Model())
    waiting = Model("wait")
    bench.add_site("b", waiting)
    run = bench.start(policy={"models": ["a", "b"], "pick": "best"})
    working = asyncio.create_task(run.run())
    await waiting.begun.wait()
    run.stop()
    assert isinstance(await working, Failed)
    assert bench.finisher.discarded == ["job-1"]


async def test_a_picture_is_drawn_once_for_all_models_of_a_seed() -> None:
    text = Model(Done(Picture("pixels", {}), 1.0))
    bench = Bench(Model(BROKEN), text=text)
    bench.add_site("b", Model(), text)
    outcome = await bench.start(policy={"models": ["a", "b"]}).run()
    assert isinstance(outcome, Finished)
    assert len(text.requests) == 1
    assert bench.finisher.requests[0].picture.pixels == "pixels"
    assert bench.run.usage.timings["text_to_image_s"] == 1.0


async def test_an_uploaded_picture_needs_no_text_stage() -> None:
    text = Model()
    bench = Bench(Model(), text=text)
    assert isinstance(await bench.start(input_uri="job-input").run(), Finished)
    assert text.requests == []
    assert bench.model.requests[0].input_key == "job-input"


@pytest.mark.parametrize("has_picture", [True, False])
async def test_a_mesh_to_texture_needs_a_picture_of_its_prompt(has_picture: bool) -> None:
    text = Model()
    bench = Bench(Model(), text=text)
    policy = {"mesh": True, "picture": has_picture}
    assert isinstance(await bench.start(input_uri="job-input", policy=policy).run(), Finished)
    assert len(text.requests) == (0 if has_picture else 1)
    assert bench.model.requests[0].has_mesh


async def test_a_cancelled_job_stops_its_stage_at_the_next_step() -> None:
    bench = Bench(Model("wait"))
    working = asyncio.create_task(bench.start().run())
    await bench.model.begun.wait()
    bench.run.stop()
    outcome = await working
    assert isinstance(outcome, Failed)
    assert outcome.is_cancelled
    assert bench.model.cancelled == ["job"]
    assert bench.finisher.requests == []


async def test_a_stage_that_does_not_listen_is_forced() -> None:
    bench = Bench(Model("wait"), grace_s=0.01)
    bench.model.is_deaf = True
    working = asyncio.create_task(bench.start().run())
    await bench.model.begun.wait()
    bench.run.abandon()
    outcome = await working
    assert isinstance(outcome, Failed)
    assert outcome.is_cancelled
    assert bench.run.is_abandoned


async def test_a_job_that_runs_past_its_time_fails_for_good() -> None:
    bench = Bench(Model("wait"), timeout_s=0.01)
    outcome = await bench.start().run()
    assert isinstance(outcome, Failed)
    assert (outcome.is_retryable, outcome.is_cancelled) == (False, False)
    assert outcome.problem["type"] == "generation-timeout"
    assert "ran past its 0.01 s" in outcome.problem["detail"]
    assert bench.model.cancelled == ["job"]


async def test_a_deadline_that_has_passed_is_told_as_such() -> None:
    bench = Bench(Model("wait"))
    outcome = await bench.start(deadline=datetime.now(UTC) - timedelta(seconds=1)).run()
    assert isinstance(outcome, Failed)
    assert "deadline" in outcome.problem["detail"]


async def test_work_that_another_router_stopped_is_tried_again() -> None:
    stopped = Failed({"type": "generation-cancelled"}, is_retryable=False, is_cancelled=True)
    outcome = await Bench(Model(stopped)).start().run()
    assert isinstance(outcome, Failed)
    assert (outcome.is_retryable, outcome.is_cancelled) == (True, False)


def test_the_rank_is_the_level_then_the_age() -> None:
    def run(**fields: Any) -> JobRun:
        job = GenerationJob(prompt="x", model_name="a", **fields)
        return JobRun(job, None, lambda _: None, lambda: None)  # type: ignore[arg-type]

    aged, urgent, old = run(level=2, seq=9), run(level=3, seq=10), run(level=2, seq=1)
    assert sorted([aged.rank, urgent.rank, old.rank]) == [urgent.rank, old.rank, aged.rank]
