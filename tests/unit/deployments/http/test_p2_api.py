"""Wire format P2: the sequences of requests that Meshy's clients send."""

from __future__ import annotations

import base64
import json
from datetime import UTC, datetime
from typing import Any

import httpx
import pytest

from deployments.http.compat_p2 import ImageTo3D, TextTo3D, image_submission, text_submission
from deployments.http.signed_links import is_signed, sign
from deployments.messages import INPUT_MESH
from deployments.plan import ModelPlan
from dream_cad.exceptions import InvalidConfigError
from dream_cad.models.triposr.options import TripoSROptions
from tests.unit.deployments.http.conftest import Stand, png
from tests.unit.deployments.http.test_mesh_api import Painter

TEXT, IMAGE = "/openapi/v2/text-to-3d", "/openapi/v1/image-to-3d"
PREVIEW = {"mode": "preview", "prompt": "a red chair", "seed": 7, "art_style": "realistic"}


def message(answer: httpx.Response, status: int) -> str:
    assert answer.status_code == status, answer.text
    assert answer.headers["content-type"] == "application/json"
    return str(answer.json()["message"])


async def create(stand: Stand, url: str = TEXT, **fields: Any) -> str:
    answer = await stand.client.post(url, json=fields or PREVIEW)
    assert answer.status_code == 202, answer.text
    return str(answer.json()["result"])


async def task(stand: Stand, task_id: str, url: str = TEXT) -> dict[str, Any]:
    answer = await stand.client.get(f"{url}/{task_id}")
    assert answer.status_code == 200, answer.text
    return dict(answer.json())


async def test_create_poll_download(stand: Stand) -> None:
    """What ComfyUI's nodes do: no seed of theirs is lost, times are in milliseconds."""
    task_id = await create(stand)
    waiting = await task(stand, task_id)
    assert (waiting["id"], waiting["status"], waiting["progress"]) == (task_id, "PENDING", 0)
    assert (waiting["type"], waiting["seed"]) == ("text-to-3d-preview", 7)
    assert waiting["model_urls"] == {}
    assert waiting["task_error"] == {"message": ""}
    assert abs(waiting["created_at"] / 1000 - datetime.now(UTC).timestamp()) < 60
    stand.complete()
    done = await task(stand, task_id)
    assert (done["status"], done["progress"]) == ("SUCCEEDED", 100)
    assert done["created_at"] <= done["started_at"] <= done["finished_at"]
    for name, start in (("glb", b"glTF"), ("ply", b"ply")):
        answer = await stand.client.get(done["model_urls"][name])
        assert answer.content.startswith(start)
        assert answer.headers["etag"]
    assert (await stand.client.get(done["thumbnail_url"])).content[1:4] == b"PNG"


async def test_preview_then_refine(stand: Stand) -> None:
    preview = await create(stand)
    refine = {"mode": "refine", "preview_task_id": preview, "enable_pbr": True}
    assert "SUCCEEDED" in message(await stand.client.post(TEXT, json=refine), 409)
    stand.complete()
    refined = await task(stand, await create(stand, **refine))
    assert (refined["type"], refined["prompt"], refined["seed"]) == (
        "text-to-3d-refine",
        "a red chair",
        7,
    )
    again = {**refine, "preview_task_id": refined["id"]}
    assert "no preview" in message(await stand.client.post(TEXT, json=again), 422)
    nobody = {**refine, "preview_task_id": "nobody"}
    message(await stand.client.post(TEXT, json=nobody), 404)
    message(await stand.client.post(TEXT, json={"mode": "refine"}), 422)


async def test_pictures_as_data_uris(stand: Stand) -> None:
    uri = f"data:image/png;base64,{base64.b64encode(png()).decode()}"
    task_id = await create(stand, IMAGE, image_url=uri, should_texture=True, target_formats=["glb"])
    stand.complete()
    done = await task(stand, task_id, IMAGE)
    assert done["type"] == "image-to-3d"
    assert list(done["model_urls"]) == ["glb"]
    message(await stand.client.get(f"{TEXT}/{task_id}"), 404)
    for url in ("data:image/png;base64,%", "https://example.com/x.png"):
        message(await stand.client.post(IMAGE, json={"image_url": url}), 422)


