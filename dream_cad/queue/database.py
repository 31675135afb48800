"""Opening the queue's database: engine, SQLite pragmas, migrations, ownership."""

from __future__ import annotations

import fcntl
import json
import os
import time
from pathlib import Path
from typing import Any

from alembic import command
from alembic.config import Config
from alembic.util import CommandError
from sqlalchemy import URL, Connection, Engine, create_engine, event, make_url
from sqlalchemy.exc import ArgumentError, SQLAlchemyError

from dream_cad.exceptions import InvalidConfigError, StorageError
from dream_cad.settings import get_settings

_BUSY_TIMEOUT_S = 30.0
_LOCK_POLL_S = 0.05
_EMPTY_JSON: dict[type, str] = {dict: "{}", list: "[]"}


def _to_json(value: Any) -> str:
    """Write JSON; most columns of most jobs are empty, and batches have thousands of jobs."""
    return (not value and _EMPTY_JSON.get(type(value))) or json.dumps(value)


def default_database_url() -> str:
    """Return DREAM_CAD_DATABASE_URL, else SQLite in DREAM_CAD_OUTPUT_DIR."""
    settings = get_settings()
    return settings.database_url or f"sqlite:///{settings.output_dir.absolute() / 'jobs.sqlite3'}"


def sqlite_path(url: str) -> Path | None:
    """Return the file behind a SQLite URL, or None for another database."""
    try:
        parsed = make_url(url)
    except ArgumentError as error:
        raise InvalidConfigError(
            f"The database URL {url!r} is not one that SQLAlchemy understands.",
            hint="Example: sqlite:////var/lib/dream_cad/jobs.sqlite3",
        ) from error
    if parsed.get_backend_name() != "sqlite":
        return None
    if not parsed.database or parsed.database == ":memory:":
        raise InvalidConfigError(
            "The job queue is durable and needs a SQLite file, not memory.",
            hint="Example: sqlite:////var/lib/dream_cad/jobs.sqlite3",
        )
    return Path(parsed.database)


def open_engine(url: str) -> Engine:
    """Connect to the database and bring its schema up to date.

    Raises:
        InvalidConfigError: the URL is not understood.
        StorageError: the file or server cannot be reached, or a newer version made it.
    """
    path = sqlite_path(url)
    engine: Engine | None = None
    try:
        if path is not None:
            path.parent.mkdir(parents=True, exist_ok=True)
        # Pinged before use: a PostgreSQL that was restarted costs one new connection, no error.
        engine = create_engine(
            with_driver(url), pool_pre_ping=path is None, json_serializer=_to_json
        )
        if path is not None:
            event.listen(engine, "connect", _configure_sqlite)
            event.listen(engine, "begin", _begin_sqlite)
        _migrate(engine)
    except (OSError, SQLAlchemyError, CommandError) as error:
        if engine is not None:
            engine.dispose()
        raise StorageError(
            f"The job database at {make_url(url).render_as_string()} cannot be opened: {error}.",
            hint="Check the path, its permissions, free disk space and the program's version.",
        ) from error
    return engine


def with_driver(url: str) -> URL:
    """Return the URL with psycopg as the driver of a PostgreSQL URL that names none."""
    parsed = make_url(url)
    if parsed.drivername in ("postgresql", "postgres"):
        return parsed.set(drivername="postgresql+psycopg")
    return parsed


def _configure_sqlite(connection: Any, _record: object) -> None:
    # The driver's own BEGIN comes too late for an immediate lock: we send it (_begin_sqlite).
    connection.isolation_level = None
    cursor = connection.cursor()
    cursor.execute(f"PRAGMA busy_timeout={int(_BUSY_TIMEOUT_S * 1000)}")
    cursor.execute("PRAGMA journal_mode=WAL")
    cursor.close()


def _begin_sqlite(connection: Connection) -> None:
    options = connection.get_execution_options()
    read_only = options.get("read_only", False)
    if not read_only:
        # FULL: a commit survives a power cut, so a 202 is a promise that holds.
        level = "FULL" if options.get("durable", True) else "NORMAL"
        connection.exec_driver_sql(f"PRAGMA synchronous={level}")
    connection.exec_driver_sql("BEGIN" if read_only else "BEGIN IMMEDIATE")


def _migrate(engine: Engine) -> None:
    config = Config()
    config.set_main_option("script_location", "dream_cad.queue:migrations")
    with engine.begin() as connection:
        config.attributes["connection"] = connection
        command.upgrade(config, "head")


class OwnerLock:
    """A file lock held by the one process that works a SQLite queue.

    The kernel drops it when the owner dies, however it dies; so whoever gets it knows that all
    leases of the owner before are void.
    """

    def __init__(self, database: Path) -> None:
        self._path = database.with_name(database.name + ".owner")
        self._descriptor: int | None = None

    def acquire(self, timeout_s: float) -> None:
        """Wait for the lock.

        Raises:
            StorageError: another process kept it for ``timeout_s`` seconds.
        """
        descriptor = os.open(self._path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
        deadline = time.monotonic() + timeout_s
        while True:
            try:
                fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                if time.monotonic() >= deadline:
                    os.close(descriptor)
                    raise StorageError(
                        f"Another process works the job queue at {self._path.with_suffix('')}.",
                        hint="Stop the other server, or give this one its own output_dir.",
                    ) from None
                time.sleep(_LOCK_POLL_S)
            else:
                self._descriptor = descriptor
                return

    def release(self) -> None:
        """Give the lock up; releasing twice is harmless."""
        if self._descriptor is not None:
            os.close(self._descriptor)
            self._descriptor = None
