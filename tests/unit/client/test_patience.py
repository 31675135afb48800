"""Both clients against a server that is away, busy or broken."""

from __future__ import annotations

import json
import logging
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime
from pathlib import Path
from typing import Any

import pytest

from dream_cad.client import RemoteProblemError
from dream_cad.exceptions import (
    DreamCadError,
    InvalidConfigError,
    ModelUnavailableError,
    QueueFullError,
    RateLimitedError,
    ServiceUnavailableError,
    StorageError,
)
from tests.unit.client.both import Both
from tests.unit.loopback import Answer, Request, serve

JOB = {"id": "j1", "status": "pending"}


def answer(status: int, body: object, **headers: str) -> Answer:
    kind = {"Content-Type": "application/json"}
    named = {name.replace("_", "-"): value for name, value in headers.items()}
    return Answer(status, json.dumps(body).encode(), kind | named)


def problem(status: int, code: str, **headers: str) -> Answer:
    document = {"type": code, "title": "T", "detail": "It is so.", "status": status}
    return answer(status, document, **headers)


@dataclass
class Desk:
    """Gives out answers in order, the last one for ever."""

    client: Both
    answers: list[Answer] = field(default_factory=list)
    requests: list[Request] = field(default_factory=list)

    def respond(self, request: Request) -> Answer:
        self.requests.append(request)
        return self.answers.pop(0) if len(self.answers) > 1 else self.answers[0]


@pytest.fixture(params=["sync", "async"])
async def desk(request: pytest.FixtureRequest) -> AsyncIterator[Desk]:
    async with AsyncExitStack() as stack:
        desk: Desk
        url = stack.enter_context(serve(lambda request: desk.respond(request)))
        desk = Desk(Both(request.param, url, patience_s=30))
        stack.push_async_callback(desk.client.close)
        yield desk


OK = answer(202, JOB)
BUSY = problem(429, "queue-full", Retry_After="7")


async def test_a_busy_server_is_asked_again_when_it_says(desk: Desk) -> None:
    desk.answers = [BUSY, problem(503, "service-unavailable", Retry_After="2"), OK]
    assert (await desk.client.submit("a chair")).id == "j1"
    assert desk.client.pauses == [7.0, 2.0]
    keys = {request.headers["idempotency-key"] for request in desk.requests}
    assert len(desk.requests) == 3
    assert len(keys) == 1


async def test_pauses_grow_where_none_is_named(desk: Desk) -> None:
    desk.answers = [Answer(503, b"no replica")] * 3 + [OK]
    await desk.client.get("j1")
    first, second, third = desk.client.pauses
    assert 0.25 <= first <= 0.5 <= second <= 0.75 < 1.0 <= third <= 1.25


async def test_patience_ends_before_a_pause_that_is_too_long(desk: Desk) -> None:
    desk.answers = [problem(429, "rate-limited", Retry_After="20")]
    with pytest.raises(RateLimitedError, match=r"It is so\. Try again in 20 s") as caught:
        await desk.client.get("j1")
    assert desk.client.pauses == [20.0]
    assert caught.value.details["retry_after_s"] == 20.0


async def test_a_date_is_a_time_to_come_back(desk: Desk) -> None:
    soon = datetime.now(UTC) + timedelta(seconds=9)
    desk.answers = [problem(503, "service-unavailable", Retry_After=format_datetime(soon)), OK]
    await desk.client.get("j1")
    assert 5 < desk.client.pauses[0] <= 9


async def test_broken_connections_are_tried_again_and_told(
    desk: Desk, caplog: pytest.LogCaptureFixture
) -> None:
    desk.answers = [Answer(200, bytes(100), cut_at=10), OK]
    with caplog.at_level(logging.WARNING, "dream_cad.client"):
        assert (await desk.client.submit("a chair")).id == "j1"
    assert "cannot be reached" in caplog.text
    assert "Trying again in" in caplog.text
    assert len({request.headers["idempotency-key"] for request in desk.requests}) == 1


@pytest.mark.parametrize("method", ["rerun", "retry_batch"])
async def test_doing_again_is_sent_again_with_its_key(desk: Desk, method: str) -> None:
    desk.answers = [Answer(200, bytes(100), cut_at=10), BUSY, answer(202, {**JOB, "jobs": []})]
    await getattr(desk.client, method)("j1")
    (key,) = {request.headers["idempotency-key"] for request in desk.requests}
    desk.answers = [answer(202, {**JOB, "jobs": []})]
    await getattr(desk.client, method)("j1", idempotency_key="mine")
    assert (len(desk.requests), desk.requests[-1].headers["idempotency-key"]) == (4, "mine")
    assert key != "mine"


@pytest.mark.parametrize(
    ("refused", "expected"),
    [
        (problem(503, "model-unavailable"), ModelUnavailableError),
        (problem(507, "storage-failed"), StorageError),
        (problem(422, "invalid-config"), InvalidConfigError),
        (problem(500, "internal-error"), RemoteProblemError),
        (problem(404, "something-new"), RemoteProblemError),
        (Answer(502, b"<html>"), RemoteProblemError),
        (Answer(307, b"", {"Location": "/elsewhere"}), RemoteProblemError),
        (answer(200, {"other": "service"}), RemoteProblemError),
        (answer(200, [1]), RemoteProblemError),
        (Answer(200, b"\xff"), RemoteProblemError),
    ],
)
async def test_what_stays_is_not_tried_again(
    desk: Desk, refused: Answer, expected: type[DreamCadError]
) -> None:
    desk.answers = [refused]
    with pytest.raises(expected) as caught:
        await desk.client.get("j1")
    assert type(caught.value) is expected
    assert (len(desk.requests), desk.client.pauses) == (1, [])


