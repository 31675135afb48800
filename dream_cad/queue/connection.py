"""Transactions over one engine, shared by all stores of a queue."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext

from sqlalchemy import Connection, Engine
from sqlalchemy.exc import SQLAlchemyError

from dream_cad.exceptions import StorageError


class Database:
    """Gives out transactions; safe to share between threads.

    On SQLite a lock keeps this process's threads from waiting in the database's unfair busy
    loop; PostgreSQL needs none.

    Args:
        engine: an engine whose schema is up to date.
    """

    def __init__(self, engine: Engine) -> None:
        self._engine = engine
        self._reader = engine.execution_options(read_only=True)
        self._hasty = engine.execution_options(durable=False)
        self.is_postgresql = engine.dialect.name == "postgresql"
        lock: AbstractContextManager[object] = (
            nullcontext() if self.is_postgresql else threading.RLock()
        )
        self._lock = lock
        self._local = threading.local()

    def close(self) -> None:
        """Give the connections back."""
        self._engine.dispose()

    @contextmanager
    def connect(self, *, write: bool, durable: bool = True) -> Iterator[Connection]:
        """Open a transaction, or a savepoint of the one that ``grouped`` holds in this thread.

        Args:
            write: whether it changes anything.
            durable: whether its commit waits for the disk. On SQLite what does not may be undone
                by a power cut, and by nothing else, until the next durable commit. PostgreSQL
                always waits: without, the death of its server alone would undo it.

        Raises:
            StorageError: the database failed; trying again may help.
        """
        group: Connection | None = getattr(self._local, "connection", None)
        with self._lock, _storage_errors():
            if group is None:
                with self._engine_for(write, durable).begin() as connection:
                    yield connection
            elif write:
                with group.begin_nested():
                    yield group
            else:
                yield group

    def _engine_for(self, write: bool, durable: bool) -> Engine:
        if not write:
            return self._reader
        return self._engine if durable or self.is_postgresql else self._hasty

    @contextmanager
    def grouped(self) -> Iterator[None]:
        """Commit everything that this thread does within, once, at the end.

        A verb that raises is undone alone if the caller catches its error within the block.
        """
        with self._lock, _storage_errors(), self._engine.begin() as connection:
            self._local.connection = connection
            try:
                yield
            finally:
                self._local.connection = None


@contextmanager
def _storage_errors() -> Iterator[None]:
    try:
        yield
    except SQLAlchemyError as error:
        raise StorageError(
            f"The job database failed: {error.__class__.__name__}: {error}.",
            hint="Check free disk space and DREAM_CAD_DATABASE_URL, then try again.",
        ) from error


class SteadyClock:
    """Seconds since the epoch that no step of the wall clock moves while the process lives.

    Leases and waits are differences: a clock that is set during a job must not end its lease.

    Args:
        wall: the wall clock, read once.
        monotonic: what counts from then on.
    """

    def __init__(
        self,
        wall: Callable[[], float] = time.time,
        monotonic: Callable[[], float] = time.monotonic,
    ) -> None:
        self._monotonic = monotonic
        self._offset = wall() - monotonic()

    def __call__(self) -> float:
        """Return the time."""
        return self._offset + self._monotonic()
