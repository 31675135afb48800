from __future__ import annotations

import asyncio
import base64
from typing import Any

import httpx
import pytest

from deployments.http.compat_p1 import P1Request, as_submission
from deployments.plan import ModelPlan
from dream_cad.models.triposr.options import TripoSROptions
from tests.unit.deployments.http.conftest import Stand, png

FACES = 40_000


def text_error(answer: httpx.Response, status: int) -> str:
    assert answer.status_code == status, answer.text
    assert answer.headers["content-type"].startswith("text/plain")
    return answer.text


@pytest.fixture
def triposr(monkeypatch: pytest.MonkeyPatch) -> ModelPlan:
    class Model:
        @classmethod
        def options_model(cls) -> type[TripoSROptions]:
            return TripoSROptions

    monkeypatch.setattr("deployments.http.checks.resolve_implementation", lambda _: Model)
    return ModelPlan("triposr", is_deployed=True, reason="", needs_picture=True)


@pytest.mark.parametrize(
    ("fields", "options"),
    [
        ({"text": "x"}, {"seed": 1234, "target_faces": FACES}),
        ({"text": "x", "seed": 7, "face_count": 500}, {"seed": 7, "target_faces": 500}),
        (
            {"text": "x", "octree_resolution": 256, "num_inference_steps": 20},
            {"seed": 1234, "target_faces": FACES, "resolution": 256, "num_inference_steps": 20},
        ),
        ({"text": "x", "texture": True}, {"seed": 1234, "target_faces": FACES, "texture": True}),
        (
            {"image": "aGk=", "num_inference_steps": 20, "guidance_scale": 5.5},
            {"seed": 1234, "target_faces": FACES},
        ),
    ],
)
def test_fields_become_options(
    triposr: ModelPlan, fields: dict[str, Any], options: dict[str, Any]
) -> None:
    found = as_submission(P1Request.model_validate(fields), triposr)
    assert found.request.options == options
    assert found.request.format == "glb"
    assert found.image == (b"hi" if "image" in fields else None)


async def worked(stand: Stand) -> None:
    """Complete the next job, as soon as there is one."""
    while not stand.queue.depth():
        await asyncio.sleep(0)
    stand.complete()


async def test_generate_answers_with_the_mesh(stand: Stand) -> None:
    body = {"text": "a cube", "type": "stl", "unknown": 1}
    answer, _ = await asyncio.gather(stand.client.post("/generate", json=body), worked(stand))
    assert answer.status_code == 200
    assert len(answer.content) == 84 + 12 * 50


async def test_generate_takes_a_picture(stand: Stand) -> None:
    body = {"image": base64.b64encode(png()).decode(), "texture": True}
    answer, _ = await asyncio.gather(stand.client.post("/generate", json=body), worked(stand))
    assert answer.content[:4] == b"glTF"


async def test_a_failed_generation_is_text(stand: Stand) -> None:
    async def failing() -> None:
        while not stand.queue.depth():
            await asyncio.sleep(0)
        stand.fail()

    answer, _ = await asyncio.gather(stand.client.post("/generate", json={"text": "x"}), failing())
    assert "round" in text_error(answer, 500)


async def test_send_and_status(stand: Stand) -> None:
    uid = (await stand.client.post("/send", json={"text": "a cube"})).json()["uid"]
    assert (await stand.client.get(f"/status/{uid}")).json() == {"status": "processing"}
    job = stand.queue.get_next_job()
    assert job is not None
    assert job.lease_token is not None
    stand.queue.report_progress(uid, job.lease_token, 0.9, "finishing")
    assert (await stand.client.get(f"/status/{uid}")).json() == {"status": "texturing"}
    stand.queue.retry(uid, job.lease_token, {"type": "x", "title": "x", "detail": "lost"})
    stand.complete()
    body = (await stand.client.get(f"/status/{uid}")).json()
    assert body["status"] == "completed"
    assert base64.b64decode(body["model_base64"])[:4] == b"glTF"


async def test_failures_are_told(stand: Stand) -> None:
    uid = (await stand.client.post("/send", json={"text": "a cube"})).json()["uid"]
    stand.fail()
    body = (await stand.client.get(f"/status/{uid}")).json()
    assert (body["status"], body["message"]) == ("error", "round")
    text_error(await stand.client.get("/status/nobody"), 404)


@pytest.mark.parametrize(
    ("body", "status"),
    [
        ("{", 400),
        ("[]", 422),
        ("{}", 422),
        ('{"text": "x", "image": "aGk="}', 422),
        ('{"text": "x", "mesh": "aGk="}', 422),
        ('{"text": "x", "mesh": "aGk=", "texture": true}', 422),
        ('{"image": "%"}', 422),
        ('{"image": "aGk="}', 415),
        ('{"text": "x", "type": "exe"}', 422),
        ('{"text": "\\ud800"}', 422),
        ('{"text": "x", "seed": -1}', 422),
    ],
)
@pytest.mark.parametrize("path", ["/generate", "/send"])
async def test_errors_are_text(stand: Stand, path: str, body: str, status: int) -> None:
    text_error(await stand.client.post(path, content=body), status)


async def test_a_key_in_the_query(stand: Stand) -> None:
    _, key = stand.queue.keys.create_key("p1", ("submit", "read"))
    text_error(await stand.client.post("/send", json={"text": "x"}), 401)
    answer = await stand.client.post("/send", params={"key": key}, json={"text": "x"})
    uid = answer.json()["uid"]
    assert (await stand.client.get(f"/status/{uid}", params={"key": key})).status_code == 200
    assert (await stand.client.get("/health")).json()["status"] == "healthy"
    # Version 1 takes no key from the query: it would end up in logs.
    assert (await stand.client.get("/v1/jobs", params={"key": key})).status_code == 401