async def test_following_a_task(stand: Stand) -> None:
    task_id = await create(stand)
    stand.complete()
    answer = await stand.client.get(f"{TEXT}/{task_id}/stream")
    assert answer.headers["content-type"].startswith("text/event-stream")
    blocks = [block for block in answer.text.split("\n\n") if block]
    assert all(block.startswith("event: message\ndata: {") for block in blocks)
    last = json.loads(blocks[-1].partition("data: ")[2])
    assert (last["status"], last["id"]) == ("SUCCEEDED", task_id)
    message(await stand.client.get(f"{TEXT}/nobody/stream"), 404)


async def test_listing_by_numbered_pages(stand: Stand) -> None:
    ids = [await create(stand) for _ in range(5)]
    await stand.submit(tags=["other"])
    await create(stand, IMAGE, image_url=f"data:;base64,{base64.b64encode(png()).decode()}")

    async def page(number: int, size: int = 2) -> list[str]:
        params = {"page_num": number, "page_size": size, "sort_by": "-created_at"}
        answer = await stand.client.get(TEXT, params=params)
        return [found["id"] for found in answer.json()]

    assert await page(1) + await page(2) + await page(3) == ids[::-1]
    assert await page(4) == []
    assert len((await stand.client.get(IMAGE)).json()) == 1
    message(await stand.client.get(f"{TEXT}?page_num=0"), 422)


