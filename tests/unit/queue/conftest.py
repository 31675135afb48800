from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from dream_cad.queue import GenerationJob, JobPriority, JobQueue


class FakeClock:
    """A clock that stands still until told to go on."""

    def __init__(self) -> None:
        self.now = 1_800_000_000.0

    def __call__(self) -> float:
        return self.now


MakeQueue = Callable[..., JobQueue]


@pytest.fixture
def clock() -> FakeClock:
    return FakeClock()


@pytest.fixture
def database_url(tmp_path: Path) -> str:
    return f"sqlite:///{tmp_path / 'jobs.sqlite3'}"


@pytest.fixture
def make_queue(database_url: str, clock: FakeClock) -> Iterator[MakeQueue]:
    opened: list[JobQueue] = []

    def make(**options: object) -> JobQueue:
        queue = JobQueue(database_url, **{"lease_s": 30.0, "clock": clock, **options})  # type: ignore[arg-type]
        opened.append(queue)
        return queue

    yield make
    for queue in opened:
        queue.close()


@pytest.fixture
def queue(make_queue: MakeQueue) -> JobQueue:
    return make_queue()


def make_job(
    prompt: str = "a chair", priority: JobPriority = JobPriority.NORMAL, **fields: object
) -> GenerationJob:
    fields.setdefault("model_name", "triposr")
    return GenerationJob(prompt=prompt, priority=priority, **fields)  # type: ignore[arg-type]
