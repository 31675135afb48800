"""The moment between handing a job to a replica and its beginning there."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable
from typing import Protocol

_AT_MOST_S = 0.5


class OnItsWay(Protocol):
    """A run, as far as its beginning goes."""

    has_slot: bool
    begun: asyncio.Event

    @property
    def level(self) -> int:
        """Effective priority."""


async def until_begun(runs: Iterable[OnItsWay], level: int) -> None:
    """Wait until what is less urgent than ``level`` and on its way to a replica has begun there.

    Nothing of a lower level is sent after a job was accepted, but what was sent a moment before
    takes milliseconds to arrive. A client that is told "accepted" after this sees no such job
    start later. A replica that says nothing for half a second is waited for no longer.
    """
    sent = [run.begun for run in runs if run.has_slot and run.level < level]
    try:
        async with asyncio.timeout(_AT_MOST_S):
            for begun in sent:
                await begun.wait()
    except TimeoutError:
        return
