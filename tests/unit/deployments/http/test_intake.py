"""What of a request makes a job, and what two requests must share to share a result."""

from __future__ import annotations

from typing import Any

import pytest

from deployments.http.body import Submission
from deployments.http.intake import Intake
from deployments.http.request_id import request_id_var
from deployments.http.schemas import BatchRequest, JobRequest
from deployments.plan import ModelPlan
from dream_cad.exceptions import FileFormatError, InvalidConfigError, ModelUnavailableError
from dream_cad.models.base import ModelCapabilities
from dream_cad.queue import GenerationJob, JobPriority
from tests.cluster.echo_model import EchoModel
from tests.unit.deployments.http.conftest import PLANS, png


@pytest.fixture(autouse=True)
def models_are_here(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("deployments.http.checks.resolve_implementation", lambda _: EchoModel)


def intake(*plans: ModelPlan, **options: Any) -> Intake:
    options.setdefault("has_text_stage", False)
    return Intake([*PLANS, *plans], "echo", 3, **options)


def make(
    fields: dict[str, Any], image: bytes | None = None, owner: str = "", **options: Any
) -> GenerationJob:
    if image is None:
        fields = {"prompt": "a cube", **fields}
    submission = Submission(JobRequest.model_validate(fields), image)
    return intake(**options).make_job(submission, owner).job


def test_a_seed_is_drawn_where_none_is_given() -> None:
    seeds = {make({}).config["seed"] for _ in range(5)}
    assert len(seeds) > 1
    assert all(0 <= seed < 2**31 for seed in seeds)
    assert make({"options": {"seed": 0}}).config["seed"] == 0


def test_a_drawn_seed_is_no_part_of_the_cache_key() -> None:
    assert make({}).cache_key == make({}).cache_key
    assert make({}).cache_key != make({"options": {"seed": 1}}).cache_key
    assert make({"use_cache": False}).cache_key is None


@pytest.mark.parametrize(
    "other",
    [
        {"prompt": "a sphere"},
        {"model": "echo2"},
        {"models": ["echo", "echo2"]},
        {"options": {"brightness": 0.5}},
        {"require": {"watertight": True}},
        {"max_tries": 2},
    ],
)
def test_what_changes_the_result_changes_the_cache_key(other: dict[str, Any]) -> None:
    assert make(other).cache_key != make({}).cache_key


def test_owners_and_text_pipelines_share_no_results() -> None:
    keys = {
        make({}).cache_key,
        make({}, owner="studio").cache_key,
        make({}, text_source="another/pipeline").cache_key,
        make({}, png()).cache_key,
        make({}, png((16, 16))).cache_key,
    }
    assert len(keys) == 5


@pytest.mark.parametrize("same", [{"priority": "urgent"}, {"tags": ["x"]}, {"format": "stl"}])
def test_what_does_not_change_the_result_keeps_the_cache_key(same: dict[str, Any]) -> None:
    assert make(same).cache_key == make({}).cache_key
    # ... but it is another request to an idempotency key.
    assert make(same).request_hash != make({}).request_hash


def test_the_request_is_named_in_the_job() -> None:
    token = request_id_var.set("req-1")
    try:
        assert make({}).policy["request_id"] == "req-1"
    finally:
        request_id_var.reset(token)


def test_a_damaged_picture_is_refused_before_it_is_queued() -> None:
    with pytest.raises(FileFormatError):
        make({}, b"GIF89a broken")
    job = make({}, png())
    assert (job.prompt, job.input_uri) == ("", f"{job.id}-input")


@pytest.mark.parametrize(("prompt", "image"), [(None, None), ("a cube", png())])
def test_either_a_prompt_or_a_picture(prompt: str | None, image: bytes | None) -> None:
    submission = Submission(JobRequest.model_construct(prompt=prompt), image)
    with pytest.raises(InvalidConfigError, match="either a prompt or an image"):
        intake().make_job(submission)


def plan(name: str, **takes: bool) -> ModelPlan:
    needs_picture = takes.pop("needs_picture", False)
    capabilities = ModelCapabilities(min_vram_gb=0.0, recommended_vram_gb=0.0, **takes)
    return ModelPlan(
        name, is_deployed=True, reason="", capabilities=capabilities, needs_picture=needs_picture
    )


def test_models_get_only_what_they_take() -> None:
    words = plan("words", supports_image_to_3d=False)
    pictures = plan("pictures", supports_text_to_3d=False)
    drawn = plan("drawn", needs_picture=True)
    here = intake(words, pictures, drawn)

    def ask(model: str, image: bytes | None = None) -> GenerationJob:
        prompt = "a cube" if image is None else None
        request = JobRequest.model_construct(prompt=prompt, model=model)
        return here.make_job(Submission(request, image)).job

    with pytest.raises(InvalidConfigError, match="takes prompts, not images"):
        ask("words", png())
    with pytest.raises(InvalidConfigError, match="takes images, not prompts"):
        ask("pictures")
    with pytest.raises(ModelUnavailableError, match="text-to-image"):
        ask("drawn")
    assert ask("drawn", png()).model_name == "drawn"
    with pytest.raises(ModelUnavailableError, match="not served here"):
        ask("trellis")
    with pytest.raises(InvalidConfigError) as caught:
        ask("nothing")
    assert "echo" in caught.value.details["allowed"]


def test_a_batch_shares_what_its_items_do_not_say() -> None:
    batch = BatchRequest.model_validate(
        {
            "priority": "low",
            "tags": ["shop"],
            "options": {"brightness": 0.5, "seed": 1},
            "items": [
                {"prompt": "a"},
                {"prompt": "b", "priority": "urgent", "tags": ["x"], "options": {"seed": 2}},
            ],
        }
    )
    first, second = (one.job for one in intake().make_jobs(batch, [None, None], "studio"))
    assert (first.priority, second.priority) == (JobPriority.LOW, JobPriority.URGENT)
    assert first.config == {**first.config, "brightness": 0.5, "seed": 1}
    assert second.config == {**second.config, "brightness": 0.5, "seed": 2}
    assert (first.tags, second.tags) == (["shop"], ["shop", "x"])
    assert {first.owner, second.owner} == {"studio"}


def test_all_wrong_items_are_named_at_once() -> None:
    prompts = [" " if number % 2 else "a cube" for number in range(60)]
    batch = BatchRequest.model_validate({"items": [{"prompt": text} for text in prompts]})
    with pytest.raises(InvalidConfigError) as caught:
        intake().make_jobs(batch, [None] * 60)
    fields = [error["field"] for error in caught.value.details["errors"]]
    assert fields == [f"items.{number}" for number in range(1, 40, 2)]


def test_a_rerun_repeats_the_receipt_and_nothing_else() -> None:
    old = make({"webhook": None, "tags": ["a"]}, png())
    old.policy = {**old.policy, "webhook": "https://hooks.example.com/x"}
    again = intake().again(old, "studio")
    assert (again.config, again.tags) == (old.config, old.tags)
    assert again.id != old.id
    assert again.input_uri == f"{again.id}-input"
    assert (again.policy["webhook"], again.policy["use_cache"]) == (None, False)
    assert (again.cache_key, again.idempotency_key, again.owner) == (None, None, "studio")
