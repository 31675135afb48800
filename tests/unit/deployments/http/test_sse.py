from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator

import pytest

from deployments.http.sse import KEEP_ALIVE, encode_event, last_event_id, with_keep_alive
from dream_cad.exceptions import InvalidConfigError


def test_an_event_on_the_wire() -> None:
    assert encode_event("running", "{}", 7) == "id: 7\nevent: running\ndata: {}\n\n"
    assert encode_event("progress", "a\nb\r\nc") == (
        "event: progress\ndata: a\ndata: b\ndata: c\n\n"
    )


@pytest.mark.parametrize("name", ["", "a b", "x\nid: 3", "Running"])
def test_an_event_name_cannot_break_the_stream(name: str) -> None:
    with pytest.raises(InvalidConfigError):
        encode_event(name, "")


@pytest.mark.parametrize(("header", "number"), [(None, None), ("", None), ("0", 0), ("12", 12)])
def test_last_event_id(header: str | None, number: int | None) -> None:
    assert last_event_id(header) == number


@pytest.mark.parametrize("header", ["-1", "x", "1.5", "9" * 30, "٣"])
def test_a_foreign_last_event_id(header: str) -> None:
    with pytest.raises(InvalidConfigError):
        last_event_id(header)


async def test_silence_is_filled_with_comments_and_the_end_is_passed_on() -> None:
    go_on = asyncio.Event()

    async def events() -> AsyncIterator[str]:
        yield "first"
        await go_on.wait()
        yield "second"

    seen = []
    async for text in with_keep_alive(events(), 0.001):
        seen.append(text)
        if text == KEEP_ALIVE:
            go_on.set()
    assert [text for text in seen if text != KEEP_ALIVE] == ["first", "second"]
    assert KEEP_ALIVE in seen


async def test_an_error_of_the_stream_is_passed_on() -> None:
    async def events() -> AsyncIterator[str]:
        yield "first"
        raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        async for _ in with_keep_alive(events(), 10):
            pass
