from __future__ import annotations

import re
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import trimesh

from dream_cad.client import Job, Model
from dream_cad.exceptions import InvalidConfigError, QueueFullError, StorageError
from dream_cad.mesh.data import MeshData
from dream_cad.mesh.export import export_mesh
from dream_cad.ui.cards import cards_html, good_at, suggest, takes_image, takes_several
from dream_cad.ui.desk import Desk, file_stem
from dream_cad.ui.findings import measured_html
from dream_cad.ui.progress import error_html, job_html
from dream_cad.ui.result import caption, downloads_html, extra_files, stage_html
from dream_cad.ui.shelf import Shelf

GPU = {"nodes": [{"alive": True, "resources": {"GPU": 1.0, "CPU": 4.0}}]}
NO_GPU = {"nodes": [{"alive": True, "resources": {"CPU": 4.0}}]}
NOW = datetime(2026, 1, 1, tzinfo=UTC)


def model(name: str, available: bool = True, **more: Any) -> Model:
    return Model(name=name, available=available, state="ready" if available else "failed", **more)


def text_of(html: str) -> str:
    return re.sub(r"<[^>]+>", " ", html)


def test_the_best_fit_follows_the_hardware_and_the_input() -> None:
    models = [model("triposr"), model("hunyuan3d-mini"), model("trellis", available=False)]
    assert suggest(models, "triposr", GPU)[0] == "hunyuan3d-mini"
    assert suggest(models, "hunyuan3d-mini", NO_GPU) == ("triposr", "the quickest without a GPU")
    words_only = model("mvdream", capabilities={"supports_image_to_3d": False})
    assert suggest([words_only], "mvdream", GPU, takes=takes_image) == ("", "")
    assert suggest([words_only], "mvdream", GPU)[0] == "mvdream"
    assert suggest(models, "hunyuan3d-mini", GPU, takes=takes_several) == ("", "")
    any_order = model("trellis", views=())
    assert suggest([*models, any_order], "triposr", GPU, takes=takes_several)[0] == "trellis"
    own = [model("mine"), model("other")]
    assert suggest(own, "other", NO_GPU)[0] == "other"


def test_cards_tell_why_a_model_is_not_there_and_cannot_be_chosen() -> None:
    models = [model("trellis", False, reason="needs <16 GB>"), model("triposr", checkpoint="nano")]
    html = cards_html(models, "triposr", ("triposr", "quick"))
    assert html.index('value="triposr"') < html.index('value="trellis"')
    assert "needs &lt;16 GB&gt;" in html
    assert 'value="trellis" data-choice="model" disabled' in html
    assert 'value="triposr" data-choice="model" checked' in html
    assert "best fit" in html
    assert "nano checkpoint" in text_of(html)
    assert "words and pictures" in good_at(model("mine"))


def test_a_waiting_job_shows_its_place_and_a_running_one_its_step() -> None:
    waiting = Job(id="j", status="pending", position=3, eta_s=42.0)
    assert "Waiting in line" in job_html(waiting)
    assert "place 3 · about 42 s left" in text_of(job_html(waiting))
    running = Job(id="j", status="running", progress=0.25, stage="denoise 5/20")
    assert "denoise 5/20 · 25 %" in text_of(job_html(running))
    assert '<progress max="100" value="25"' in job_html(running)
    stopping = Job(id="j", status="running", cancel_requested=True)
    assert "Stopping" in job_html(stopping)
    done = Job(id="j", status="completed", model="triposr", started_at=NOW)
    done = done.model_copy(update={"completed_at": NOW + timedelta(seconds=200)})
    assert "in 3 min · by triposr" in text_of(job_html(done))


def test_a_failure_is_an_alert_with_what_to_do() -> None:
    error = {"detail": "The <cube> came out round.", "hint": "Try another prompt."}
    html = job_html(Job(id="j", status="failed", error=error))
    assert 'role="alert"' in html
    assert "The &lt;cube&gt; came out round." in html
    assert "Try another prompt." in html
    html = error_html(QueueFullError("Full.", hint="Wait."))
    assert "Full." in html
    assert "Wait." in html


def test_a_result_names_its_checkpoint_and_seed() -> None:
    job = Job(id="0123456789", status="completed", prompt='a "red" chair', model="triposr")
    receipt = {"metadata": {"checkpoint": {"kind": "nano"}, "seed": 7}}
    assert caption(job, receipt) == 'a "red" chair · triposr · checkpoint nano · seed 7'
    assert 'data-title="a &quot;red&quot; chair"' in stage_html("x.glb", job, receipt)
    assert file_stem(job) == "a-red-chair-456789"
    assert file_stem(Job(id="0123456789", status="completed")) == "mesh-456789"
    assert downloads_html(["glb", "stl"]).count("data-format") == 2


def test_what_the_model_made_beside_the_mesh_can_be_downloaded() -> None:
    stored = ["mesh.glb", "mesh.stl", "preview.png", "result.json", "splats.ply", "views.png"]
    assert extra_files(stored) == ["splats.ply", "views.png"]
    html = downloads_html(["glb"], ["splats.ply", '<b>"'])
    assert 'data-format="file:splats.ply"' in html
    assert "&lt;b&gt;&quot;" in html


async def test_the_report_explains_each_score(tmp_path: Path) -> None:
    box = trimesh.creation.box()
    vertices, faces = np.float32(box.vertices), np.int32(box.faces)
    closed = export_mesh(MeshData(vertices, faces), tmp_path / "closed.glb")
    html = await measured_html(closed)
    assert "closed" in text_of(html)
    assert html.count("<li") >= 8
    assert "Texture layout" not in html
    half = export_mesh(MeshData(vertices, faces[:6]), tmp_path / "open.glb")
    assert "openings" in text_of(await measured_html(half))


async def test_the_shelf_fetches_once_and_gives_up_the_oldest() -> None:
    shelf = Shelf(most_files=2)
    fetched: list[str] = []

    async def fetch(path: Path) -> Path:
        fetched.append(path.name)
        path.write_bytes(b"x" * 10)
        return path

    first = await shelf.get(("a",), "a.glb", fetch)
    assert await shelf.get(("a",), "a.glb", fetch) == first
    assert first.is_relative_to(shelf.folder)
    second = await shelf.get(("b",), "b.glb", fetch)
    await shelf.get(("a",), "a.glb", fetch)  # used: b is the oldest now
    await shelf.get(("c",), "c.glb", fetch)
    assert fetched == ["a.glb", "b.glb", "c.glb"]
    assert (first.exists(), second.exists()) == (True, False)


async def test_the_shelf_keeps_nothing_of_a_fetch_that_failed() -> None:
    shelf = Shelf(most_bytes=1)

    async def fail(path: Path) -> Path:
        path.write_bytes(b"half")
        raise StorageError("The disk is full.")

    with pytest.raises(StorageError):
        await shelf.get(("a",), "a.glb", fail)
    assert list(shelf.folder.iterdir()) == []


def test_visitors_with_other_keys_share_no_file() -> None:
    desk = Desk("http://127.0.0.1:1", key_of=lambda request: request)
    assert desk._visitor("key-1") != desk._visitor("key-2")
    assert desk.client("key-1").server == "http://127.0.0.1:1"
    with pytest.raises(InvalidConfigError):
        Desk("no url")
