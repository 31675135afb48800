"""The interface's door to the server: a client for each visitor, and the files they look at."""

from __future__ import annotations

import asyncio
import hashlib
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import httpx

from dream_cad.client import AsyncClient, Job
from dream_cad.ui.shelf import Shelf

KeyOf = Callable[[Any], str | None]
"""Returns the API key that comes with a browser's request (a ``gradio.Request``)."""

PACKAGE = "zip"
"""Stands among the formats for the files that a profile makes (docs/profiles.md)."""

_PATIENCE_S = 5.0
"""Somebody waits in front of the page: an error soon is better than an answer late."""


class Desk:
    """Makes clients for visitors, and fetches results to where their browsers may read them.

    Args:
        server: base URL; ``DREAM_CAD_SERVER`` if None.
        api_key: for every visitor; ``DREAM_CAD_API_KEY`` if None.
        transport: replaces the network.
        key_of: finds a visitor's own key.
        shelf: where fetched files are.

    Raises:
        InvalidConfigError: ``server`` is no URL.
    """

    def __init__(
        self,
        server: str | None = None,
        api_key: str | None = None,
        transport: httpx.AsyncBaseTransport | None = None,
        key_of: KeyOf | None = None,
        shelf: Shelf | None = None,
    ) -> None:
        self._server, self._api_key = server, api_key
        self._transport, self._key_of = transport, key_of
        self.shelf = shelf or Shelf()
        self.server = self.client(None).server

    def client(self, request: Any) -> AsyncClient:
        """Return a client that speaks for a visitor; use it as an async context manager."""
        return AsyncClient(
            self._server,
            self._key(request),
            patience_s=_PATIENCE_S,
            transport=self._transport,
        )

    async def result(self, request: Any, job: Job, format: str) -> Path:
        """Return a local file with a completed job's mesh in a format, or its profile's zip."""

        async def fetch(path: Path) -> Path:
            async with self.client(request) as client:
                if format == PACKAGE:  # what a job with a profile answers unless asked otherwise
                    await asyncio.to_thread(path.write_bytes, await client.read_result(job.id))
                    return path
                return await client.fetch_result(job.id, path, format)

        name = f"{file_stem(job)}.{format}"
        return await self.shelf.get((self._visitor(request), job.id, format), name, fetch)

    async def file(self, request: Any, job: Job, name: str) -> Path:
        """Return a local copy of another file of a result: views, splats, a latent."""

        async def fetch(path: Path) -> Path:
            async with self.client(request) as client:
                return await client.fetch_file(job.id, name, path)

        key = (self._visitor(request), job.id, "file", name)
        return await self.shelf.get(key, f"{file_stem(job)}-{_plain(name)}", fetch)

    async def preview(self, request: Any, job: Job) -> Path:
        """Return a local file with a completed job's turntable picture."""

        async def fetch(path: Path) -> Path:
            async with self.client(request) as client:
                return await client.fetch_preview(job.id, path)

        name = f"{file_stem(job)}.png"
        return await self.shelf.get((self._visitor(request), job.id, "preview"), name, fetch)

    async def archive(self, request: Any, batch_id: str, name: str, state: str) -> Path:
        """Return a local zip of a batch; ``state`` tells an older zip from what is done now."""

        async def fetch(path: Path) -> Path:
            async with self.client(request) as client:
                return await client.fetch_archive(batch_id, path)

        key = (self._visitor(request), batch_id, "archive", state)
        return await self.shelf.get(key, f"{_slug(name) or 'batch'}.zip", fetch)

    def _key(self, request: Any) -> str | None:
        own = self._key_of(request) if self._key_of is not None and request is not None else None
        return own or self._api_key

    def _visitor(self, request: Any) -> str:
        return hashlib.sha256((self._key(request) or "").encode()).hexdigest()


def file_stem(job: Job) -> str:
    """Return a name for a job's files that people recognise: its prompt, and its id's end."""
    return f"{_slug(job.prompt) or 'mesh'}-{job.id[-6:]}"


def file_url(path: Path) -> str:
    """Return where the browser finds a file of the shelf, relative to the page."""
    return f"gradio_api/file={path}"


def _plain(name: str) -> str:
    """Return a file's name without anything that could lead elsewhere."""
    return re.sub(r"[^A-Za-z0-9._-]+", "-", name).lstrip(".-") or "file"


def _slug(text: str) -> str:
    return re.sub(r"[^a-z0-9]+", "-", text.lower()).strip("-")[:40].strip("-")
