from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from dream_cad.exceptions import ModelNotFoundError
from dream_cad.models import availability as availability_module
from dream_cad.models.availability import ModelAvailability, get_availability
from dream_cad.models.base import GenerationResult, Model3D, ModelCapabilities
from dream_cad.models.factory import register_model
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
    monkeypatch.setattr(availability_module, "nano_folder", lambda name: folder)
    return bool(request.param)


def test_auto_takes_published_on_a_gpu_that_fits(has_nano: bool) -> None:
    found = get_availability("triposr", vram_gb=8.0)
    assert (found.available, found.checkpoint, found.device) == (True, "published", "cuda:0")


@pytest.mark.parametrize("vram_gb", [0.0, 4.0])
def test_auto_takes_nano_where_no_gpu_fits(has_nano: bool, vram_gb: float) -> None:
    found = get_availability("triposr", vram_gb=vram_gb)
    assert "need 6 GB of GPU memory" in found.reason
    if has_nano:
        assert (found.available, found.checkpoint) == (True, "nano")
        assert found.device == ("cuda:0" if vram_gb else "cpu")
    else:
        assert found == ModelAvailability(False, None, found.reason, None)


def test_explicit_choices_never_fall_back(has_nano: bool, set_settings: SetSettings) -> None:
    set_settings(checkpoint="published")
    found = get_availability("triposr", vram_gb=0.0)
    assert (found.checkpoint, found.device) == ("published", "cpu")
    set_settings(checkpoint="nano")
    assert get_availability("triposr", vram_gb=80.0).available is has_nano


@pytest.mark.parametrize("name", ["mvdream", "stable-fast-3d", "trellis", "hunyuan3d-mini"])
def test_later_models_are_not_in_this_version(name: str) -> None:
    expected = ModelAvailability(False, None, "not in this version", None)
    assert get_availability(name, vram_gb=80.0) == expected


def test_models_of_users_are_judged_by_their_capabilities() -> None:
    register_model("custom", ModelCapabilities(4.0, 6.0))(Custom)
    assert not get_availability("custom", vram_gb=2.0).available
    found = get_availability("custom", vram_gb=4.0)
    assert (found.available, found.checkpoint, found.device) == (True, None, "cuda:0")


def test_gpu_id_is_part_of_the_device(set_settings: SetSettings) -> None:
    set_settings(gpu_id=2)
    assert get_availability("triposr", vram_gb=24.0).device == "cuda:2"


def test_unknown_model() -> None:
    with pytest.raises(ModelNotFoundError):
        get_availability("nothing")
