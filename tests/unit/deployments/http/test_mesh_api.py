"""A mesh that is sent along to be textured or varied, from request to model; P1 included."""

from __future__ import annotations

import asyncio
import base64
from pathlib import Path
from typing import Any

import pytest
import trimesh

from deployments.http.compat_p1 import P1Request, as_submission
from deployments.messages import INPUT_FILE, INPUT_MESH, StageRequest
from deployments.model import ModelReplica
from dream_cad.mesh.data import MeshData
from dream_cad.mesh.export import mesh_bytes
from dream_cad.mesh.loading import load_mesh
from dream_cad.models.base import GenerationResult
from tests.cluster.echo_model import _CORNERS, _FACES, EchoModel
from tests.unit.deployments.http.conftest import PLANS, Stand, png

GLB = mesh_bytes(MeshData(vertices=_CORNERS, faces=_FACES), "glb")
POINTS = trimesh.Scene(trimesh.PointCloud(_CORNERS)).export(file_type="glb")
PICTURE = png()
SEEN: list[tuple[int, Any, Any]] = []


class Painter(EchoModel):
    """Textures meshes, and notes after what."""

    @classmethod
    def paints_meshes(cls) -> bool:
        return True

    def texture_mesh(
        self, mesh: Any, *, image: Any = None, prompt: str | None = None, **options: Any
    ) -> GenerationResult:
        SEEN.append((len(load_mesh(mesh).faces), image, prompt))
        return self.generate_from_text("mesh", **options)


class Varier(EchoModel):
    """Makes variants of meshes, and notes after what."""

    @classmethod
    def makes_variants(cls) -> bool:
        return True

    def generate_variant(
        self, mesh: Any, *, prompt: str | None = None, image: Any = None, **options: Any
    ) -> GenerationResult:
        SEEN.append((len(load_mesh(mesh).faces), image, prompt))
        return self.generate_from_text("mesh", **options)


