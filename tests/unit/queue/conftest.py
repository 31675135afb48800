from __future__ import annotations

import shutil
import uuid
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from dream_cad.queue import GenerationJob, JobPriority, JobQueue
from tests.postgres import TEMPLATE, PostgresServer


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


@pytest.fixture(scope="session")
def sqlite_template(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A database with its schema; copying it is faster than migrating for each test."""
    path = tmp_path_factory.mktemp("template") / "jobs.sqlite3"
    JobQueue(f"sqlite:///{path}").close()
    return path


@pytest.fixture
def sqlite_url(tmp_path: Path, sqlite_template: Path) -> str:
    shutil.copy(sqlite_template, tmp_path / "jobs.sqlite3")
    return f"sqlite:///{tmp_path / 'jobs.sqlite3'}"


@pytest.fixture
def postgres_url(postgres: PostgresServer) -> Iterator[str]:
    name = f"test_{uuid.uuid4().hex}"
    yield postgres.create_database(name, TEMPLATE)
    postgres.drop_database(name)


@pytest.fixture(params=["sqlite", "postgresql"])
def database_url(request: pytest.FixtureRequest) -> str:
    """One suite for both databases."""
    name = "sqlite_url" if request.param == "sqlite" else "postgres_url"
    url: str = request.getfixturevalue(name)
    return url


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


def claim(queue: JobQueue, model_name: str | None = None) -> tuple[GenerationJob, str]:
    job = queue.get_next_job(model_name)
    assert job is not None
    assert job.lease_token is not None
    return job, job.lease_token
