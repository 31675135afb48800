"""A job's events: cut anywhere, broken off, collected by a proxy, silent."""

from __future__ import annotations

import json
import logging
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from itertools import pairwise
from typing import Any

import httpx
import pytest
from hypothesis import given
from hypothesis import strategies as st

from dream_cad.client import JobEvent, RemoteProblemError
from dream_cad.client.events import EventParser, Following, RawEvent
from dream_cad.client.patience import Patience, unreachable
from dream_cad.exceptions import GenerationTimeoutError, ServiceUnavailableError
from tests.unit.client.both import Both
from tests.unit.client.test_patience import Desk, answer, problem
from tests.unit.loopback import Answer, serve

WIRE = (
    "retry: 2000\n\n: keep-alive\n\nid: 1\nevent: pending\ndata: {}\n\n"
    "event: progress\r\ndata: a\r\ndata: b  c\r\n\r\ndata:\u2028ü\n\nid: 9\n\n"
).encode()
EVENTS = [
    RawEvent("1", "pending", "{}"),
    RawEvent(None, "progress", "a\nb  c"),
    RawEvent(None, "message", "\u2028ü"),
]


@given(st.lists(st.integers(0, len(WIRE)), max_size=6))
def test_chunks_may_end_anywhere(cuts: list[int]) -> None:
    edges = [0, *sorted(cuts), len(WIRE)]
    parser = EventParser()
    found = [event for begin, end in pairwise(edges) for event in parser.feed(WIRE[begin:end])]
    assert found == EVENTS
    assert parser.retry_s == 2.0


def state(status: str, **fields: Any) -> dict[str, Any]:
    return {"id": "j1", "status": status, **fields}


def stream(*events: tuple[int | None, str, dict[str, Any]], cut_by: int | None = None) -> Answer:
    text = "retry: 500\n\n"
    for number, kind, job in events:
        text += "" if number is None else f"id: {number}\n"
        text += f"event: {kind}\ndata: {json.dumps(job)}\n\n"
    body = text.encode()
    cut_at = None if cut_by is None else len(body)
    body += b"x" * (cut_by or 0)
    return Answer(200, body, {"Content-Type": "text/event-stream; charset=utf-8"}, cut_at)


PENDING = (1, "pending", state("pending"))
RUNNING = (2, "running", state("running"))
HALF = (None, "progress", state("running", progress=0.5, stage="decode"))
DONE = (3, "completed", state("completed", progress=1.0))


@pytest.fixture(params=["sync", "async"])
async def desk(request: pytest.FixtureRequest) -> AsyncIterator[Desk]:
    async with AsyncExitStack() as stack:
        desk: Desk
        url = stack.enter_context(serve(lambda request: desk.respond(request)))
        desk = Desk(Both(request.param, url, patience_s=5))
        stack.push_async_callback(desk.client.close)
        yield desk


def kinds(events: list[JobEvent]) -> list[str]:
    return [event.kind for event in events]


async def test_every_change_and_the_progress_between(desk: Desk) -> None:
    desk.answers = [stream(PENDING, RUNNING, HALF, DONE)]
    seen: list[tuple[str, float | None, str]] = []
    job = await desk.client.wait(
        "j1", lambda now: seen.append((now.status, now.progress, now.stage))
    )
    assert job.status == "completed"
    assert seen[2] == ("running", 0.5, "decode")
    assert [status for status, *_ in seen] == ["pending", "running", "running", "completed"]
    assert len(desk.requests) == 1


async def test_a_broken_stream_goes_on_behind_the_last_event(
    desk: Desk, caplog: pytest.LogCaptureFixture
) -> None:
    desk.answers = [stream(PENDING, RUNNING, HALF, cut_by=50), stream(DONE)]
    with caplog.at_level(logging.WARNING, "dream_cad.client"):
        events = await desk.client.events("j1")
    assert kinds(events) == ["pending", "running", "progress", "completed"]
    assert [request.headers.get("last-event-id") for request in desk.requests] == [None, "2"]
    assert desk.client.pauses == [0.5]  # as the server asked
    assert "broke off" in caplog.text


async def test_a_stream_that_the_server_ends_early_is_followed_by_a_question(desk: Desk) -> None:
    desk.answers = [stream(PENDING), answer(200, state("running")), stream(RUNNING, DONE)]
    events = await desk.client.events("j1")
    assert kinds(events) == ["pending", "progress", "running", "completed"]
    assert [request.path for request in desk.requests] == [
        "/v1/jobs/j1/events",
        "/v1/jobs/j1",
        "/v1/jobs/j1/events",
    ]
    assert desk.requests[2].headers["last-event-id"] == "1"


async def test_a_busy_server_is_asked_for_events_again(desk: Desk) -> None:
    desk.answers = [problem(429, "rate-limited", Retry_After="3"), stream(DONE)]
    assert kinds(await desk.client.events("j1")) == ["completed"]
    assert desk.client.pauses == [3.0]


async def test_a_server_that_stays_away_ends_the_wait(desk: Desk) -> None:
    desk.answers = [stream(PENDING, cut_by=9), problem(503, "service-unavailable", Retry_After="9")]
    with pytest.raises(ServiceUnavailableError):
        await desk.client.wait("j1")
    assert desk.client.pauses == [0.5]


async def test_where_events_do_not_come_through_it_asks_and_says_so(
    desk: Desk, caplog: pytest.LogCaptureFixture
) -> None:
    page = Answer(200, b"<html>", {"Content-Type": "text/html"})
    desk.answers = [page, answer(200, state("running")), answer(200, state("completed"))]
    with caplog.at_level(logging.WARNING, "dream_cad.client"):
        job = await desk.client.wait("j1")
    assert job.status == "completed"
    assert "do not come through: the answer is of type text/html" in caplog.text
    assert desk.client.pauses == [1.0]


async def test_an_event_without_a_job_is_no_event_of_ours(desk: Desk) -> None:
    desk.answers = [stream((1, "pending", {}))]
    with pytest.raises(RemoteProblemError, match="without a job"):
        await desk.client.events("j1")


async def test_time_ends_while_a_job_goes_on(desk: Desk) -> None:
    desk.answers = [stream(PENDING)]
    with pytest.raises(GenerationTimeoutError, match="not done after 0 s"):
        await desk.client.wait("j1", timeout_s=0)


class Clock:
    now = 100.0

    def __call__(self) -> float:
        return self.now


def following(timeout_s: float | None, clock: Clock) -> Following:
    return Following("j1", timeout_s, Patience(30), clock=clock)


def test_a_silent_connection_is_given_up_for_questions() -> None:
    found = following(None, Clock())
    assert found.request_parts()["timeout"].read == 45.0
    silence = unreachable("http://x", httpx.ReadTimeout("silence"))
    silence.__cause__ = httpx.ReadTimeout("silence")
    assert found.lost(silence) == 0.0
    assert found.is_polling


def test_a_connection_is_renewed_before_it_outlives_the_time() -> None:
    clock = Clock()
    found = following(60, clock)
    assert found.request_parts()["timeout"].read == 45.0
    clock.now += 10
    assert list(found.feed(b": keep-alive\n\n")) == []
    assert not found.is_short()  # 50 s are left
    clock.now += 10
    assert found.is_short()
    assert found.request_parts()["timeout"].read == 40.0
    assert not found.is_short()  # not at once again
    clock.now += 41
    with pytest.raises(GenerationTimeoutError):
        list(found.feed(b": keep-alive\n\n"))
