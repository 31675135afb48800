"""The MCP tools through the SDK's in-memory client, on the real application."""

from __future__ import annotations

import base64
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import httpx
import pytest
from mcp import Client as McpClient

from dream_cad.cli import run
from dream_cad.cli.mcp_server import create_server
from dream_cad.client import AsyncClient
from dream_cad.settings import get_settings
from tests.unit.deployments.http.conftest import Stand


class Assistant:
    def __init__(self, session: McpClient) -> None:
        self.session = session

    async def call(self, tool: str, **arguments: Any) -> Any:
        answer = await self.session.call_tool(tool, arguments)
        assert not answer.is_error, answer.content
        return answer.structured_content or answer.content

    async def refused(self, tool: str, **arguments: Any) -> str:
        answer = await self.session.call_tool(tool, arguments)
        assert answer.is_error
        return str(answer.content[0].text)


@asynccontextmanager
async def asking(stand: Stand, mode: str = "auto") -> AsyncIterator[Assistant]:
    """Not a fixture: the SDK's task groups must end in the task that began them."""
    transport = httpx.ASGITransport(stand.api, client=("127.0.0.1", 1))

    def connect() -> AsyncClient:
        return AsyncClient("http://localhost", transport=transport, patience_s=0)

    async with McpClient(create_server(connect), mode=mode) as session:
        yield Assistant(session)


protocols = pytest.mark.parametrize("mode", ["legacy", "auto"])


@protocols
async def test_tools_say_what_they_want(stand: Stand, mode: str) -> None:
    async with asking(stand, mode) as assistant:
        tools = {tool.name: tool for tool in (await assistant.session.list_tools()).tools}
        assert set(tools) == {"generate", "status", "result", "list_models"}
        assert set(tools["generate"].input_schema["properties"]) == {
            "prompt",
            "image_url",
            "model",
            "options",
        }
        assert tools["status"].input_schema["required"] == ["job_id"]
        assert all(tool.description for tool in tools.values())


@protocols
async def test_a_mesh_from_prompt_to_picture(stand: Stand, mode: str) -> None:
    async with asking(stand, mode) as assistant:
        started = await assistant.call("generate", prompt="a chair", options={"seed": 7})
        assert (started["status"], started["prompt"], started["position"]) == (
            "pending",
            "a chair",
            1,
        )
        assert "it is pending" in await assistant.refused("result", job_id=started["id"])
        stand.complete()
        ended = await assistant.call("status", job_id=started["id"])
        assert ended["status"] == "completed"
        text, picture = await assistant.call("result", job_id=started["id"], format="ply")
        path = get_settings().output_dir / f"{started['id']}.ply"
        assert str(path) in text.text
        assert path.read_bytes().startswith(b"ply")
        assert picture.mime_type == "image/png"
        assert base64.b64decode(picture.data).startswith(b"\x89PNG")


async def test_models_come_with_their_options(stand: Stand) -> None:
    async with asking(stand) as assistant:
        found = await assistant.call("list_models")
        echo = found["models"][0]
        assert (found["default_model"], echo["name"], echo["available"]) == ("echo", "echo", True)
        assert "seed" in echo["options_schema"]["properties"]


async def test_refusals_are_told_in_words(stand: Stand) -> None:
    async with asking(stand) as assistant:
        assert "no job 'j1'" in await assistant.refused("status", job_id="j1")
        assert "exactly one of prompt" in await assistant.refused("generate")
        assert "'x'" in await assistant.refused("generate", prompt="a", model="x")
        job = await assistant.call("generate", prompt="a ball")
        stand.fail()
        assert (await assistant.call("status", job_id=job["id"]))["reason"] == "round"


@pytest.mark.parametrize(
    ("job_id", "format", "reason"),
    [
        ("../x", "glb", "should match pattern"),
        ("..", "glb", "should match pattern"),
        ("x", "../../glb", "is no format"),
        ("x", "", "is no format"),
    ],
)
async def test_nothing_is_written_elsewhere(
    stand: Stand, tmp_path: Path, job_id: str, format: str, reason: str
) -> None:
    async with asking(stand) as assistant:
        assert reason in await assistant.refused("result", job_id=job_id, format=format)
        assert not list(tmp_path.rglob("*glb"))


def test_a_wrong_address_ends_the_program(capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["mcp", "--server", "nowhere"]) == 2
    assert "no http:// or https:// URL" in capsys.readouterr().err


def test_without_the_package_it_says_what_to_install(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setitem(sys.modules, "dream_cad.cli.mcp_server", None)
    assert run(["mcp"]) == 2
    assert "dream-cad[mcp]" in capsys.readouterr().err
