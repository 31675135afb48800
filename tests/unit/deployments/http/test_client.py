"""Both clients against the real application, on loopback; a real queue behind it."""

from __future__ import annotations

import asyncio
import hashlib
import json
import socket
import zipfile
from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
import uvicorn

from dream_cad.exceptions import (
    GenerationCancelledError,
    GenerationError,
    GenerationTimeoutError,
    InvalidConfigError,
    JobNotFoundError,
    JobStateError,
    ResultFileNotFoundError,
)
from tests.unit.client.both import Both
from tests.unit.deployments.http.conftest import Stand, png
from tests.unit.deployments.http.test_mesh_api import GLB, Painter


@pytest.fixture
async def url(stand: Stand) -> AsyncIterator[str]:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        config = uvicorn.Config(stand.api, lifespan="off", log_config=None, ws="none")
        server = uvicorn.Server(config)
        task = asyncio.create_task(server.serve([listener]))
        yield f"http://127.0.0.1:{listener.getsockname()[1]}"
        server.should_exit = True
        await task


@pytest.fixture(params=["sync", "async"])
async def client(request: pytest.FixtureRequest, url: str) -> AsyncIterator[Both]:
    both = Both(request.param, url, patience_s=0)
    yield both
    await both.close()


async def test_a_job_from_prompt_to_files(client: Both, stand: Stand, tmp_path: Path) -> None:
    job = await client.submit("a chair", options={"seed": 3}, priority="high", tags=["red"])
    assert (job.status, job.prompt, job.priority) == ("pending", "a chair", "high")
    assert (job.options, job.tags, job.position) == ({"seed": 3}, ("red",), 1)
    assert job.created_at is not None
    seen: list[str] = []
    stand.complete()
    ended = await client.wait(job.id, lambda state: seen.append(state.status))
    assert (ended.status, ended.is_final) == ("completed", True)
    assert seen[-1] == "completed"
    for format, start in (("glb", b"glTF"), ("ply", b"ply"), (None, b"glTF")):
        assert (await client.read_result(job.id, format)).startswith(start)
    path = await client.fetch_result(job.id, tmp_path / "new" / "chair.stl")
    assert path.stat().st_size == 84 + 12 * 50
    assert (await client.fetch_preview(job.id, tmp_path / "x.png")).read_bytes()[:4] == b"\x89PNG"
    assert (await client.read_preview(job.id)).startswith(b"\x89PNG")
    assert await client.receipt(job.id) == {"seed": 1}
    assert json.loads((await client.fetch_receipt(job.id, tmp_path / "r.json")).read_text())
    assert [file.name for file in (tmp_path / "new").iterdir()] == ["chair.stl"]


@pytest.mark.parametrize("kind", ["path", "text", "bytes"])
async def test_a_picture_with_everything_else(
    client: Both, stand: Stand, tmp_path: Path, kind: str
) -> None:
    path = tmp_path / "in.png"
    path.write_bytes(png())
    job = await client.submit(
        image={"path": path, "text": str(path), "bytes": path.read_bytes()}[kind],
        models=["echo", "echo2"],
        pick="best",
        require={"max_faces": 100},
        max_tries=4,
        tags=["a", "b"],
        deadline=datetime.now(UTC) + timedelta(hours=1),
        max_wait_s=60.5,
        use_cache=False,
        format="stl",
        webhook=None,
    )
    assert (job.models, job.tags) == (("echo", "echo2"), ("a", "b"))
    assert job.policy["require"] == {"max_faces": 100}
    assert (job.policy["pick"], job.policy["use_cache"]) == ("best", False)
    found = stand.queue.get_job(job.id)
    assert found is not None
    assert stand.artifacts.read(str(found.input_uri), "input") == path.read_bytes()


