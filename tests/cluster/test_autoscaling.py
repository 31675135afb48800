"""Replicas follow the queue: none while nobody asks, more while jobs wait, none again.

Beside the cube model, nano Stable Fast 3D and a tiny MVDream sleep in the same application until
their tests.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from dream_cad.benchmark import QualityAssessor
from tests.cluster.conftest import Server, app_args, serving, until
from tests.tiny_mvdream import PROMPT, write_checkpoint
from tests.unit.mesh.gltf import absent_reason, problems

MODEL = "model-echo"


@pytest.fixture(scope="module")
def scaled(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    folder = tmp_path_factory.mktemp("scaled")
    autoscaling = {"min_replicas": 0, "max_replicas": 2, "drain_s": 0.01, "idle_s": 2}
    models = [{"name": "echo", "autoscaling": autoscaling}]
    textured = {"min_replicas": 0, "max_replicas": 1, "idle_s": 2}
    models.append({"name": "stable-fast-3d", "checkpoint": "nano", "autoscaling": textured})
    views = {"name": "mvdream", "checkpoint": str(write_checkpoint(folder / "mvdream"))}
    models.append({**views, "autoscaling": textured})
    with serving(folder, app_args(folder, models=models)) as running:
        yield running


def test_a_model_sleeps_until_a_job_comes_and_sleeps_again(scaled: Server) -> None:
    (model,) = [m for m in scaled.client.get("/v1/models").json()["models"] if m["name"] == "echo"]
    assert (model["state"], model["available"]) == ("asleep", True)
    assert scaled.find_replicas(MODEL) == []
    job = scaled.ended(scaled.submit("wake up"))
    assert (job["status"], job["attempts"]) == ("completed", 1)
    until(lambda: scaled.find_replicas(MODEL) == [], "asleep again")
    assert scaled.ended(scaled.submit("wake up again"))["status"] == "completed"
    cluster = scaled.client.get("/v1/cluster").json()["models"]["echo"]
    assert cluster["loads"] == 2


def test_waiting_jobs_get_a_second_replica_and_none_is_stopped_at_work(scaled: Server) -> None:
    holds = [scaled.hold() for _ in range(2)]
    ids = [scaled.submit(f"at once {n}", hold=str(hold)) for n, hold in enumerate(holds)]
    for job_id in ids:
        scaled.until(job_id, "running", stage="holding")
    assert len(scaled.find_replicas(MODEL)) == 2
    holds[0].unlink()
    assert scaled.ended(ids[0])["status"] == "completed"
    slots = lambda: scaled.client.get("/v1/cluster").json()["models"]["echo"]["slots"]  # noqa: E731
    until(lambda: slots() == 1, "one slot less")
    assert scaled.get(ids[1])["status"] == "running"
    holds[1].unlink()
    job = scaled.ended(ids[1])
    assert (job["status"], job["attempts"]) == ("completed", 1)


def test_stable_fast_3d_is_served(scaled: Server, tmp_path: Path) -> None:
    body = {"prompt": "a wooden chair", "model": "stable-fast-3d", "options": {"seed": 1}}
    answer = scaled.client.post("/v1/jobs", json=body)
    assert answer.status_code == 202, answer.text
    job = scaled.ended(answer.json()["id"])
    assert (job["status"], job["attempts"]) == ("completed", 1), job["error"]
    glb = scaled.client.get(f"/v1/jobs/{job['id']}/result", params={"format": "glb"}).content
    if absent_reason() is None:
        assert problems(glb) == []
    path = tmp_path / "chair.glb"
    path.write_bytes(glb)
    metrics = QualityAssessor().assess_mesh_file(path)
    assert metrics.face_count > 500
    assert metrics.uv_coverage > 50
    assert metrics.uv_overlap == 0
    assert metrics.textures.resolution >= 1024
    assert {"base colour", "normal"} <= set(metrics.textures.maps)


@pytest.mark.long
def test_mvdream_is_served_from_a_folder(scaled: Server) -> None:
    options = {"seed": 3, "num_inference_steps": 3, "resolution": 32, "density_threshold": 0.5}
    body = {"prompt": PROMPT, "model": "mvdream", "options": options | {"remove_background": False}}
    assert scaled.client.post("/v1/jobs", json=body).status_code == 503
    accepted = scaled.client.post("/v1/admin/licenses", json={"model": "mvdream"})
    assert accepted.status_code == 200, accepted.text
    answer = scaled.client.post("/v1/jobs", json=body)
    assert answer.status_code == 202, answer.text
    job = scaled.ended(answer.json()["id"])
    assert (job["status"], job["attempts"]) == ("completed", 1), job["error"]
    glb = scaled.client.get(f"/v1/jobs/{job['id']}/result", params={"format": "glb"}).content
    assert glb[:4] == b"glTF"
    if absent_reason() is None:
        assert problems(glb) == []
    sheet = scaled.client.get(f"/v1/jobs/{job['id']}/files/views.png")
    assert sheet.content[1:4] == b"PNG"
