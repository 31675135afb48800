from __future__ import annotations

from pathlib import Path

import pytest
from pydantic import BaseModel, ConfigDict

from deployments import plan as plan_module
from deployments.args import AppArgs, ModelArgs, TextToImageArgs
from deployments.options import split_options
from deployments.plan import plan_models, plan_text
from dream_cad.exceptions import ModelNotFoundError
from dream_cad.models import availability, registry
from dream_cad.models.base import Model3D, ModelCapabilities
from dream_cad.models.factory import register_model
from dream_cad.placement import gpu_share, seats, uniform


class Options(BaseModel):
    model_config = ConfigDict(extra="forbid")

    seed: int | None = None
    target_faces: int | None = None


@pytest.fixture(autouse=True)
def own_registry(clean_registry: None) -> None:
    """Each test registers what it needs."""


def register(name: str, min_vram_gb: float, *, through_image: bool = False) -> None:
    class Custom(Model3D):
        text_through_image = through_image

        @classmethod
        def options_model(cls) -> type[BaseModel]:
            return Options

        def generate_from_text(self, prompt: str, **kwargs: object) -> None:  # type: ignore[override]
            raise NotImplementedError

        generate_from_image = generate_from_text  # type: ignore[assignment]

    register_model(name, ModelCapabilities(min_vram_gb, min_vram_gb))(Custom)


@pytest.mark.parametrize(
    ("needs_gb", "gpu_gb", "share"),
    [(6, 24, 0.25), (6, 25.4, 0.24), (8, 8, 1.0), (1, 80, 0.02), (16, 80, 0.2), (30, 24, 2.0)],
)
def test_shares_are_rounded_up_to_hundredths(needs_gb: float, gpu_gb: float, share: float) -> None:
    assert gpu_share(needs_gb, gpu_gb) == pytest.approx(share)


def test_a_model_without_gpu_needs_runs_on_the_cpu() -> None:
    register("cpu-model", 0.0)
    plan = plan_models(AppArgs(models=[ModelArgs(name="cpu-model")]), uniform(0.0))[0]
    assert plan.is_deployed
    assert plan.num_gpus == 0
    assert 0 < plan.num_cpus < 0.5


def test_gpu_shares_follow_from_memory_unless_given() -> None:
    register("small", 6.0)
    register("given", 6.0)
    models = [ModelArgs(name="small"), ModelArgs(name="given", num_gpus=0.5, num_cpus=2)]
    small, given = plan_models(AppArgs(models=models), uniform(24.0))[:2]
    assert (small.num_gpus, small.num_cpus) == (0.25, 1.0)
    assert (given.num_gpus, given.num_cpus) == (0.5, 2)


def test_a_model_too_large_is_listed_with_the_reason() -> None:
    register("large", 40.0)
    plan = plan_models(AppArgs(models=[ModelArgs(name="large")]), uniform(24.0))[0]
    assert not plan.is_deployed
    assert "40 GB" in plan.reason


def test_every_registered_model_is_listed_once() -> None:
    register("mine", 0.0)
    plans = plan_models(AppArgs(models=[ModelArgs(name="mine")]), uniform(0.0))
    names = [plan.name for plan in plans]
    assert names[0] == "mine"
    assert sorted(names) == sorted(registry.ModelRegistry().list_models())
    assert [plan.name for plan in plans if plan.is_deployed] == ["mine"]


def test_an_unknown_model_stops_the_start() -> None:
    with pytest.raises(ModelNotFoundError):
        plan_models(AppArgs(models=[ModelArgs(name="nobody")]), uniform(0.0))


def test_nano_is_pinned_where_there_is_no_gpu(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    for module in (plan_module, availability, seats):
        monkeypatch.setattr(module, "nano_folder", lambda name: tmp_path, raising=False)
    models = [ModelArgs(name="triposr", checkpoint="nano", options={"precision": "fp32"})]
    plans = plan_models(AppArgs(models=models), uniform(0.0))
    assert plans[0].options == {"precision": "fp32", "checkpoint": "nano"}
    assert plans[0].needs_picture
    text = plan_text(TextToImageArgs(), plans, uniform(0.0))
    assert text is not None
    assert (text.source, text.num_gpus) == (str(tmp_path), 0.0)


def test_the_text_stage_at_full_size_takes_its_share() -> None:
    register("reader", 6.0, through_image=True)
    plans = plan_models(AppArgs(models=[ModelArgs(name="reader")]), uniform(80.0))
    text = plan_text(TextToImageArgs(source="some/pipeline"), plans, uniform(80.0))
    assert text is not None
    assert (text.source, text.num_gpus) == ("some/pipeline", 0.1)


def test_no_reader_no_text_stage() -> None:
    register("writer", 0.0)
    plans = plan_models(AppArgs(models=[ModelArgs(name="writer")]), uniform(0.0))
    assert plan_text(TextToImageArgs(), plans, uniform(0.0)) is None


def test_options_go_to_the_stage_that_reads_them() -> None:
    register("mine", 0.0, through_image=True)
    (plan, *_) = plan_models(AppArgs(models=[ModelArgs(name="mine")]), uniform(0.0))
    own = {"min_component", "profile", "profile_size", "profile_name"}
    assert plan.finish_options == own  # target_faces is the model's own
    options = {"seed": 3, "guidance_scale": 2.0, "target_faces": 100, "min_component": 0.1}
    split = split_options(options, plan.finish_options, plan.text_options)
    assert split.text == {"seed": 3, "guidance_scale": 2.0}
    assert split.model == {"seed": 3, "target_faces": 100}
    assert split.finish == {"min_component": 0.1}


def test_a_model_that_reads_text_itself_gets_the_options_of_text() -> None:
    register("reader", 0.0)
    (plan, *_) = plan_models(AppArgs(models=[ModelArgs(name="reader")]), uniform(0.0))
    split = split_options({"guidance_scale": 2.0}, plan.finish_options, plan.text_options)
    assert split.model == {"guidance_scale": 2.0}
    assert split.text == {}
