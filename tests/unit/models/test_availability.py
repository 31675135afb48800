from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from dream_cad.exceptions import ModelNotFoundError
from dream_cad.models import weights as weights_module
from dream_cad.models.availability import ModelAvailability, get_availability
from dream_cad.models.base import GenerationResult, Model3D, ModelCapabilities
from dream_cad.models.factory import register_model
from dream_cad.models.registry import ModelRegistry
from tests.conftest import SetSettings

pytestmark = pytest.mark.usefixtures("clean_registry")


class Custom(Model3D):
    def generate_from_text(self, prompt: str, **kwargs: Any) -> GenerationResult:
        raise NotImplementedError

    def generate_from_image(self, image: Any, **kwargs: Any) -> GenerationResult:
        raise NotImplementedError


@pytest.fixture(params=[True, False], ids=["nano shipped", "no nano"])
def has_nano(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> bool:
    folder = Path("/nano") if request.param else None
    monkeypatch.setattr(weights_module, "nano_folder", lambda name: folder)
    return bool(request.param)


@pytest.fixture
def pulled(tmp_path: Path, set_settings: SetSettings) -> None:
    set_settings(model_path=tmp_path)
    for file in weights_module.PUBLISHED["triposr"].files:
        path = tmp_path / "triposr" / file.name
        path.parent.mkdir(exist_ok=True)
        path.touch()


@pytest.mark.usefixtures("pulled")
def test_auto_takes_published_on_a_gpu_that_fits(has_nano: bool) -> None:
    found = get_availability("triposr", vram_gb=8.0)
    assert found == ModelAvailability(True, "published", "published weights", "cuda:0")


@pytest.mark.usefixtures("pulled")
@pytest.mark.parametrize("vram_gb", [0.0, 4.0])
def test_auto_takes_nano_where_no_gpu_fits(has_nano: bool, vram_gb: float) -> None:
    found = get_availability("triposr", vram_gb=vram_gb)
    assert found.available is has_nano
    assert found.checkpoint == ("nano" if has_nano else None)
    assert "6 GB" in found.reason
    assert found.device == (("cuda:0" if vram_gb else "cpu") if has_nano else None)


def test_a_large_gpu_without_the_files_is_told_to_pull(has_nano: bool) -> None:
    found = get_availability("triposr", vram_gb=24.0)
    assert (found.available, found.checkpoint) == (has_nano, "nano" if has_nano else None)
    assert "dream-cad pull" in found.reason


def test_published_never_falls_back(
    has_nano: bool, set_settings: SetSettings, tmp_path: Path
) -> None:
    set_settings(checkpoint="published", model_path=tmp_path)
    assert not get_availability("triposr", vram_gb=80.0).available


@pytest.mark.usefixtures("pulled", "has_nano")
def test_published_on_a_cpu_is_a_choice(set_settings: SetSettings) -> None:
    set_settings(checkpoint="published")
    found = get_availability("triposr", vram_gb=0.0)
    assert (found.checkpoint, found.device) == ("published", "cpu")


@pytest.mark.usefixtures("pulled")
def test_nano_never_falls_back(has_nano: bool, set_settings: SetSettings) -> None:
    set_settings(checkpoint="nano")
    assert get_availability("triposr", vram_gb=80.0).available is has_nano


def test_models_without_code_are_not_in_this_version() -> None:
    ModelRegistry().register("later", ModelCapabilities(16.0, 24.0))
    expected = ModelAvailability(False, None, "not in this version", None)
    assert get_availability("later", vram_gb=80.0) == expected


def test_models_of_users_are_judged_by_their_capabilities() -> None:
    register_model("custom", ModelCapabilities(4.0, 6.0))(Custom)
    assert not get_availability("custom", vram_gb=2.0).available
    found = get_availability("custom", vram_gb=4.0)
    assert (found.available, found.checkpoint, found.device) == (True, None, "cuda:0")


def test_gpu_id_is_part_of_the_device(set_settings: SetSettings) -> None:
    set_settings(gpu_id=2)
    register_model("custom")(Custom)
    assert get_availability("custom", vram_gb=24.0).device == "cuda:2"


def test_unknown_model() -> None:
    with pytest.raises(ModelNotFoundError):
        get_availability("nothing")
