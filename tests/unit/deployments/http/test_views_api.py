"""Several pictures of one object, from the request to the files that a model reads."""

from __future__ import annotations

import base64
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pytest

from deployments.http.intake import Intake
from deployments.messages import StageRequest, view_file
from deployments.model import ModelReplica
from dream_cad.models.base import GenerationResult
from tests.cluster.echo_model import EchoModel
from tests.unit.deployments.http.conftest import PLANS, Stand, png

FRONT, BACK = png((16, 16)), png((24, 24))
SEEN: list[Any] = []


class ByView(EchoModel):
    """Takes pictures by view and notes them."""

    @classmethod
    def view_names(cls) -> tuple[str, ...] | None:
        return ("front", "back")

    def generate_from_views(
        self, views: Mapping[str, Any] | Sequence[Any], **options: Any
    ) -> GenerationResult:
        SEEN.append(views)
        return self.generate_from_text("views", **options)


class InOrder(ByView):
    """Takes any pictures."""

    @classmethod
    def view_names(cls) -> tuple[str, ...] | None:
        return ()


@pytest.fixture
def by_view(stand: Stand, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("deployments.http.checks.resolve_implementation", lambda _: ByView)


@pytest.fixture
def in_order(stand: Stand, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("deployments.http.checks.resolve_implementation", lambda _: InOrder)


def coded(**views: bytes) -> dict[str, str]:
    return {name: base64.b64encode(picture).decode() for name, picture in views.items()}


@pytest.mark.usefixtures("by_view")
async def test_views_are_stored_by_name_and_belong_to_the_job(stand: Stand) -> None:
    answer = await stand.client.post("/v1/jobs", json={"images": coded(front=FRONT, back=BACK)})
    assert answer.status_code == 202, answer.text
    job = stand.queue.get_job(answer.json()["id"])
    assert job is not None
    assert job.policy["views"] == ["front", "back"]
    assert job.input_uri is not None
    assert stand.artifacts.read(job.input_uri, view_file("front")) == FRONT
    assert stand.artifacts.read(job.input_uri, view_file("back")) == BACK
    again = await stand.client.post(f"/v1/jobs/{job.id}/rerun")
    repeated = stand.queue.get_job(again.json()["id"])
    assert repeated is not None
    assert repeated.input_uri not in (None, job.input_uri)
    assert stand.artifacts.read(repeated.input_uri or "", view_file("back")) == BACK


@pytest.mark.usefixtures("in_order")
async def test_order_and_names_tell_results_apart(stand: Stand) -> None:
    async def key(images: Any) -> str | None:
        answer = await stand.client.post("/v1/jobs", json={"images": images})
        assert answer.status_code == 202, answer.text
        job = stand.queue.get_job(answer.json()["id"])
        assert job is not None
        return job.cache_key

    one, other = coded(front=FRONT, back=BACK).values()
    assert await key([one, other]) == await key([one, other])
    keys = [await key(x) for x in ([one, other], [other, one], [one], {"a": one, "b": other})]
    assert len(set(keys)) == 4


@pytest.mark.usefixtures("by_view")
@pytest.mark.parametrize(
    ("body", "word"),
    [
        ({"images": coded(front=FRONT, top=BACK)}, "'top'"),
        ({"images": list(coded(front=FRONT).values())}, "by view"),
        ({"images": coded(front=b"no picture")}, "picture"),
        ({"images": coded(front=FRONT), "prompt": "a cube"}, "not both"),
        ({"images": coded(front=FRONT), "image": coded(x=BACK)["x"]}, "not both"),
        ({"images": coded(front=FRONT), "image_url": "https://x/y.png"}, "image_url"),
    ],
)
async def test_views_that_are_refused(stand: Stand, body: dict[str, Any], word: str) -> None:
    answer = await stand.client.post("/v1/jobs", json=body)
    assert 400 <= answer.status_code < 500
    assert word in answer.json()["detail"] + answer.json().get("hint", "")
    assert stand.queue.get_next_job() is None


async def test_a_model_of_one_picture_says_so(stand: Stand) -> None:
    answer = await stand.client.post("/v1/jobs", json={"images": coded(front=FRONT)})
    assert answer.status_code == 422
    assert "one picture, not several" in answer.json()["detail"]


@pytest.mark.usefixtures("by_view")
async def test_models_say_which_views_they_take(stand: Stand) -> None:
    found = (await stand.client.get("/v1/models")).json()["models"]
    assert {model["name"]: model["views"] for model in found} == {
        "echo": ["front", "back"],
        "echo2": ["front", "back"],
        "trellis": None,
    }


def test_the_default_takes_one_picture() -> None:
    assert Intake(PLANS, "echo", 3, has_text_stage=False).default_model == "echo"
    assert EchoModel.view_names() is None


def test_the_model_gets_its_views_by_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("deployments.model.ModelFactory.create_model", lambda _: ByView())
    monkeypatch.setattr("deployments.model.resolve_implementation", lambda _: ByView)
    replica = ModelReplica("echo", {}, [], str(tmp_path), 0.0)
    files = {view_file("front"): FRONT, view_file("back"): BACK}
    replica._artifacts.publish("job-input", files)
    request = StageRequest("job", input_key="job-input", views=("front", "back"))
    SEEN.clear()
    assert len(replica._generate(request, lambda fraction, stage: None).faces) == 12
    assert {name: picture.size for name, picture in SEEN[0].items()} == {
        "front": (16, 16),
        "back": (24, 24),
    }
