"""Requests over a connection, with patience: the blocking kind and the one to await."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from pathlib import Path
from typing import TypeVar

import httpx
import tenacity
from pydantic import BaseModel

from dream_cad.client import calls
from dream_cad.client.calls import Call, Request
from dream_cad.client.documents import JobEvent
from dream_cad.client.events import Following
from dream_cad.client.files import whole_file
from dream_cad.client.patience import Patience, unreachable
from dream_cad.client.problems import refusal
from dream_cad.exceptions import InvalidConfigError
from dream_cad.settings import get_settings

D = TypeVar("D", bound=BaseModel)
T = TypeVar("T")

_TIMEOUT = httpx.Timeout(60.0, connect=10.0)
_BLOCK_BYTES = 2**18


class Address:
    """A server, the key that it is shown, and how long it may be away.

    Args:
        server: base URL; ``DREAM_CAD_SERVER`` if None.
        api_key: ``DREAM_CAD_API_KEY`` if None.
        patience_s: ``DREAM_CAD_PATIENCE_S`` if None.

    Raises:
        InvalidConfigError: one of them cannot be used.
    """

    def __init__(self, server: str | None, api_key: str | None, patience_s: float | None) -> None:
        settings = get_settings()
        self.server = _checked_url(server or settings.server)
        stored = settings.api_key.get_secret_value() if settings.api_key else None
        key = api_key or stored
        self.headers = {"Authorization": f"Bearer {_checked_key(key)}"} if key else {}
        total_s = settings.patience_s if patience_s is None else patience_s
        if not total_s >= 0:
            raise InvalidConfigError(f"patience_s is {total_s}; seconds from 0 are needed.")
        self.patience = Patience(total_s)


def _checked_url(server: str) -> str:
    try:
        url = httpx.URL(server)
    except httpx.InvalidURL:
        url = httpx.URL()
    if url.scheme not in ("http", "https") or not url.host:
        raise InvalidConfigError(
            f"Server {server!r} is no http:// or https:// URL.",
            hint="Name it like http://127.0.0.1:8000.",
        )
    return server.rstrip("/")


def _checked_key(key: str) -> str:
    if not (key.isascii() and key.isprintable()):
        raise InvalidConfigError(
            "The API key holds characters that a header cannot.",
            hint="Copy the line that 'dream-cad keys create' printed, without its end.",
        )
    return key


class Connection:
    """Sends requests and waits for their answers.

    Args:
        address: the server.
        transport: replaces the network, for tests.
        sleep: waits the given seconds.
    """

    def __init__(
        self,
        address: Address,
        transport: httpx.BaseTransport | None,
        sleep: Callable[[float], None],
    ) -> None:
        self._server, self._patience, self._sleep = address.server, address.patience, sleep
        self._http = httpx.Client(
            base_url=address.server, headers=address.headers, timeout=_TIMEOUT, transport=transport
        )

    def close(self) -> None:
        """Close the connections."""
        self._http.close()

    def send(self, call: Call[D]) -> D:
        """Return the document that answers a call."""

        def once() -> D:
            return call.read(self._request(call.request))

        return self._patiently(once)

    def read(self, request: Request) -> bytes:
        """Return the content of an answer."""
        return self._patiently(lambda: self._request(request).content)

    def download(self, request: Request, path: Path) -> Path:
        """Write the content of an answer to a file, which appears only when it is whole."""

        def once() -> Path:
            try:
                with self._http.stream(request.method, request.url, **request.parts) as response:
                    self._check_open(response)
                    with whole_file(path) as file:
                        for block in response.iter_bytes(_BLOCK_BYTES):
                            file.write(block)
            except httpx.RequestError as error:
                raise unreachable(self._server, error) from error
            return path

        return self._patiently(once)

    def stream_events(self, job_id: str, following: Following) -> Iterator[JobEvent]:
        """Yield a job's events until it has ended, or this one connection."""
        url = f"{calls.job_url(job_id)}/events"
        try:
            with self._http.stream("GET", url, **following.request_parts()) as response:
                self._check_open(response)
                if not following.accepts(response):
                    return
                for chunk in response.iter_bytes():
                    yield from following.feed(chunk)
                    if following.is_done or following.is_short():
                        return
        except httpx.RequestError as error:
            raise unreachable(self._server, error) from error

    def _request(self, request: Request) -> httpx.Response:
        try:
            response = self._http.request(request.method, request.url, **request.parts)
        except httpx.RequestError as error:
            raise unreachable(self._server, error) from error
        if not response.is_success:
            raise refusal(response)
        return response

    def _check_open(self, response: httpx.Response) -> None:
        """Raise what an answer that is not read yet refuses."""
        if not response.is_success:
            response.read()
            raise refusal(response)

    def _patiently(self, once: Callable[[], T]) -> T:
        policy = self._patience.policy()
        return tenacity.Retrying(sleep=self._sleep, **policy)(once)


class AsyncConnection:
    """Sends requests and awaits their answers.

    Args:
        address: the server.
        transport: replaces the network, for tests.
        sleep: waits the given seconds.
    """

    def __init__(
        self,
        address: Address,
        transport: httpx.AsyncBaseTransport | None,
        sleep: Callable[[float], Awaitable[None]],
    ) -> None:
        self._server, self._patience, self._sleep = address.server, address.patience, sleep
        self._http = httpx.AsyncClient(
            base_url=address.server, headers=address.headers, timeout=_TIMEOUT, transport=transport
        )

    async def close(self) -> None:
        """Close the connections."""
        await self._http.aclose()

    async def send(self, call: Call[D]) -> D:
        """Return the document that answers a call."""

        async def once() -> D:
            return call.read(await self._request(call.request))

        return await self._patiently(once)

    async def read(self, request: Request) -> bytes:
        """Return the content of an answer."""

        async def once() -> bytes:
            return (await self._request(request)).content

        return await self._patiently(once)

    async def download(self, request: Request, path: Path) -> Path:
        """Write the content of an answer to a file, which appears only when it is whole."""

        async def once() -> Path:
            try:
                async with self._http.stream(
                    request.method, request.url, **request.parts
                ) as response:
                    await self._check_open(response)
                    with whole_file(path) as file:
                        async for block in response.aiter_bytes(_BLOCK_BYTES):
                            await asyncio.to_thread(file.write, block)
            except httpx.RequestError as error:
                raise unreachable(self._server, error) from error
            return path

        return await self._patiently(once)

    async def stream_events(self, job_id: str, following: Following) -> AsyncIterator[JobEvent]:
        """Yield a job's events until it has ended, or this one connection."""
        url = f"{calls.job_url(job_id)}/events"
        try:
            async with self._http.stream("GET", url, **following.request_parts()) as response:
                await self._check_open(response)
                if not following.accepts(response):
                    return
                async for chunk in response.aiter_bytes():
                    for event in following.feed(chunk):
                        yield event
                    if following.is_done or following.is_short():
                        return
        except httpx.RequestError as error:
            raise unreachable(self._server, error) from error

    async def _request(self, request: Request) -> httpx.Response:
        try:
            response = await self._http.request(request.method, request.url, **request.parts)
        except httpx.RequestError as error:
            raise unreachable(self._server, error) from error
        if not response.is_success:
            raise refusal(response)
        return response

    async def _check_open(self, response: httpx.Response) -> None:
        """Raise what an answer that is not read yet refuses."""
        if not response.is_success:
            await response.aread()
            raise refusal(response)

    async def _patiently(self, once: Callable[[], Awaitable[T]]) -> T:
        policy = self._patience.policy()
        return await tenacity.AsyncRetrying(sleep=self._sleep, **policy)(once)
