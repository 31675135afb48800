"""The one thread of a router that talks to the database, and the group commit of submissions."""

from __future__ import annotations

import asyncio
import logging
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
from dream_cad.queue import GenerationJob, JobQueue

logger = logging.getLogger(__name__)

_PATIENCE_S = 30.0
_MOST_TOGETHER = 256


class DatabaseThread:
    """Runs the queue's verbs one after the other, off the event loop.

    Jobs that are submitted while a commit is under way are committed together by the next one:
    the disk is flushed once for all of them.

    Args:
        open_queue: makes the queue, called in the thread.
    """

    def __init__(self, open_queue: Callable[[], JobQueue]) -> None:
        self._pool = ThreadPoolExecutor(1, thread_name_prefix="database")
        self._open_queue = open_queue
        self._waiting: list[tuple[GenerationJob, int | None, asyncio.Future[str]]] = []
        self._adding: asyncio.Task[None] | None = None
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

    async def add(self, job: GenerationJob, max_pending: int | None) -> str:
        """Add a job together with others that come at the same time; returns its id.

        Args:
            job: the job.
            max_pending: waiting jobs that its owner may have.

        Raises:
            DreamCadError: as ``JobQueue.add_job``.
        """
        done: asyncio.Future[str] = asyncio.get_running_loop().create_future()
        self._waiting.append((job, max_pending, done))
        if self._adding is None:
            # A task of its own: a caller that hangs up must not take the others' answers along.
            self._adding = asyncio.create_task(self._add_all())
        return await done

    async def _add_all(self) -> None:
        try:
            while self._waiting:
                await self._add_together()
        finally:
            self._adding = None

    async def _add_together(self) -> None:
        group, self._waiting = self._waiting[:_MOST_TOGETHER], self._waiting[_MOST_TOGETHER:]
        jobs = [job for job, _, _ in group]
        limits = {job.owner: limit for job, limit, _ in group if limit is not None}
        try:
            outcomes = await self(self.queue.add_each, jobs, max_pending=limits)
        except Exception as error:  # noqa: BLE001 - whatever it is, each caller has to be answered
            outcomes = [error] * len(group)
        for (_, _, done), outcome in zip(group, outcomes, strict=True):
            if done.done():
                continue
            if isinstance(outcome, Exception):
                done.set_exception(outcome)
            else:
                done.set_result(outcome)
