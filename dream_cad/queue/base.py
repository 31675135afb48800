"""What the parts of a JobQueue share: stores, clock, waiters."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager

from dream_cad.queue.batches import BatchStore
from dream_cad.queue.connection import Database, SteadyClock
from dream_cad.queue.database import default_database_url, open_engine
from dream_cad.queue.dispatch import DispatchLock, DispatchStore
from dream_cad.queue.jobs import GenerationJob, ResultLoader
from dream_cad.queue.keys import KeyStore
from dream_cad.queue.licenses import LicenseStore
from dream_cad.queue.listing import ListingStore
from dream_cad.queue.memory import MemoryStore
from dream_cad.queue.results import load_result
from dream_cad.queue.room import Room
from dream_cad.queue.state import StateStore
from dream_cad.queue.store import JobStore
from dream_cad.queue.sweeps import SweepStore
from dream_cad.queue.webhooks import WebhookStore


class QueueBase:
    """The state of a JobQueue; see there for the arguments."""

    def __init__(
        self,
        database_url: str | None = None,
        *,
        lease_s: float = 30.0,
        max_pending: int | None = None,
        ageing_s: float = 1200.0,
        result_ttl_s: float | None = None,
        result_loader: ResultLoader = load_result,
        clock: Callable[[], float] | None = None,
    ) -> None:
        self.database_url = database_url or default_database_url()
        self._clock = clock or SteadyClock()
        engine = open_engine(self.database_url)
        self._database = Database(engine)
        self._dispatch_lock = DispatchLock(engine)
        self._dispatch = DispatchStore(self._database)
        self._store = JobStore(self._database)
        self._batches = BatchStore(self._database)
        self._listing = ListingStore(self._database)
        self._sweeps = SweepStore(self._database)
        self._state = StateStore(self._database)
        self._room = Room(self._store, max_pending)
        self.keys = KeyStore(self._database, self._clock)
        self.webhooks = WebhookStore(self._database, self._clock)
        self.licenses = LicenseStore(self._database, self._clock)
        self.memory = MemoryStore(self._database)
        self.lease_s = lease_s
        self._ageing_s = ageing_s
        self._result_ttl_s = result_ttl_s
        self._result_loader = result_loader
        self._held: dict[str, str] = {}
        self._changed = threading.Condition()

    def close(self) -> None:
        """Close the database connections."""
        self._dispatch_lock.release()
        self._database.close()

    def grouped(self) -> AbstractContextManager[None]:
        """Return a context in which this thread's calls share one transaction, one commit.

        Nothing within is durable before the block has ended. A call that raises is undone alone,
        provided that its error is caught within; an error that leaves the block undoes all.
        """
        return self._grouped()

    @contextmanager
    def _grouped(self) -> Iterator[None]:
        try:
            with self._database.grouped():
                yield
        finally:
            self._notify()

    def _bound(self, job: GenerationJob) -> GenerationJob:
        """Let the job find its result."""
        job.loader = self._result_loader
        return job

    def _notify(self) -> None:
        with self._changed:
            self._changed.notify_all()