@pytest.fixture
def painter(stand: Stand, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("deployments.http.checks.resolve_implementation", lambda _: Painter)


async def refine(stand: Stand, **look: str) -> httpx.Response:
    preview = await create(stand)
    stand.complete()
    body = {"mode": "refine", "preview_task_id": preview, "seed": 5, **look}
    return await stand.client.post(TEXT, json=body)


@pytest.mark.usefixtures("painter")
@pytest.mark.parametrize("kind", ["prompt", "picture"])
async def test_a_refinement_is_textured_as_it_says(stand: Stand, kind: str) -> None:
    data = "data:image/png;base64," + base64.b64encode(png()).decode()
    look = {"texture_prompt": "rusty iron"} if kind == "prompt" else {"texture_image_url": data}
    answer = await refine(stand, **look)
    assert answer.status_code == 202, answer.text
    job = stand.queue.get_job(answer.json()["result"])
    assert job is not None
    assert job.prompt == look.get("texture_prompt", "")
    assert (job.policy["mesh"], job.policy["picture"]) == (True, kind == "picture")
    assert stand.artifacts.read(str(job.input_uri), INPUT_MESH)[:4] == b"glTF"
    done = await task(stand, job.id)
    assert (done["type"], done["seed"]) == ("text-to-3d-refine", 5)


@pytest.mark.usefixtures("painter")
@pytest.mark.parametrize(
    ("look", "why"),
    [
        ({"texture_image_url": "https://example.org/x.png"}, "data URI"),
        ({"texture_image_url": "data:image/png;base64,!"}, "base64"),
        ({"texture_prompt": "x", "texture_image_url": "data:image/png;base64,AA"}, "either"),
    ],
)
async def test_looks_that_are_refused(stand: Stand, look: dict[str, str], why: str) -> None:
    assert why in message(await refine(stand, **look), 422)


async def test_no_model_here_paints(stand: Stand) -> None:
    assert "textures meshes" in message(await refine(stand, texture_prompt="rust"), 422)


async def test_failure_and_cancellation(stand: Stand) -> None:
    failed, cancelled = await create(stand), await create(stand)
    stand.fail()
    found = await task(stand, failed)
    assert (found["status"], found["task_error"]["message"]) == ("FAILED", "round")
    assert (await stand.client.delete(f"{TEXT}/{cancelled}")).json() == {}
    assert (await task(stand, cancelled))["status"] == "CANCELED"
    assert (await stand.client.delete(f"{TEXT}/{cancelled}")).status_code == 200
    message(await stand.client.delete(f"{TEXT}/nobody"), 404)


@pytest.mark.parametrize(
    ("fields", "why"),
    [
        ({"mode": "preview"}, "prompt"),
        ({"mode": "other", "prompt": "x"}, "mode"),
        ({**PREVIEW, "topology": "quad"}, "quads"),
        ({**PREVIEW, "target_polycount": 99}, "target_polycount"),
        ({**PREVIEW, "target_polycount": 300_001}, "target_polycount"),
        ({**PREVIEW, "texture_prompt": "rust"}, "texture_prompt"),
        ({**PREVIEW, "prompt": "x" * 601}, "prompt"),
    ],
)
async def test_what_is_refused_says_why(stand: Stand, fields: dict[str, Any], why: str) -> None:
    answer = await stand.client.post(TEXT, json=fields)
    assert why in message(answer, 422) + json.dumps(answer.json().get("hint", ""))


async def test_malformed_bodies(stand: Stand) -> None:
    message(await stand.client.post(TEXT, content=b"{"), 400)
    message(await stand.client.post(IMAGE, content=b"[]"), 422)


async def test_keys_own_tasks_and_links_need_none(stand: Stand) -> None:
    _, plain = stand.queue.keys.create_key("mine", max_pending=4)
    _, other = stand.queue.keys.create_key("theirs")
    message(await stand.client.post(TEXT, json=PREVIEW), 401)
    headers, theirs = ({"Authorization": f"Bearer {key}"} for key in (plain, other))
    answer = await stand.client.post(TEXT, json=PREVIEW, headers=headers)
    url = f"{TEXT}/{answer.json()['result']}"
    assert (await stand.client.get("/openapi/v1/balance", headers=headers)).json() == {"balance": 4}
    stand.complete()
    message(await stand.client.get(url, headers=theirs), 404)
    assert (await stand.client.get(TEXT, headers=theirs)).json() == []
    done = (await stand.client.get(url, headers=headers)).json()
    link = done["model_urls"]["glb"]
    assert plain not in link
    assert (await stand.client.get(link)).content[:4] == b"glTF"
    for wrong in (
        link.replace("model.glb", "model.ply"),
        link[:-1] + ("0" if link[-1] != "0" else "1"),
        link.replace("expires=", "expires=9"),
        f"{link.partition('?')[0]}?{sign('', answer.json()['result'], 'model.glb')}",
        link.partition("?")[0],
    ):
        message(await stand.client.get(wrong), 401)
    assert (await stand.client.get(link.partition("?")[0], headers=headers)).status_code == 200
    message(await stand.client.get(link.partition("?")[0], headers=theirs), 404)
    (mine,) = [key for key in stand.queue.keys.list_keys() if key.name == "mine"]
    stand.queue.keys.revoke(mine.id)
    message(await stand.client.get(link), 401)


async def test_results_end_with_their_time(stand: Stand) -> None:
    task_id = await create(stand)
    stand.complete()
    link = (await task(stand, task_id))["model_urls"]["glb"]
    stand.queue.forget_result(task_id)
    found = await task(stand, task_id)
    assert (found["status"], found["model_urls"], found["thumbnail_url"]) == ("SUCCEEDED", {}, "")
    message(await stand.client.get(link), 410)
    message(await stand.client.get(f"/openapi/files/{task_id}/model.exe"), 410)


def test_links_hold_for_a_day() -> None:
    query = dict(pair.split("=") for pair in sign("secret", "job", "model.glb", 1e9).split("&"))
    expires, signature = int(query["expires"]), query["signature"]
    assert 24 * 3600 <= expires - 1e9 <= 25 * 3600
    assert is_signed("secret", "job", "model.glb", expires, signature, 1e9 + 86_400)
    assert not is_signed("secret", "job", "model.glb", expires, signature, expires + 1)
    assert not is_signed("other", "job", "model.glb", expires, signature, 1e9)
    assert not is_signed("secret", "job2", "model.glb", expires, signature, 1e9)
    assert not is_signed("secret", "job", "model.glb", expires, "ü", 1e9)


@pytest.fixture
def triposr(monkeypatch: pytest.MonkeyPatch) -> ModelPlan:
    class Model:
        @classmethod
        def options_model(cls) -> type[TripoSROptions]:
            return TripoSROptions

    monkeypatch.setattr("deployments.http.checks.resolve_implementation", lambda _: Model)
    return ModelPlan("triposr", is_deployed=True, reason="", needs_picture=True)


def test_fields_become_options(triposr: ModelPlan) -> None:
    fields = TextTo3D(mode="preview", prompt="x", target_polycount=500, negative_prompt="blurry")
    made = text_submission(fields, triposr).request
    assert made.options == {"target_faces": 500, "texture": False, "negative_prompt": "blurry"}
    kept = fields.model_copy(update={"should_remesh": False})
    assert "target_faces" not in text_submission(kept, triposr).request.options
    picture = image_submission(ImageTo3D(image_url="data:;base64,aGk=", seed=3), triposr)
    assert (picture.request.options, picture.image) == ({"seed": 3, "texture": True}, b"hi")
    by_url = image_submission(ImageTo3D(image_url="https://x/y.png"), triposr)
    assert (by_url.request.image_url, by_url.image) == ("https://x/y.png", None)
    with pytest.raises(InvalidConfigError, match="base64"):
        image_submission(ImageTo3D(image_url="data:;base64,%"), triposr)
