"""Who sees the web interface, what it answers, and the API behind it without a socket."""

from __future__ import annotations

import asyncio
import importlib.util
from collections.abc import AsyncIterator
from typing import Any

import httpx
import pytest

from deployments.args import AppArgs
from deployments.http.in_process import InProcessTransport
from dream_cad.client import AsyncClient
from dream_cad.ui import ModelSelectionUI
from tests.unit.deployments.http.conftest import Stand

needs_gradio = pytest.mark.skipif(
    importlib.util.find_spec("gradio") is None, reason="the extra ui is not installed"
)


@pytest.fixture
async def inside(stand: Stand) -> AsyncIterator[AsyncClient]:
    transport = InProcessTransport(stand.api)
    async with AsyncClient("http://127.0.0.1", patience_s=0, transport=transport) as client:
        yield client


async def test_the_api_answers_in_process(inside: AsyncClient, stand: Stand) -> None:
    job = await inside.submit("a chair")
    stand.complete()
    assert (await inside.wait(job.id)).status == "completed"
    assert (await inside.read_result(job.id, "stl"))[80:84] == (12).to_bytes(4, "little")
    assert [entry.id async for entry in inside.jobs()] == [job.id]


async def test_events_come_before_the_stream_has_ended() -> None:
    go_on = asyncio.Event()

    async def app(scope: Any, receive: Any, send: Any) -> None:
        await send({"type": "http.response.start", "status": 200, "headers": []})
        await send({"type": "http.response.body", "body": b"first", "more_body": True})
        await go_on.wait()
        await send({"type": "http.response.body", "body": b"last", "more_body": False})

    transport = InProcessTransport(app)
    async with (
        httpx.AsyncClient(transport=transport) as client,
        client.stream("GET", "http://x/") as answer,
    ):
        chunks = answer.aiter_bytes()
        assert await anext(chunks) == b"first"
        go_on.set()
        assert await anext(chunks) == b"last"


async def test_leaving_a_stream_ends_the_work_behind_it() -> None:
    ended = asyncio.Event()

    async def app(scope: Any, receive: Any, send: Any) -> None:
        await send({"type": "http.response.start", "status": 200, "headers": []})
        await send({"type": "http.response.body", "body": b"first", "more_body": True})
        try:
            await asyncio.Event().wait()
        finally:
            ended.set()

    async with (
        httpx.AsyncClient(transport=InProcessTransport(app)) as client,
        client.stream("GET", "http://x/") as answer,
    ):
        assert await anext(answer.aiter_bytes()) == b"first"
    assert ended.is_set()


async def test_an_application_that_breaks_is_a_broken_connection() -> None:
    async def app(scope: Any, receive: Any, send: Any) -> None:
        raise ZeroDivisionError

    async with httpx.AsyncClient(transport=InProcessTransport(app)) as client:
        with pytest.raises(httpx.RemoteProtocolError):
            await client.get("http://x/")


async def opened(client: httpx.AsyncClient) -> str:
    """The page, once it has been made."""
    while True:
        page = await client.get("/")
        assert page.status_code == 200
        if "is being opened" not in page.text:
            return page.text


@needs_gradio
class TestInterface:
    async def test_the_page_comes_and_the_api_keeps_its_paths(self, stand: Stand) -> None:
        page = await opened(stand.client)
        assert "DreamCadViewer" in page
        assert "window.dreamcad" in page
        answer = await stand.client.get("/theme.css")
        assert "default-src 'self'" in answer.headers["content-security-policy"]
        assert (await stand.client.get("/v1/models")).json()["default_model"] == "echo"
        assert (await stand.client.get("/healthz")).json()["status"] == "ok"
        for path in ("/v1/nothing", "/nothing"):
            unknown = await stand.client.get(path)
            assert unknown.status_code == 404
            assert unknown.headers["content-type"] == "application/problem+json"
        assert (await stand.client.put("/v1/models")).status_code == 405

    async def test_without_keys_only_this_machine_sees_it(self, stand: Stand) -> None:
        transport = httpx.ASGITransport(stand.api, client=("192.0.2.7", 1))
        async with httpx.AsyncClient(transport=transport, base_url="http://localhost") as far:
            for path in ("/", "/config", "/gradio_api/info"):
                assert (await far.get(path)).status_code == 403
        rebound = await stand.client.get("/", headers={"Host": "evil.example.com"})
        assert rebound.status_code == 403

    async def test_with_keys_one_signs_in_first(self, stand: Stand) -> None:
        key = stand.queue.keys.create_key("artist")[1]
        page = await stand.client.get("/")
        assert page.status_code == 401
        assert 'name="key"' in page.text
        assert (await stand.client.get("/gradio_api/info")).status_code == 401
        wrong = await stand.client.post("/ui/sign-in", data={"key": "dc_wrong"})
        assert wrong.status_code == 401
        assert "not valid" in wrong.text
        right = await stand.client.post("/ui/sign-in", data={"key": key})
        assert right.status_code == 303
        cookie = right.headers["set-cookie"]
        assert "HttpOnly" in cookie
        assert "samesite=strict" in cookie.lower()
        assert (await stand.client.get("/")).status_code == 200  # the client keeps the cookie


class TestSwitchedOff:
    @pytest.fixture
    def args(self) -> AppArgs:
        return AppArgs.model_validate({"models": [{"name": "echo"}], "ui": False})

    async def test_the_page_says_so(self, stand: Stand) -> None:
        page = await stand.client.get("/")
        assert page.status_code == 200
        assert "switched off" in page.text
        assert "/docs" in page.text
        assert (await stand.client.get("/gradio_api/info")).status_code == 404


class TestNotInstalled:
    @pytest.fixture
    def args(self, monkeypatch: pytest.MonkeyPatch) -> AppArgs:
        monkeypatch.setattr("deployments.http.web.importlib.util.find_spec", lambda name: None)
        return AppArgs.model_validate({"models": [{"name": "echo"}]})

    async def test_the_page_says_how_to_get_it(self, stand: Stand) -> None:
        page = await stand.client.get("/")
        assert page.status_code == 200
        assert "pip install &#x27;dream-cad[ui]&#x27;" in page.text


@needs_gradio
async def test_the_interface_of_the_api_reference_can_be_launched() -> None:
    interface = ModelSelectionUI("http://127.0.0.1:1").create_interface()
    assert interface.analytics_enabled is False
    arguments = interface.serving_arguments()
    assert "https://" not in arguments["head"]
    assert "https://" not in arguments["css"]
    assert all("google" not in url for url in arguments["theme"]._stylesheets)
    assert callable(interface.launch)
