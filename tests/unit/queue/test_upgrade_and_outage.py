"""A database of version 0001 is taken over; a PostgreSQL that dies and returns loses nothing."""

from __future__ import annotations

import uuid
from collections.abc import Iterator
from pathlib import Path

import pytest
from alembic import command
from alembic.config import Config
from sqlalchemy import create_engine, text

from dream_cad.exceptions import StorageError
from dream_cad.queue import JobFilter, JobQueue, JobStatus
from dream_cad.queue.database import with_driver
from tests.postgres import PostgresServer
from tests.unit.queue.conftest import claim, make_job

OLD_ROW = """
INSERT INTO jobs (id, model_name, prompt, config, status, priority, created_at, completed_at,
    progress, stage, attempts, max_attempts, cancel_requested, timings, batch_id)
VALUES (:id, 'triposr', 'old', '{}', :status, 2, 1.0, :ended, 0, '', 0, 3, :no, '{}', 'batch')
"""


@pytest.fixture(params=["sqlite", "postgresql"])
def empty_url(request: pytest.FixtureRequest, tmp_path: object) -> Iterator[str]:
    if request.param == "sqlite":
        yield f"sqlite:///{tmp_path}/old.sqlite3"
        return
    server: PostgresServer = request.getfixturevalue("postgres")
    name = f"old_{uuid.uuid4().hex}"
    yield server.create_database(name)
    server.drop_database(name)


def make_version_0001(url: str) -> None:
    engine = create_engine(with_driver(url))
    config = Config()
    config.set_main_option("script_location", "dream_cad.queue:migrations")
    with engine.begin() as connection:
        config.attributes["connection"] = connection
        command.upgrade(config, "0001")
        for job_id, status, ended in (("a", "failed", 5.0), ("b", "pending", None)):
            values = {"id": job_id, "status": status, "ended": ended, "no": False}
            connection.execute(text(OLD_ROW), values)
    engine.dispose()


def test_jobs_of_version_0001_are_taken_over(empty_url: str) -> None:
    make_version_0001(empty_url)
    queue = JobQueue(empty_url)
    batch = queue.get_batch("batch")
    assert batch is not None
    assert (batch.total, batch.counts[JobStatus.FAILED]) == (2, 1)
    assert [job.batch_index for job in queue.list_batch("batch").jobs] == [0, 1]
    job, token = claim(queue)
    assert (job.id, job.level, job.owner) == ("b", 2, "")
    queue.complete(job.id, token, "key")
    fresh = queue.add_job(make_job())
    assert [found.id for found in queue.list_jobs(JobFilter()).jobs] == [fresh, "b", "a"]
    queue.close()


def test_an_upgrade_cannot_be_taken_back(tmp_path: Path) -> None:
    url = f"sqlite:///{tmp_path}/jobs.sqlite3"
    queue = JobQueue(url)
    queue.add_job(make_job())
    engine = create_engine(url)
    config = Config()
    config.set_main_option("script_location", "dream_cad.queue:migrations")
    with engine.begin() as connection:
        config.attributes["connection"] = connection
        with pytest.raises(StorageError) as caught:
            command.downgrade(config, "0001")
    engine.dispose()
    assert "copy of the database" in str(caught.value.hint)
    assert queue.count(JobStatus.PENDING) == 1
    queue.close()


def test_a_killed_postgresql_loses_nothing_that_was_accepted(
    postgres: PostgresServer, postgres_url: str
) -> None:
    queue = JobQueue(postgres_url)
    ids = queue.create_batch([str(number) for number in range(20)], "triposr")
    job, token = claim(queue)
    postgres.kill()
    try:
        with pytest.raises(StorageError) as caught:
            queue.add_job(make_job())
        assert caught.value.retryable
    finally:
        postgres.start()
    queue.complete(job.id, token, "key")
    assert queue.count(JobStatus.PENDING) == 19
    claimed = [claim(queue)[0].id for _ in range(19)]
    assert [job.id, *claimed] == ids
    queue.close()