@pytest.mark.parametrize("beside", [{"prompt": "rusty iron"}, {"image": png()}])
async def test_a_mesh_is_sent_along(
    client: Both,
    stand: Stand,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    beside: dict[str, Any],
) -> None:
    monkeypatch.setattr("deployments.http.checks.resolve_implementation", lambda _: Painter)
    path = tmp_path / "chair.glb"
    path.write_bytes(GLB)
    job = await client.submit(mesh=path, **beside)
    found = stand.queue.get_job(job.id)
    assert found is not None
    assert stand.artifacts.read(str(found.input_uri), "input.glb") == GLB
    assert (found.policy["mesh"], found.policy["picture"]) == (True, "image" in beside)


async def test_a_key_makes_one_job(client: Both) -> None:
    first = await client.submit("a vase", idempotency_key="order-17")
    again = await client.submit("a vase", idempotency_key="order-17")
    other = await client.submit("a vase")
    assert first.id == again.id != other.id


async def test_cancel_and_rerun(client: Both, stand: Stand) -> None:
    job = await client.submit("a cube")
    assert (await client.cancel(job.id)).status == "cancelled"
    with pytest.raises(GenerationCancelledError, match="was cancelled"):
        await client.wait(job.id)
    done = await client.submit("a ball", options={"seed": 4})
    stand.complete()
    again = await client.rerun(done.id)
    assert again.id != done.id
    assert again.prompt == "a ball"


async def test_stored_files(client: Both, stand: Stand, tmp_path: Path) -> None:
    job = await client.submit("a cube")
    stand.complete()
    files = {file.name: file for file in await client.files(job.id)}
    assert list(files) == ["mesh.glb", "preview.png", "result.json"]
    assert files["preview.png"].media_type == "image/png"
    content = await client.read_file(job.id, "mesh.glb")
    assert hashlib.sha256(content).hexdigest() == files["mesh.glb"].sha256
    path = await client.fetch_file(job.id, "result.json", tmp_path / "new" / "made.json")
    assert json.loads(path.read_text()) == {"seed": 1}
    with pytest.raises(ResultFileNotFoundError, match=r"no file 'splats\.ply'"):
        await client.read_file(job.id, "splats.ply")
    for name in ("../result", "", ".hidden", "a/b"):
        with pytest.raises(InvalidConfigError, match="is no file name"):
            await client.read_file(job.id, name)


async def test_generate_returns_the_mesh(client: Both, stand: Stand) -> None:
    client.on_pause = lambda seconds: stand.complete()  # the stand's stream ends early
    mesh = await client.generate("a cube", format="ply")
    assert mesh.startswith(b"ply")
    assert len(client.pauses) == 1


async def test_generate_cancels_what_nobody_waits_for(client: Both, stand: Stand) -> None:
    def stop(job: Any) -> None:
        raise KeyError("enough")

    with pytest.raises(KeyError, match="enough"):
        await client.generate("a cube", on_progress=stop)
    (job,) = await client.jobs()
    assert job.status == "cancelled"


async def test_waiting_ends_in_time_and_the_job_goes_on(client: Both) -> None:
    with pytest.raises(GenerationTimeoutError, match="it goes on") as caught:
        await client.generate("a cube", timeout_s=0)
    job = await client.get(caught.value.details["job_id"])
    assert job.status == "pending"


async def test_failures_say_why(client: Both, stand: Stand) -> None:
    job = await client.submit("a cube")
    stand.fail()
    with pytest.raises(GenerationError, match=f"Job {job.id} failed: round") as caught:
        await client.wait(job.id)
    assert caught.value.details["job_id"] == job.id
    with pytest.raises(JobStateError):
        await client.cancel(job.id)


async def test_refusals_are_the_librarys_exceptions(client: Both, tmp_path: Path) -> None:
    with pytest.raises(JobNotFoundError):
        await client.get("none")
    with pytest.raises(InvalidConfigError, match="y") as caught:
        await client.submit("a cube", options={"y": 1})
    assert caught.value.details["status"] == 422
    job = await client.submit("a cube")
    with pytest.raises(JobStateError):
        await client.fetch_result(job.id, tmp_path / "x.glb")
    assert list(tmp_path.glob("*.glb*")) == []
    assert client.pauses == []


