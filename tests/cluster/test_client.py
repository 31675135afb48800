"""Both clients against the running application."""

from __future__ import annotations

import re
import zipfile
from pathlib import Path
from typing import Any

import pytest

from dream_cad.client import AsyncClient, Client, Job
from dream_cad.exceptions import GenerationCancelledError, GenerationError
from tests.cluster.conftest import Server

WAIT_S = 120.0
PAGE = Path(__file__).parents[2] / "docs" / "client.md"


class Watch:
    """Remembers what a job went through; lets it go on once its progress was seen."""

    def __init__(self, hold: Path) -> None:
        self.hold = hold
        self.states: list[str] = []
        self.steps: list[float] = []

    def __call__(self, job: Job) -> None:
        if job.status not in self.states:
            self.states.append(job.status)
        if "holding" in job.stage and job.progress:
            self.steps.append(job.progress)
            self.hold.unlink(missing_ok=True)

    def check(self) -> None:
        assert self.states == ["pending", "running", "completed"]
        assert 0 < self.steps[0] < 1


def check_archive(path: Path) -> None:
    with zipfile.ZipFile(path) as archive:
        assert archive.testzip() is None
        names = [name for name in archive.namelist() if name.endswith(".stl")]
    assert names == ["00000-a-red-cube.stl", "00002-a-blue-cube.stl"]


def items() -> list[Any]:
    round_one = {"prompt": "a round one", "options": {"fail": "error"}}
    return [{"prompt": "a red cube"}, round_one, {"prompt": "a blue cube"}]


def test_the_blocking_client(server: Server, tmp_path: Path) -> None:
    watch = Watch(server.hold())
    with Client(str(server.client.base_url)) as client:
        job = client.submit("followed by a client", options={"hold": str(watch.hold)})
        assert client.wait(job.id, watch, timeout_s=WAIT_S).cached_from is None
        watch.check()
        assert client.fetch_result(job.id, tmp_path / "cube.ply").read_bytes().startswith(b"ply")
        assert client.receipt(job.id)["model"] == "echo"
        hold = server.hold()
        held = client.submit("cancelled by a client", options={"hold": str(hold)})
        client.cancel(held.id)
        with pytest.raises(GenerationCancelledError):
            client.wait(held.id, timeout_s=WAIT_S)
        assert client.generate("a cube", format="stl", timeout_s=WAIT_S)[80:84] == b"\x0c\0\0\0"
        with pytest.raises(GenerationError, match="came out round"):
            client.generate("a ball", options={"fail": "error"}, timeout_s=WAIT_S)
        batch = client.submit_batch(items=items(), name="cubes")
        ended = client.wait_batch(batch.id, timeout_s=WAIT_S)
        assert (ended.counts["completed"], ended.counts["failed"]) == (2, 1)
        check_archive(client.fetch_archive(batch.id, tmp_path / "cubes.zip", "stl"))
        assert [job.prompt for job in client.jobs(batch=batch.id, status="failed")] == [
            "a round one"
        ]
        assert "echo" in [model.name for model in client.models().models if model.available]
        assert client.cluster().as_sent()


async def test_the_client_to_await(server: Server, tmp_path: Path) -> None:
    watch = Watch(server.hold())
    async with AsyncClient(str(server.client.base_url)) as client:
        job = await client.submit("awaited by a client", options={"hold": str(watch.hold)})
        await client.wait(job.id, watch, timeout_s=WAIT_S)
        watch.check()
        path = await client.fetch_result(job.id, tmp_path / "cube.ply")
        assert path.read_bytes().startswith(b"ply")
        hold = server.hold()
        held = await client.submit("cancelled, awaited", options={"hold": str(hold)})
        await client.cancel(held.id)
        with pytest.raises(GenerationCancelledError):
            await client.wait(held.id, timeout_s=WAIT_S)
        batch = await client.submit_batch(items=items(), name="cubes", use_cache=False)
        ended = await client.wait_batch(batch.id, timeout_s=WAIT_S)
        assert (ended.counts["completed"], ended.counts["failed"]) == (2, 1)
        check_archive(await client.fetch_archive(batch.id, tmp_path / "cubes.zip", "stl"))
        assert [item.index async for item in client.batch_items(batch.id)] == [0, 1, 2]


def test_the_examples_of_the_page_run_as_they_stand(
    server: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("DREAM_CAD_SERVER", str(server.client.base_url))
    names: dict[str, Any] = {}
    for code in re.findall(
        r"^```python\n(.*?)^```", PAGE.read_text("utf-8"), re.DOTALL | re.MULTILINE
    ):
        exec(compile(code, "client.md", "exec"), names)
    assert [mesh[:4] for mesh in [names["mesh"], *names["meshes"]]] == [b"glTF"] * 3
    assert (tmp_path / "table.stl").stat().st_size == 84 + 12 * 50
    assert zipfile.is_zipfile(tmp_path / "shop.zip")
    assert names["job"].id in names["finished"]