@pytest.fixture
def painter(stand: Stand, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("deployments.http.checks.resolve_implementation", lambda _: Painter)


def coded(content: bytes) -> str:
    return base64.b64encode(content).decode()


@pytest.mark.usefixtures("painter")
async def test_mesh_and_picture_are_stored_and_belong_to_the_job(stand: Stand) -> None:
    files = {"mesh": ("x.glb", GLB), "image": ("x.png", PICTURE)}
    answer = await stand.client.post("/v1/jobs", files=files)
    assert answer.status_code == 202, answer.text
    job = stand.queue.get_job(answer.json()["id"])
    assert job is not None
    assert job.policy["mesh"] is True
    for new in (job.id, (await stand.client.post(f"/v1/jobs/{job.id}/rerun")).json()["id"]):
        uri = stand.queue.get_job(new).input_uri  # type: ignore[union-attr]
        assert stand.artifacts.read(uri or "", INPUT_MESH) == GLB
        assert stand.artifacts.read(uri or "", INPUT_FILE) == PICTURE


@pytest.mark.usefixtures("painter")
async def test_mesh_and_prompt(stand: Stand) -> None:
    body = {"mesh": coded(GLB), "prompt": "rusty iron"}
    keys = []
    for changed in ({}, {}, {"prompt": "oak"}, {"mesh": coded(GLB + b"\0\0\0\0")}):
        answer = await stand.client.post("/v1/jobs", json=body | changed)
        if answer.status_code == 202:
            job = stand.queue.get_job(answer.json()["id"])
            assert job is not None
            assert job.prompt == changed.get("prompt", "rusty iron")
            keys.append(job.cache_key)
    assert len(keys) >= 3
    assert keys[0] == keys[1] != keys[2]


@pytest.mark.usefixtures("painter")
@pytest.mark.parametrize(
    ("body", "word"),
    [
        ({"mesh": coded(GLB)}, "either a prompt or an image"),
        ({"mesh": "no base64!", "prompt": "x"}, "'mesh'"),
        ({"mesh": coded(b"solid cube"), "prompt": "x"}, "no GLB"),
        ({"mesh": coded(GLB[:100]), "prompt": "x"}, "cut short"),
        ({"mesh": coded(POINTS), "prompt": "x"}, "input.glb"),
        ({"mesh": coded(GLB), "images": [coded(png())]}, "one picture"),
    ],
)
async def test_meshes_that_are_refused(stand: Stand, body: dict[str, Any], word: str) -> None:
    answer = await stand.client.post("/v1/jobs", json=body)
    assert 400 <= answer.status_code < 500, answer.text
    assert word in answer.text
    assert stand.queue.get_next_job() is None


async def test_a_model_that_only_makes_meshes_says_so(stand: Stand) -> None:
    body = {"mesh": coded(GLB), "prompt": "x"}
    assert "cannot texture" in (await stand.client.post("/v1/jobs", json=body)).text
    answer = await stand.client.post("/generate", json={**body, "texture": True, "text": "x"})
    assert answer.status_code == 422
    assert "textures meshes" in answer.text


@pytest.mark.parametrize(
    ("kind", "key"), [(Painter, "textures_meshes"), (Varier, "makes_variants")]
)
async def test_models_say_what_they_do_with_meshes(
    stand: Stand, monkeypatch: pytest.MonkeyPatch, kind: type[EchoModel], key: str
) -> None:
    monkeypatch.setattr("deployments.http.checks.resolve_implementation", lambda _: kind)
    found = (await stand.client.get("/v1/models")).json()["models"]
    for name in ("textures_meshes", "makes_variants"):
        can = {model["name"]: model[name] for model in found}
        assert can == {"echo": name == key, "echo2": name == key, "trellis": False}


async def test_a_mesh_to_vary_is_taken_but_not_by_p1(
    stand: Stand, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("deployments.http.checks.resolve_implementation", lambda _: Varier)
    body = {"mesh": coded(GLB), "prompt": "rusty iron"}
    answer = await stand.client.post("/v1/jobs", json=body)
    assert answer.status_code == 202, answer.text
    answer = await stand.client.post("/generate", json={**body, "texture": True, "text": "x"})
    assert answer.status_code == 422
    assert "textures meshes" in answer.text


@pytest.mark.usefixtures("painter")
async def test_p1_textures_this_mesh(stand: Stand) -> None:
    async def worked() -> None:
        while not stand.queue.depth():
            await asyncio.sleep(0)
        assert stand.complete().policy["mesh"] is True

    body = {"mesh": coded(GLB), "image": coded(png()), "texture": True}
    answer, _ = await asyncio.gather(stand.client.post("/generate", json=body), worked())
    assert answer.status_code == 200
    assert answer.content[:4] == b"glTF"


@pytest.mark.usefixtures("painter")
def test_p1_leaves_the_triangles_alone() -> None:
    fields = P1Request(mesh=coded(GLB), text="iron", texture=True, face_count=500, seed=7)
    found = as_submission(fields, PLANS[0])
    assert (found.mesh, found.request.options) == (GLB, {"seed": 7})


@pytest.mark.parametrize("kind", [Painter, Varier])
@pytest.mark.parametrize("with_picture", [True, False])
def test_the_model_gets_the_mesh(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, with_picture: bool, kind: type[EchoModel]
) -> None:
    monkeypatch.setattr("deployments.model.ModelFactory.create_model", lambda _: kind())
    monkeypatch.setattr("deployments.model.resolve_implementation", lambda _: kind)
    replica = ModelReplica("echo", {}, [], str(tmp_path), 0.0)
    files = {INPUT_MESH: GLB} | ({INPUT_FILE: png((16, 16))} if with_picture else {})
    replica._artifacts.publish("job-input", files)
    prompt = "" if with_picture else "rusty iron"
    request = StageRequest("job", prompt, input_key="job-input", has_mesh=True)
    SEEN.clear()
    replica._generate(request, lambda fraction, stage: None)
    (faces, image, told) = SEEN[0]
    assert faces == 12
    assert (image.size if with_picture else image) == ((16, 16) if with_picture else None)
    assert told == (None if with_picture else "rusty iron")
