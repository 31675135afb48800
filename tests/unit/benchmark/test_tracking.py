from __future__ import annotations

import base64
import json
import re
import urllib.parse
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

import numpy as np
import pytest
import trimesh
from tenacity import Retrying, stop_after_delay, wait_fixed

from dream_cad.benchmark import BenchmarkResult, QualityAssessor
from dream_cad.benchmark.pages import mesh_page
from dream_cad.benchmark.tracking import Tracking
from dream_cad.mesh.data import MeshData
from dream_cad.mesh.loading import load_mesh

# mlflow 3.17 still uses what its dependencies deprecate.
pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning")

BOX = trimesh.creation.box()
MESH = MeshData(np.asarray(BOX.vertices, np.float32), np.asarray(BOX.faces, np.int32))
GOOD = BenchmarkResult(
    "box",
    "a <b>box</b>",
    success=True,
    generation_time_seconds=2.0,
    peak_vram_gb=0.0,
    peak_ram_gb=0.5,
    quality_metrics=QualityAssessor().assess(MESH),
    run_seconds=[1.0, 2.0, 3.0],
    stage_seconds={"surface": 0.5},
    environment={"device": "cpu"},
)
BAD = BenchmarkResult("box", "a glass", False, 0.0, 0.0, 0.5, error_message="GenerationError: no")


@pytest.fixture(scope="module")
def tracking(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Tracking]:
    with pytest.MonkeyPatch.context() as patch:
        patch.delenv("MLFLOW_TRACKING_URI", raising=False)
        yield Tracking(tmp_path_factory.mktemp("runs") / "mlflow")


def artifacts(tracking: Tracking, run_id: str) -> dict[str, Path]:
    place = tracking.client.get_run(run_id).info.artifact_uri
    folder = Path(urllib.parse.unquote(urllib.parse.urlparse(place).path))
    return {path.name: path for path in folder.iterdir()}


def test_a_suite_is_a_parent_with_a_child_for_each_prompt(tracking: Tracking) -> None:
    prompts = [{"prompt": "a box", "group": "simple"}]
    with tracking.suite("smoke", name="pass", params={"seeds": 1}, prompts=prompts) as suite:
        good = suite.log_result(GOOD, mesh=MESH, tags={"group": "simple"}, metrics={"iou": 0.5})
        bad = suite.log_result(BAD)
        suite.log_metrics({"done": 2}, step=2)
        suite.log_page("<p>side by side</p>", "comparison.html")
    client = tracking.client
    parent = client.get_run(suite.run_id)
    assert (parent.info.status, parent.data.params) == ("FINISHED", {"seeds": "1"})
    assert parent.inputs.dataset_inputs[0].dataset.name == "smoke"
    kept = artifacts(tracking, suite.run_id)
    assert json.loads(kept["prompts.json"].read_text()) == prompts
    assert "side by side" in kept["comparison.html"].read_text()

    child = client.get_run(good)
    assert child.data.tags["mlflow.parentRunId"] == suite.run_id
    assert child.data.params["environment/device"] == "cpu"
    assert child.data.metrics["quality/overall_mesh_quality"] == pytest.approx(100)
    assert child.data.metrics["stage_seconds/surface"] == 0.5
    assert child.data.metrics["iou"] == 0.5
    steps = client.get_metric_history(good, "run_seconds")
    assert [(point.step, point.value) for point in steps] == [(0, 1), (1, 2), (2, 3)]
    files = artifacts(tracking, good)
    assert load_mesh(files["mesh.glb"]).faces.shape == MESH.faces.shape
    assert files["turntable.png"].stat().st_size > 1000
    assert "quality.json" in files

    failed = client.get_run(bad)
    assert failed.info.status == "FAILED"
    assert failed.data.params["error"] == "GenerationError: no"
    assert "generation_time_seconds" not in failed.data.metrics


def test_a_pass_can_be_resumed_and_failures_are_marked(tracking: Tracking) -> None:
    with (
        pytest.raises(RuntimeError),
        tracking.suite("again", name="pass", params={}, prompts=[]) as suite,
    ):
        raise RuntimeError("power cut")
    assert tracking.client.get_run(suite.run_id).info.status == "FAILED"
    with tracking.suite("again", name="", params={}, prompts=[], run_id=suite.run_id) as resumed:
        assert resumed.run_id == suite.run_id
    assert tracking.client.get_run(suite.run_id).info.status == "FINISHED"
    assert len(tracking.runs("again")) == 1


def test_a_pass_records_the_machines_metrics(
    tracking: Tracking, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("dream_cad.benchmark.tracking._SYSTEM_INTERVAL_S", 0.05)

    wanted = {"system/cpu_utilization_percentage", "system/system_memory_usage_megabytes"}
    with tracking.suite("machine", name="pass", params={}, prompts=[]) as suite:
        for attempt in Retrying(stop=stop_after_delay(30), wait=wait_fixed(0.05), reraise=True):
            with attempt:
                assert wanted <= set(tracking.client.get_run(suite.run_id).data.metrics)


def test_runs_are_found_by_tag_and_day(tracking: Tracking) -> None:
    now = datetime.now(UTC)
    for days, name in ((40, "o'ld"), (1, "o'ld"), (0, "other")):
        tracking.record(
            "moments",
            name=name,
            metrics={"seconds": days},
            params={},
            tags={"model": name},
            at=now - timedelta(days=days),
        )
    found = tracking.runs("moments", days=30)
    assert [run.metrics["seconds"] for run in found] == [1, 0]
    assert len(tracking.runs("moments", tags={"model": "o'ld"})) == 2
    assert abs(found[1].started - now) < timedelta(seconds=1)
    assert tracking.runs("never") == []


def test_the_place_is_sqlite_or_what_the_variable_names(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"sqlite:///{tmp_path / 'other.db'}")
    assert Tracking(tmp_path / "unused").uri.endswith("other.db")
    assert not (tmp_path / "unused").exists()


def test_the_page_of_a_mesh_holds_everything_and_escapes_its_texts() -> None:
    picture = np.zeros((8, 8, 3), np.uint8)
    html = mesh_page(MESH, picture, "</script><b>", {"<score>": 1.23456, "none": None})
    assert not re.search(r'(src|href)="(?!data:)', html)
    assert "http" not in re.sub(r"<script>.*?</script>", "", html, flags=re.DOTALL)
    assert "&lt;/script&gt;&lt;b&gt;" in html
    assert "&lt;score&gt;" in html
    assert "1.235" in html
    (glb,) = re.findall(r'<script type="model/gltf-binary" id="mesh-0">(.*?)</script>', html)
    assert base64.b64decode(glb)[:4] == b"glTF"
