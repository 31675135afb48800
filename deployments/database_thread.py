"""The one thread of a router that talks to the database."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import Any

from tenacity import (
    AsyncRetrying,
    retry_if_exception_type,
    stop_after_delay,
    wait_exponential,
)

from dream_cad.exceptions import StorageError
from dream_cad.queue import JobQueue

_PATIENCE_S = 30.0


class DatabaseThread:
    """Runs the queue's verbs one after the other, off the event loop.

    Args:
        open_queue: makes the queue, called in the thread.
    """

    def __init__(self, open_queue: Callable[[], JobQueue]) -> None:
        self._pool = ThreadPoolExecutor(1, thread_name_prefix="database")
        self._open_queue = open_queue
        self.queue: JobQueue

    async def open(self) -> None:
        """Open the queue; call it once, first."""
        self.queue = await self(self._open_queue)

    async def __call__(self, verb: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
        """Call ``verb`` in the thread."""
        loop = asyncio.get_running_loop()
        return await loop.run_in_executor(self._pool, partial(verb, *args, **kwargs))

    async def persistently(self, verb: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
        """Call ``verb``, again and again while the database is away; for what must not be lost.

        Between two calls the thread is free for other work.

        Raises:
            StorageError: it was away for half a minute.
        """
        attempts = AsyncRetrying(
            retry=retry_if_exception_type(StorageError),
            stop=stop_after_delay(_PATIENCE_S),
            wait=wait_exponential(multiplier=0.1, max=2.0),
            reraise=True,
        )
        return await attempts(self.__call__, verb, *args, **kwargs)
