"""Work that goes on when the request that began it is given up."""

from __future__ import annotations

import asyncio
import contextvars
from collections.abc import Coroutine
from typing import Any, TypeVar

from deployments.http.request_id import request_id_var

T = TypeVar("T")


class Detached:
    """Starts tasks that outlive their request.

    Serve cancels the calls that a cancelled request made, and finds them by a context variable; so
    a detached task begins with an empty context. The event loop holds tasks weakly; so they are
    held here.
    """

    def __init__(self) -> None:
        self._tasks: set[asyncio.Task[Any]] = set()

    def start(self, work: Coroutine[Any, Any, T]) -> asyncio.Task[T]:
        """Start work; the request's id goes along for the log."""
        context = contextvars.Context()
        context.run(request_id_var.set, request_id_var.get())
        task = asyncio.get_running_loop().create_task(work, context=context)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        return task
