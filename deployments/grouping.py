"""Bundle what comes while a call is under way into the next call."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Coroutine
from typing import Any, Generic, TypeVar

Item = TypeVar("Item")
Outcome = TypeVar("Outcome")

Call = Callable[[list[Item]], Awaitable[list[Outcome | Exception]]]
Start = Callable[[Coroutine[Any, Any, None]], asyncio.Task[None]]


class Grouping(Generic[Item, Outcome]):
    """Makes one call for all items that came since the last one; a lone item goes at once.

    Args:
        call: takes items, gives the outcome or the error of each, in order.
        most: items in one call.
        start: starts the task that makes the calls, which no caller's cancellation may end.
    """

    def __init__(
        self, call: Call[Item, Outcome], most: int, start: Start = asyncio.create_task
    ) -> None:
        self._call = call
        self._most = most
        self._start = start
        self._waiting: list[tuple[Item, asyncio.Future[Outcome]]] = []
        self._calling: asyncio.Task[None] | None = None

    async def __call__(self, item: Item) -> Outcome:
        """Return the outcome of one item, or raise its error."""
        done: asyncio.Future[Outcome] = asyncio.get_running_loop().create_future()
        self._waiting.append((item, done))
        if self._calling is None:
            # A task of its own: a caller that hangs up must not take the others' answers along.
            self._calling = self._start(self._call_all())
        return await done

    async def _call_all(self) -> None:
        try:
            while self._waiting:
                group, self._waiting = self._waiting[: self._most], self._waiting[self._most :]
                await self._call_once(group)
        finally:
            self._calling = None

    async def _call_once(self, group: list[tuple[Item, asyncio.Future[Outcome]]]) -> None:
        try:
            outcomes = await self._call([item for item, _ in group])
        except Exception as error:  # noqa: BLE001 - whatever it is, each caller has to be answered
            outcomes = [error] * len(group)
        for (_, done), outcome in zip(group, outcomes, strict=True):
            if done.done():
                continue
            if isinstance(outcome, Exception):
                done.set_exception(outcome)
            else:
                done.set_result(outcome)
