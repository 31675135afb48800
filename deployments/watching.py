"""Waiting for a job to change."""

from __future__ import annotations

import asyncio


class Watchers:
    """Events that are set whenever a job changes, kept while somebody looks."""

    def __init__(self) -> None:
        self._events: dict[str, set[asyncio.Event]] = {}

    def changed(self, job_id: str) -> None:
        """Wake whoever watches the job."""
        for event in self._events.get(job_id, ()):
            event.set()

    def watch(self, job_id: str) -> Watch:
        """Return a context in which changes of the job set an event."""
        return Watch(self._events, job_id)


class Watch:
    """Registers an event for the length of a block."""

    def __init__(self, events: dict[str, set[asyncio.Event]], job_id: str) -> None:
        self._events, self._job_id, self._event = events, job_id, asyncio.Event()

    def __enter__(self) -> asyncio.Event:
        self._events.setdefault(self._job_id, set()).add(self._event)
        return self._event

    def __exit__(self, *_: object) -> None:
        events = self._events[self._job_id]
        events.discard(self._event)
        if not events:
            del self._events[self._job_id]


async def wait_for(event: asyncio.Event, timeout_s: float) -> None:
    """Return when the event is set, or after a while."""
    try:
        await asyncio.wait_for(event.wait(), timeout_s)
    except TimeoutError:
        return
