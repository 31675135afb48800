from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from sqlalchemy import CheckConstraint, Engine, create_engine, event, inspect, text
from sqlalchemy.exc import IntegrityError

from dream_cad.exceptions import InvalidConfigError, StorageError
from dream_cad.queue import JobQueue
from dream_cad.queue.database import OwnerLock, default_database_url, open_engine
from dream_cad.queue.schema import jobs
from dream_cad.queue.tables import metadata
from tests.conftest import SetSettings
from tests.unit.queue.conftest import make_job

BAD_ROWS = {
    "unknown state": "UPDATE jobs SET status = 'lost'",
    "running without a lease": "UPDATE jobs SET status = 'running'",
    "lease while pending": "UPDATE jobs SET lease_token = 'x', lease_until = 1",
    "final without a time": "UPDATE jobs SET status = 'completed'",
    "progress over 1": "UPDATE jobs SET progress = 1.5",
    "attempts over the maximum": "UPDATE jobs SET attempts = 9",
    "unknown priority": "UPDATE jobs SET priority = 4",
}


def test_default_url_follows_the_settings(set_settings: SetSettings, tmp_path: Path) -> None:
    set_settings(output_dir=tmp_path)
    assert default_database_url() == f"sqlite:///{tmp_path / 'jobs.sqlite3'}"
    set_settings(database_url="postgresql://db/jobs")
    assert default_database_url() == "postgresql://db/jobs"


@pytest.mark.parametrize("url", ["sqlite://", "sqlite:///:memory:", "not a url"])
def test_unusable_urls_are_refused(url: str) -> None:
    with pytest.raises(InvalidConfigError):
        open_engine(url)


def test_a_damaged_file_is_a_storage_error(tmp_path: Path) -> None:
    path = tmp_path / "jobs.sqlite3"
    path.write_bytes(b"this is no database" * 100)
    with pytest.raises(StorageError, match="cannot be opened"):
        open_engine(f"sqlite:///{path}")


def test_a_newer_schema_is_refused(database_url: str) -> None:
    JobQueue(database_url).close()
    engine = create_engine(database_url)
    with engine.begin() as connection:
        connection.execute(text("UPDATE dream_cad_schema SET version_num = '9999'"))
    engine.dispose()
    with pytest.raises(StorageError, match="9999"):
        JobQueue(database_url)


def test_opening_twice_migrates_once(database_url: str) -> None:
    first = JobQueue(database_url)
    first.create_batch(["a"], "triposr")
    second = JobQueue(database_url)
    assert len(second.list_jobs().jobs) == 1
    first.close()
    second.close()


def test_migrations_give_the_table_that_the_code_expects(database_url: str) -> None:
    engine = open_engine(database_url)
    found = inspect(engine)
    columns = {(column["name"], column["nullable"]) for column in found.get_columns("jobs")}
    assert columns == {(column.name, bool(column.nullable)) for column in jobs.columns}
    checks = {check["name"] for check in found.get_check_constraints("jobs")}
    assert checks == {c.name for c in jobs.constraints if isinstance(c, CheckConstraint)}
    indexes = {index["name"] for index in found.get_indexes("jobs") if "column_names" in index}
    assert {name for name in indexes if name.startswith("ix_")} == {i.name for i in jobs.indexes}
    tables = set(found.get_table_names()) - {"dream_cad_schema", "sqlite_sequence"}
    engine.dispose()
    assert tables == set(metadata.tables)


@pytest.mark.parametrize("statement", BAD_ROWS.values(), ids=BAD_ROWS.keys())
def test_the_database_refuses_impossible_rows(database_url: str, statement: str) -> None:
    queue = JobQueue(database_url)
    queue.create_batch(["a"], "triposr")
    queue.close()
    engine = open_engine(database_url)
    with pytest.raises(IntegrityError), engine.begin() as connection:
        connection.execute(text(statement))
    engine.dispose()


def test_only_one_process_owns_a_queue(tmp_path: Path) -> None:
    database = tmp_path / "jobs.sqlite3"
    first, second = OwnerLock(database), OwnerLock(database)
    first.acquire(0)
    with pytest.raises(StorageError, match="Another process"):
        second.acquire(0)
    first.release()
    first.release()
    second.acquire(0)
    second.release()


_CLAIM_AND_HANG = """
import sys, time
from pathlib import Path
from dream_cad.queue import JobQueue
from dream_cad.queue.database import OwnerLock
OwnerLock(Path(sys.argv[1])).acquire(0)
job = JobQueue(f"sqlite:///{sys.argv[1]}").get_next_job()
print(job.id, flush=True)
time.sleep(600)
"""


def test_a_killed_owner_loses_no_job(tmp_path: Path) -> None:
    database = tmp_path / "jobs.sqlite3"
    queue = JobQueue(f"sqlite:///{database}")
    (job_id,) = queue.create_batch(["a"], "triposr")
    with subprocess.Popen(
        [sys.executable, "-c", _CLAIM_AND_HANG, str(database)], stdout=subprocess.PIPE, text=True
    ) as worker:
        assert worker.stdout is not None
        assert worker.stdout.readline().strip() == job_id
        lock = OwnerLock(database)
        with pytest.raises(StorageError):
            lock.acquire(0)
        os.kill(worker.pid, signal.SIGKILL)
        worker.wait()
    lock.acquire(10)
    assert [job.id for job in queue.recover()] == [job_id]
    lock.release()
    queue.close()


def test_only_a_claim_does_not_wait_for_the_disk(sqlite_url: str) -> None:
    """A claim that a power cut undoes costs nothing; an accepted job or a result would be lost."""
    queue = JobQueue(sqlite_url)
    said: list[str] = []

    def note(*details: object) -> None:
        said.append(str(details[2]))

    event.listen(Engine, "before_cursor_execute", note)
    try:

        def waits_for_the_disk(verb: Callable[[], object]) -> bool:
            said.clear()
            verb()
            levels = [one for one in said if one.startswith("PRAGMA synchronous=")]
            assert len(levels) == 1
            return levels == ["PRAGMA synchronous=FULL"]

        job = make_job()
        assert waits_for_the_disk(lambda: queue.add_job(job))
        assert not waits_for_the_disk(lambda: queue.get_next_job())
        token = queue.get_job(job.id).lease_token  # type: ignore[union-attr]
        assert waits_for_the_disk(lambda: queue.complete(job.id, token or ""))
    finally:
        event.remove(Engine, "before_cursor_execute", note)
        queue.close()
