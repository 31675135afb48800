"""Which of several routers dispatches: one at a time, the next one as soon as it is gone."""

from __future__ import annotations

import json

from sqlalchemy import Connection, Engine, func, select, text
from sqlalchemy.exc import SQLAlchemyError

from dream_cad.exceptions import StorageError
from dream_cad.queue.connection import Database
from dream_cad.queue.state import write_state
from dream_cad.queue.tables import job_events, queue_state

_LOCK_KEY = 0x64726D63  # any number of our own
_TRY = text("SELECT pg_try_advisory_lock(:key)")
_DISPATCHER = "dispatcher"


class DispatchLock:
    """A lock that the database frees when its holder's connection is gone.

    PostgreSQL: a session's advisory lock on a connection of its own. SQLite has one router only,
    which the file lock of its owner sees to (OwnerLock): there the lock is always held.

    Args:
        engine: the queue's engine.
    """

    def __init__(self, engine: Engine) -> None:
        self._engine = engine
        self._is_shared = engine.dialect.name == "postgresql"
        self._connection: Connection | None = None
        self._is_held = False

    def hold(self) -> bool:
        """Take the lock or keep it; call it regularly.

        Returns:
            Whether this process has it now.

        Raises:
            StorageError: the database does not answer; the lock may be lost.
        """
        if not self._is_shared:
            return True
        try:
            if self._connection is None:
                engine = self._engine.execution_options(isolation_level="AUTOCOMMIT")
                self._connection = engine.connect()
            if self._is_held:
                self._connection.exec_driver_sql("SELECT 1")
            else:
                self._is_held = self._connection.execute(_TRY, {"key": _LOCK_KEY}).scalar_one()
        except SQLAlchemyError as error:
            self.release()
            raise StorageError(f"The dispatch lock is out of reach: {error}.") from error
        return self._is_held

    def release(self) -> None:
        """Give the lock up; releasing twice is harmless."""
        connection, self._connection, self._is_held = self._connection, None, False
        if connection is not None:
            connection.invalidate()  # back in the pool it would keep the lock
            connection.close()


class DispatchStore:
    """Who dispatched last, and what changed since somebody looked."""

    def __init__(self, database: Database) -> None:
        self._database = database

    def succeed(self, dispatcher: str) -> bool:
        """Note who dispatches from now on; False if it was the last one already."""
        with self._database.connect(write=True) as connection:
            last = connection.execute(
                select(queue_state.c.value).where(queue_state.c.name == _DISPATCHER)
            ).scalar()
            if last == dispatcher:
                return False
            write_state(self._database, connection, _DISPATCHER, json.dumps(dispatcher))
            return True

    def newest_event(self) -> int:
        """Return the number of the newest change of a job's state; 0 if there is none."""
        with self._database.connect(write=False) as connection:
            return connection.execute(select(func.max(job_events.c.seq))).scalar() or 0

    def changed_since(self, seq: int, limit: int) -> tuple[int, list[str]]:
        """Return the newest number and the ids of jobs whose state changed after ``seq``."""
        statement = (
            select(job_events.c.seq, job_events.c.job_id)
            .where(job_events.c.seq > seq)
            .order_by(job_events.c.seq)
            .limit(limit)
        )
        with self._database.connect(write=False) as connection:
            rows = connection.execute(statement).all()
        newest = rows[-1].seq if rows else seq
        return newest, list(dict.fromkeys(row.job_id for row in rows))