async def test_a_download_that_broke_is_begun_again(desk: Desk, tmp_path: Path) -> None:
    whole = bytes(300_000)
    desk.answers = [Answer(200, whole, cut_at=200_000), BUSY, Answer(200, whole)]
    path = await desk.client.fetch_result("j1", tmp_path / "x.glb")
    assert path.read_bytes() == whole
    assert [file.name for file in tmp_path.iterdir()] == ["x.glb"]
    assert {request.path for request in desk.requests} == {"/v1/jobs/j1/result?format=glb"}


async def test_a_download_that_stays_broken_leaves_the_old_file(desk: Desk, tmp_path: Path) -> None:
    (tmp_path / "x.glb").write_bytes(b"old")
    desk.answers = [Answer(200, bytes(100), cut_at=10)]
    desk.client.on_pause = lambda seconds: None
    with pytest.raises(ServiceUnavailableError):
        await desk.client.fetch_result("j1", tmp_path / "x.glb")
    assert sum(desk.client.pauses) <= 30
    assert len(desk.client.pauses) > 3
    assert [file.read_bytes() for file in tmp_path.iterdir()] == [b"old"]


async def test_a_file_that_cannot_be_written(desk: Desk, tmp_path: Path) -> None:
    desk.answers = [Answer(200, b"mesh")]
    (tmp_path / "file").touch()
    with pytest.raises(StorageError, match="could not be written"):
        await desk.client.fetch_result("j1", tmp_path / "file" / "x.glb")
    assert len(desk.requests) == 1


@pytest.mark.parametrize("kind", ["sync", "async"])
async def test_an_address_where_nobody_listens(kind: str) -> None:
    with serve(lambda request: OK) as url:
        pass
    client = Both(kind, url, patience_s=1)
    with pytest.raises(ServiceUnavailableError, match="serve run"):
        await client.rerun("j1")  # never arrived: may be sent again
    assert len(client.pauses) >= 1
    await client.close()


@pytest.mark.parametrize("kind", ["sync", "async"])
async def test_server_and_key_come_from_the_environment(
    kind: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: list[Request] = []
    with serve(lambda request: seen.append(request) or OK) as url:
        monkeypatch.setenv("DREAM_CAD_SERVER", url + "/")
        monkeypatch.setenv("DREAM_CAD_API_KEY", "dc_key")
        client = Both(kind, server=None)
        await client.get("j1")
        await client.close()
    assert seen[0].headers["authorization"] == "Bearer dc_key"
    assert seen[0].path == "/v1/jobs/j1"


WRONG: list[dict[str, Any]] = [
    {"server": "localhost:8000"},
    {"server": "ftp://x"},
    {"server": "http://"},
    {"server": "http://x:port"},
    {"server": "http://x", "api_key": "two\nlines"},
    {"server": "http://x", "api_key": "schlüssel"},
    {"server": "http://x", "patience_s": -1},
    {"server": "http://x", "patience_s": float("nan")},
]


@pytest.mark.parametrize("wrong", WRONG, ids=str)
@pytest.mark.parametrize("kind", ["sync", "async"])
def test_what_cannot_be_an_address_is_refused(kind: str, wrong: dict[str, Any]) -> None:
    with pytest.raises(InvalidConfigError) as caught:
        Both(kind, **wrong)
    assert "schlüssel" not in str(caught.value)


@pytest.mark.parametrize(
    ("method", "arguments", "named"),
    [
        ("submit", (), {}),
        ("submit", ("a",), {"image_url": "https://x/y.png"}),
        ("submit", (), {"image": b"x", "tags": ["a,b"]}),
        ("submit_batch", (), {}),
        ("submit_batch", (["a"],), {"items": [{"prompt": "a"}]}),
        ("get", ("../admin",), {}),
        ("get", ("",), {}),
        ("get_batch", ("a/b",), {}),
        ("wait", ("j1",), {"timeout_s": float("nan")}),
    ],
)
async def test_nothing_is_sent_that_cannot_be_right(
    desk: Desk, method: str, arguments: tuple[Any, ...], named: dict[str, Any]
) -> None:
    with pytest.raises(InvalidConfigError):
        await getattr(desk.client, method)(*arguments, **named)
    assert desk.requests == []


async def test_a_picture_that_is_not_there(desk: Desk, tmp_path: Path) -> None:
    with pytest.raises(StorageError, match="cannot be read"):
        await desk.client.submit(image=tmp_path / "none.png")
    with pytest.raises(StorageError, match="cannot be read"):
        await desk.client.submit_batch_file(tmp_path / "none.csv")


async def test_the_queues_own_class_of_429(desk: Desk) -> None:
    desk.answers = [problem(429, "queue-full", Retry_After="60")]
    with pytest.raises(QueueFullError):
        await desk.client.submit("a chair")
