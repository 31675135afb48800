"""Whether the queue has room, without counting it for each job."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable

from sqlalchemy import ColumnElement, and_

from dream_cad.exceptions import QueueFullError
from dream_cad.queue.schema import condition, jobs
from dream_cad.queue.store import JobStore

_RETRY_AFTER_S = 30.0
_FAR_FROM_FULL = 0.9
_STALE_AFTER_S = 1.0


class Room:
    """Enforces limits on pending jobs.

    Counting 100,000 rows takes milliseconds, so a count is kept for a second while it, and what
    was added since, stays below nine tenths of the limit; closer than that each look counts.
    Several routers on one database can therefore exceed a limit by what they add in a second,
    never one alone.

    Args:
        store: counts the jobs.
        max_pending: limit for all owners together; None for no limit.
        monotonic: seconds, for the age of a count.
    """

    def __init__(
        self,
        store: JobStore,
        max_pending: int | None,
        monotonic: Callable[[], float] = time.monotonic,
    ) -> None:
        self._store = store
        self._max_pending = max_pending
        self._monotonic = monotonic
        self._counts: dict[str | None, tuple[float, int]] = {}
        self._lock = threading.Lock()

    def require(self, number: int, owner: str | None = None, limit: int | None = None) -> None:
        """Check that ``number`` more jobs fit; without an owner, into the whole queue.

        Raises:
            QueueFullError: they do not; nothing was added.
        """
        limit = self._max_pending if owner is None else limit
        if limit is None:
            return
        known = self._known(owner)
        if known is None or known + number > _FAR_FROM_FULL * limit:
            known = self._store.count(_pending(owner))
            with self._lock:
                self._counts[owner] = (self._monotonic(), known)
        if known + number > limit:
            whose = "" if owner is None else " of this key"
            raise QueueFullError(
                f"{known} jobs{whose} wait and the limit is {limit}.",
                hint="Try again later.",
                details={"retry_after_s": _RETRY_AFTER_S, "pending": known},
            )

    def note_added(self, number: int, owner: str) -> None:
        """Count jobs that were added."""
        with self._lock:
            for key in (None, owner):
                if key in self._counts:
                    at, count = self._counts[key]
                    self._counts[key] = (at, count + number)

    def _known(self, owner: str | None) -> int | None:
        with self._lock:
            at, count = self._counts.get(owner, (-float("inf"), 0))
        return count if self._monotonic() - at < _STALE_AFTER_S else None


def _pending(owner: str | None) -> ColumnElement[bool]:
    pending = condition("status = 'pending'")
    return pending if owner is None else and_(pending, jobs.c.owner == owner)
