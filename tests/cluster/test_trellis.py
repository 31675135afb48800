"""TRELLIS at tiny size behind HTTP: every representation of a prompt and of an upload."""

from __future__ import annotations

import io
import json
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import trimesh

from dream_cad.mesh.data import MeshData
from dream_cad.mesh.export import mesh_bytes
from dream_cad.mesh.loading import load_mesh
from dream_cad.splats.ply import parse_ply
from tests.cluster.conftest import Server, app_args, serving
from tests.tiny_trellis import PROMPT, write_checkpoint, write_text_checkpoint
from tests.tiny_triposr import picture

pytestmark = pytest.mark.long

OPTIONS = {"representation": "mesh,nerf,gaussian_splatting,slat", "seed": 3, "preview_size": 32}


@pytest.fixture(scope="module")
def trellis(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    folder = tmp_path_factory.mktemp("trellis")
    checkpoint = write_checkpoint(folder / "TRELLIS-image-large")
    text = write_text_checkpoint(folder / "text")
    model = {
        "name": "trellis",
        "checkpoint": str(checkpoint),
        "options": {"device": "cpu", "text_checkpoint": str(text)},
    }
    with serving(folder, app_args(folder, models=[model], modules=[])) as running:
        yield running


def check_files(server: Server, job_id: str, folder: Path) -> dict[str, object]:
    """Fetch every file of a result, and return its receipt's metadata."""
    files = {
        item["name"]: server.client.get(item["url"]).content
        for item in server.client.get(f"/v1/jobs/{job_id}/files").json()["files"]
    }
    metadata = dict(json.loads(files["result.json"])["metadata"])
    voxels = int(str(metadata["voxels"]))
    (folder / "mesh.glb").write_bytes(files["mesh.glb"])
    assert len(load_mesh(folder / "mesh.glb").faces) > 100
    assert len(parse_ply(files["splats.ply"])) == 8 * voxels == len(files["splats.splat"]) // 32
    with np.load(io.BytesIO(files["field.npz"])) as field:
        assert len(field["trivec"]) == voxels
    with np.load(io.BytesIO(files["latent.npz"])) as latent:
        assert latent["feats"].shape == (voxels, 8)
    return metadata


def test_four_representations_of_a_prompt(trellis: Server, tmp_path: Path) -> None:
    body = {"prompt": PROMPT, "model": "trellis", "options": OPTIONS}
    answer = trellis.client.post("/v1/jobs", json=body)
    assert answer.status_code == 202, answer.text
    job = trellis.ended(answer.json()["id"])
    assert job["status"] == "completed", job
    metadata = check_files(trellis, job["id"], tmp_path)
    assert metadata["conditioning"] == "text"  # no picture was drawn
    assert metadata["seed"] == 3


def test_four_representations_of_an_upload(trellis: Server, tmp_path: Path) -> None:
    buffer = io.BytesIO()
    picture().save(buffer, "PNG")
    answer = trellis.client.post(
        "/v1/jobs",
        data={"model": "trellis", "options": json.dumps(OPTIONS)},
        files={"image": ("picture.png", buffer.getvalue(), "image/png")},
    )
    assert answer.status_code == 202, answer.text
    job = trellis.ended(answer.json()["id"])
    assert job["status"] == "completed", job
    assert check_files(trellis, job["id"], tmp_path)["conditioning"] == "image"


def test_several_pictures_of_one_object(trellis: Server) -> None:
    buffer = io.BytesIO()
    picture().save(buffer, "PNG")
    options = {"representation": "mesh", "seed": 3, "preview_size": 32}
    answer = trellis.client.post(
        "/v1/jobs",
        data={"model": "trellis", "options": json.dumps(options)},
        files=[("images", (f"{n}.png", buffer.getvalue(), "image/png")) for n in range(2)],
    )
    assert answer.status_code == 202, answer.text
    job = trellis.ended(answer.json()["id"])
    assert job["status"] == "completed", job
    receipt = trellis.client.get(f"/v1/jobs/{job['id']}/receipt").json()
    assert receipt["metadata"]["input"]["kind"] == "views"
    assert len(receipt["metadata"]["input"]["sha256"]) == 2


def test_wrong_options_are_refused_at_the_door(trellis: Server) -> None:
    for options in ({"representation": "voxels"}, {"structure_interval": [1, 0]}, {"seed": -1}):
        body = {"prompt": PROMPT, "model": "trellis", "options": options}
        answer = trellis.client.post("/v1/jobs", json=body)
        assert answer.status_code == 422
        assert next(iter(options)) in answer.text


@pytest.mark.parametrize("guide", ["prompt", "image"])
def test_a_variant_of_a_mesh_that_is_sent(trellis: Server, tmp_path: Path, guide: str) -> None:
    ball = trimesh.creation.icosphere(3, 0.4)
    mesh = MeshData(np.asarray(ball.vertices, np.float32), np.asarray(ball.faces, np.int32))
    files = {"mesh": ("ball.glb", mesh_bytes(mesh, "glb"), "model/gltf-binary")}
    data = {"model": "trellis", "options": json.dumps({"seed": 3})}
    if guide == "prompt":
        data["prompt"] = PROMPT
    else:
        buffer = io.BytesIO()
        picture().save(buffer, "PNG")
        files["image"] = ("picture.png", buffer.getvalue(), "image/png")
    answer = trellis.client.post("/v1/jobs", data=data, files=files)
    assert answer.status_code == 202, answer.text
    job = trellis.ended(answer.json()["id"])
    assert job["status"] == "completed", job
    listed = trellis.client.get(f"/v1/jobs/{job['id']}/files").json()["files"]
    (receipt,) = (item["url"] for item in listed if item["name"] == "result.json")
    metadata = trellis.client.get(receipt).json()["metadata"]
    assert metadata["input"]["kind"] == "variant"
    assert metadata["input"]["faces"] == len(ball.faces)
    assert metadata["conditioning"] == ("text" if guide == "prompt" else "image")
