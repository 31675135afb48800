"""Runs the same test on both clients: every method becomes one to await."""

from __future__ import annotations

import asyncio
import inspect
from collections.abc import Awaitable, Callable
from typing import Any

from dream_cad.client import AsyncClient, Client


class Both:
    """Either client; iterators become lists.

    ``pauses`` holds the seconds that it slept; ``on_pause`` is called with each of them.
    """

    def __init__(self, kind: str, server: str, **more: Any) -> None:
        self.pauses: list[float] = []
        self.on_pause: Callable[[float], object] = lambda seconds: None
        self.client: Client | AsyncClient
        if kind == "sync":
            self.client = Client(server, sleep=self._sleep, **more)
        else:
            self.client = AsyncClient(server, sleep=self._sleep_async, **more)

    def _sleep(self, seconds: float) -> None:
        self.pauses.append(seconds)
        self.on_pause(seconds)

    async def _sleep_async(self, seconds: float) -> None:
        self._sleep(seconds)

    def __getattr__(self, name: str) -> Callable[..., Awaitable[Any]]:
        method = getattr(self.client, name)

        async def call(*args: Any, **named: Any) -> Any:
            if inspect.isasyncgenfunction(method):
                return [one async for one in method(*args, **named)]
            if inspect.iscoroutinefunction(method):
                return await method(*args, **named)
            if inspect.isgeneratorfunction(method):
                return await asyncio.to_thread(lambda: list(method(*args, **named)))
            return await asyncio.to_thread(method, *args, **named)

        return call

    async def close(self) -> None:
        if isinstance(self.client, Client):
            self.client.close()
        else:
            await self.client.aclose()
