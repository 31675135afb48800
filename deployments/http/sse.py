"""Server-sent events: how they are written, and where a client that comes back goes on."""

from __future__ import annotations

import asyncio
import re
from collections.abc import AsyncIterator
from contextlib import suppress

from dream_cad.exceptions import InvalidConfigError

KEEP_ALIVE = ": keep-alive\n\n"
"""A comment; proxies on the way see that the connection lives."""

RETRY = "retry: 2000\n\n"
"""Milliseconds after which a client that lost the connection comes back."""

_EVENT_NAME = re.compile(r"[a-z][a-z0-9_-]*")
_MAX_EVENT_ID = 2**63 - 1


def encode_event(event: str, data: str, event_id: int | None = None) -> str:
    """Return one event as it goes over the wire.

    Args:
        event: its name.
        data: text; each line becomes a data line of its own.
        event_id: what a client returns as Last-Event-ID; None keeps the one before.
    """
    if not _EVENT_NAME.fullmatch(event):
        raise InvalidConfigError(f"{event[:40]!r} is no name of an event.")
    lines = [] if event_id is None else [f"id: {event_id}"]
    lines.append(f"event: {event}")
    lines += [f"data: {line}" for line in re.split(r"\r\n|\r|\n", data)]
    return "\n".join(lines) + "\n\n"


def last_event_id(header: str | None) -> int | None:
    """Return the number in a Last-Event-ID header, None without one.

    Raises:
        InvalidConfigError: it is none of ours.
    """
    if header is None or header == "":
        return None
    if not (header.isascii() and header.isdigit()) or int(header[:20]) > _MAX_EVENT_ID:
        raise InvalidConfigError(
            "Last-Event-ID is not the id of an event of this server.",
            hint="Send the id of the last event, or none.",
        )
    return int(header)


async def with_keep_alive(events: AsyncIterator[str], every_s: float) -> AsyncIterator[str]:
    """Pass events on, and a comment whenever none came for ``every_s`` seconds."""
    pending = asyncio.ensure_future(_next(events))
    try:
        while True:
            done, _ = await asyncio.wait({pending}, timeout=every_s)
            if not done:
                yield KEEP_ALIVE
                continue
            event = pending.result()
            if event is None:
                return
            pending = asyncio.ensure_future(_next(events))
            yield event
    finally:
        pending.cancel()
        with suppress(asyncio.CancelledError, Exception):  # the stream's own end was told above
            await pending


async def _next(events: AsyncIterator[str]) -> str | None:
    return await anext(events, None)