async def test_jobs_are_listed_by_the_page(client: Both, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("dream_cad.client.calls.PAGE", 2)
    ids = [(await client.submit(f"cube {i}", tags=["x"])).id for i in range(5)]
    await client.submit("another", model="echo2")
    assert [job.id for job in await client.jobs(tag="x")] == ids[::-1]
    assert [job.prompt for job in await client.jobs(model="echo2")] == ["another"]
    assert await client.jobs(status="failed") == []


async def test_events_resume_behind_one_seen(client: Both, stand: Stand) -> None:
    job = await client.submit("a cube")
    stand.complete()
    events = await client.events(job.id)
    assert [event.kind for event in events] == ["pending", "running", "completed"]
    later = await client.events(job.id, after=events[0].id)
    assert [event.id for event in later] == [event.id for event in events[1:]]
    (last,) = await client.events(job.id, after=events[-1].id)
    assert (last.kind, last.id) == ("completed", None)  # nothing is left: it asked for the job


async def test_a_batch(client: Both, stand: Stand, tmp_path: Path) -> None:
    batch = await client.submit_batch(
        items=[{"prompt": "a chair"}, {"image": png(), "tags": ["x"]}, {"prompt": "a ball"}],
        name="shop",
        priority="low",
    )
    assert (batch.name, batch.total, batch.counts["pending"]) == ("shop", 3, 3)
    items = await client.batch_items(batch.id)
    assert [(item.index, item.job.priority) for item in items] == [(i, "low") for i in range(3)]
    assert (await client.pause_batch(batch.id)).status == "paused"
    assert (await client.resume_batch(batch.id)).status == "pending"
    stand.complete()
    stand.fail()
    with pytest.raises(GenerationTimeoutError, match=f"Batch {batch.id}"):
        await client.wait_batch(batch.id, timeout_s=0)
    client.on_pause = lambda seconds: stand.complete()
    counts: list[int] = []
    ended = await client.wait_batch(batch.id, lambda now: counts.append(now.counts["pending"]))
    assert (ended.counts["completed"], ended.counts["failed"], counts) == (2, 1, [1, 0])
    path = await client.fetch_archive(batch.id, tmp_path / "shop.zip", "ply")
    with zipfile.ZipFile(path) as archive:
        assert [name for name in archive.namelist() if name.endswith(".ply")]
    (fresh,) = await client.retry_batch(batch.id)
    assert (await client.batch_items(batch.id))[1].job.id == fresh
    assert (await client.cancel_batch(batch.id)).counts["cancelled"] == 1


async def test_a_batch_from_prompts_and_from_a_file(client: Both, tmp_path: Path) -> None:
    batch = await client.submit_batch(["a", "b"], idempotency_key="k", options={"brightness": 0.5})
    again = await client.submit_batch(["a", "b"], idempotency_key="k", options={"brightness": 0.5})
    assert batch.id == again.id
    rows = tmp_path / "shop.csv"
    rows.write_text("prompt,option.seed\na chair,7\na ball,\n")
    from_file = await client.submit_batch_file(rows, priority="high", tags=["t"])
    assert (from_file.name, from_file.total) == ("shop", 2)
    first, _ = await client.batch_items(from_file.id)
    assert (first.job.options["seed"], first.job.priority) == (7, "high")
    assert first.job.tags == ("t",)


async def test_models_and_cluster(client: Both) -> None:
    models = await client.models()
    assert models.default_model == "echo"
    states = {model.name: model.available for model in models.models}
    assert states == {"echo": True, "echo2": False, "trellis": False}
    assert "brightness" in models.models[0].options_schema["properties"]
    assert (await client.cluster()).as_sent() == {"gpus": []}


async def test_documents_keep_what_a_newer_server_adds(client: Both, stand: Stand) -> None:
    job = await client.submit("a cube")
    answer = await stand.client.get(f"/v1/jobs/{job.id}")
    sent = (await client.get(job.id)).as_sent()
    assert sent.keys() == answer.json().keys()
    assert sent["links"] == answer.json()["links"]
    with pytest.raises(ValueError, match="frozen"):
        job.status = "completed"
