"""Pictures by URL: fetched only from listed hosts, bounded in size, time and redirects."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable
from urllib.parse import urljoin

import httpx

from deployments.http.outbound import HostGuard, open_url
from deployments.http.settings import FetchArgs
from dream_cad.exceptions import (
    DownloadError,
    DreamCadError,
    InvalidConfigError,
    PayloadTooLargeError,
)

_MAX_REDIRECTS = 3
_AT_ONCE = 8
_REDIRECTS = frozenset({301, 302, 303, 307, 308})


class ImageFetcher:
    """Fetches pictures for clients.

    Args:
        args: which hosts, how many bytes, how long; with no host listed, nothing is fetched.
        guard: what may be called; made from ``args`` when not given.
    """

    def __init__(self, args: FetchArgs, guard: HostGuard | None = None) -> None:
        self._args = args
        self._guard = guard or HostGuard(args.allowed_hosts, args.allowed_networks)

    async def fetch(self, url: str) -> bytes:
        """Return the bytes at ``url``; a redirect is followed only to a listed host.

        Raises:
            InvalidConfigError: fetching is off here, or the URL is not allowed.
            PayloadTooLargeError: more than ``max_bytes``.
            DownloadError: not reachable, another status than 200, or too slow.
        """
        if not self._args.allowed_hosts:
            raise InvalidConfigError(
                "This server fetches no pictures by URL.",
                hint="Upload the picture, or have an administrator set args.fetch.allowed_hosts.",
            )
        try:
            async with asyncio.timeout(self._args.timeout_s):
                for _ in range(_MAX_REDIRECTS + 1):
                    found = await self._get(url)
                    if isinstance(found, bytes):
                        return found
                    url = urljoin(url, found)
        except TimeoutError as error:
            raise DownloadError(
                f"The picture did not arrive within {self._args.timeout_s:g} s."
            ) from error
        raise DownloadError(f"The picture's URL redirects more than {_MAX_REDIRECTS} times.")

    async def fetch_all(self, urls: Iterable[str], max_total_bytes: int) -> dict[str, bytes]:
        """Return the bytes at each URL, a few at a time; all or none.

        Args:
            urls: a repeated one is fetched once.
            max_total_bytes: of all pictures together.

        Raises:
            PayloadTooLargeError: they are larger together; else as ``fetch``, naming the URL.
        """
        found: dict[str, bytes] = {}
        room = asyncio.Semaphore(_AT_ONCE)

        async def fetch_one(url: str) -> None:
            async with room:
                try:
                    found[url] = await self.fetch(url)
                except DreamCadError as error:
                    error.details["url"] = url
                    raise
            if sum(map(len, found.values())) > max_total_bytes:
                raise PayloadTooLargeError(
                    f"The pictures of the batch exceed {max_total_bytes} bytes together.",
                    hint="Send several batches.",
                    details={"limit_bytes": max_total_bytes},
                )

        tasks = [asyncio.ensure_future(fetch_one(url)) for url in dict.fromkeys(urls)]
        try:
            await asyncio.gather(*tasks)
        finally:
            for task in tasks:
                task.cancel()
        return found

    async def _get(self, url: str) -> bytes | str:
        """Return the content, or where the answer redirects to."""
        timeout_s = self._args.timeout_s
        async with open_url(self._guard, "GET", url, timeout_s=timeout_s) as response:
            if response.status_code in _REDIRECTS and "location" in response.headers:
                return str(response.headers["location"])
            if response.status_code != 200:
                raise DownloadError(
                    f"The picture's host answered {response.status_code}; 200 is needed."
                )
            return await self._read(response)

    async def _read(self, response: httpx.Response) -> bytes:
        limit = self._args.max_bytes
        content = bytearray()
        async for chunk in response.aiter_raw():
            content += chunk
            if len(content) > limit:
                raise PayloadTooLargeError(
                    f"The picture at the URL exceeds {limit} bytes.", details={"limit_bytes": limit}
                )
        return bytes(content)
