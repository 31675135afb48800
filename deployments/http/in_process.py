"""HTTP to an application of the same process, as the gateway's own interface speaks to its API."""

from __future__ import annotations

import asyncio
import contextlib
import contextvars
from collections.abc import AsyncIterator
from typing import Any

import httpx
from starlette.types import ASGIApp, Message, Scope

_ADDRESS = ("127.0.0.1", 0)


class InProcessTransport(httpx.AsyncBaseTransport):
    """Passes requests to an application without a socket; answers stream as they are made.

    httpx's own collects an answer before it returns it, which events never end. The application
    sees a client of this machine: who may use the transport is decided before. Each request runs
    in an empty context, because Serve cancels what belongs to a request that has ended.

    Args:
        app: the application.
    """

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        """Answer once the application has sent its status."""
        exchange = _Exchange(await request.aread())
        context = contextvars.Context()
        loop = asyncio.get_running_loop()
        task = loop.create_task(self._answer(_scope(request), exchange), context=context)
        task.add_done_callback(exchange.ended)
        try:
            start = await exchange.messages.get()
        except asyncio.CancelledError:
            task.cancel()
            raise
        if start is None:
            raise httpx.RemoteProtocolError("The application did not answer.", request=request)
        return httpx.Response(
            start["status"], headers=start["headers"], stream=_Answer(exchange, task)
        )

    async def _answer(self, scope: Scope, exchange: _Exchange) -> None:
        await self._app(scope, exchange.receive, exchange.send)


class _Exchange:
    """One request's body on its way in, and the messages on their way out."""

    def __init__(self, body: bytes) -> None:
        self._body: bytes | None = body
        self._left = asyncio.Event()
        self.messages: asyncio.Queue[Message | None] = asyncio.Queue(maxsize=8)

    async def receive(self) -> Message:
        if self._body is not None:
            body, self._body = self._body, None
            return {"type": "http.request", "body": body, "more_body": False}
        await self._left.wait()
        return {"type": "http.disconnect"}

    async def send(self, message: Message) -> None:
        await self.messages.put(message)

    def ended(self, task: asyncio.Task[Any]) -> None:
        if not task.cancelled():
            task.exception()  # seen: the error is in the application's own log
        with contextlib.suppress(asyncio.QueueFull):
            self.messages.put_nowait(None)

    def leave(self) -> None:
        self._left.set()


class _Answer(httpx.AsyncByteStream):
    def __init__(self, exchange: _Exchange, task: asyncio.Task[Any]) -> None:
        self._exchange, self._task = exchange, task
        self._is_whole = False

    async def __aiter__(self) -> AsyncIterator[bytes]:
        while (message := await self._next()) is not None:
            self._is_whole = not message.get("more_body", False)
            yield message.get("body", b"")
            if self._is_whole:
                return

    async def _next(self) -> Message | None:
        messages = self._exchange.messages
        if self._task.done() and messages.empty():
            return None
        return await messages.get()

    async def aclose(self) -> None:
        self._exchange.leave()
        if not self._is_whole:
            self._task.cancel()
        with contextlib.suppress(asyncio.CancelledError, Exception):
            await self._task


def _scope(request: httpx.Request) -> dict[str, Any]:
    return {
        "type": "http",
        "asgi": {"version": "3.0"},
        "http_version": "1.1",
        "method": request.method,
        "headers": [(name.lower(), value) for name, value in request.headers.raw],
        "scheme": request.url.scheme,
        "path": request.url.path,
        "raw_path": request.url.raw_path.split(b"?")[0],
        "query_string": request.url.query,
        "root_path": "",
        "client": _ADDRESS,
        "server": _ADDRESS,
        "state": {},
    }
