from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from dream_cad import ModelFactory
from dream_cad.exceptions import (
    InsufficientVRAMError,
    InvalidConfigError,
    ModelNotFoundError,
    ModelUnavailableError,
)
from dream_cad.models import factory as factory_module
from dream_cad.models.base import GenerationResult, Model3D, ModelCapabilities
from dream_cad.models.factory import register_model
from dream_cad.models.registry import ModelRegistry
from tests.conftest import SetSettings

pytestmark = pytest.mark.usefixtures("clean_registry")


class Solid(Model3D):
    def __init__(self, **kwargs: Any) -> None:
        super().__init__("solid", **kwargs)

    def generate_from_text(self, prompt: str, **kwargs: Any) -> GenerationResult:
        raise NotImplementedError

    def generate_from_image(self, image: Any, **kwargs: Any) -> GenerationResult:
        raise NotImplementedError


class Strict(Solid):
    def __init__(self, *, size: int = 1) -> None:
        super().__init__(size=size)


def use_gpu(monkeypatch: pytest.MonkeyPatch, memory_gb: float) -> None:
    monkeypatch.setattr(factory_module, "get_total_vram", lambda: memory_gb)


def use_nano(monkeypatch: pytest.MonkeyPatch, *names: str) -> None:
    monkeypatch.setattr(
        factory_module, "nano_folder", lambda name: Path("/nano") if name in names else None
    )


def test_lists_the_five_models_and_what_a_user_registered() -> None:
    built_in = ["mvdream", "triposr", "stable-fast-3d", "trellis", "hunyuan3d-mini"]
    assert ModelFactory.list_available_models() == built_in
    register_model("solid")(Solid)
    assert ModelFactory.list_available_models() == [*built_in, "solid"]


def test_creates_a_registered_model_with_its_options() -> None:
    register_model("solid")(Solid)
    model = ModelFactory.create_model("solid", colour="red")
    assert isinstance(model, Solid)
    assert (model.name, model.is_loaded, model.config) == ("solid", False, {"colour": "red"})
    assert model.capabilities.min_vram_gb == 0.0


def test_default_model_is_taken_when_none_is_named(set_settings: SetSettings) -> None:
    register_model("solid")(Solid)
    set_settings(default_model="solid")
    assert isinstance(ModelFactory.create_model(), Solid)


def test_models_without_code_need_a_gpu_first(
    monkeypatch: pytest.MonkeyPatch, without_code: Callable[[str], None]
) -> None:
    name = "trellis"
    without_code(name)
    use_gpu(monkeypatch, 0.0)
    with pytest.raises(InsufficientVRAMError, match="not in this version") as caught:
        ModelFactory.create_model(name)
    needed = ModelRegistry().require_capabilities(name).min_vram_gb
    assert caught.value.details == {
        "model": name,
        "min_vram_gb": needed,
        "available_vram_gb": 0.0,
    }


def test_models_without_code_on_a_large_gpu(
    monkeypatch: pytest.MonkeyPatch, without_code: Callable[[str], None]
) -> None:
    without_code("trellis")
    use_gpu(monkeypatch, 80.0)
    with pytest.raises(ModelUnavailableError, match="not in this version"):
        ModelFactory.create_model("trellis")


@pytest.mark.parametrize(("memory_gb", "fits"), [(0.0, False), (3.9, False), (4.0, True)])
def test_gpu_memory_decides_for_a_users_model(
    monkeypatch: pytest.MonkeyPatch, memory_gb: float, fits: bool
) -> None:
    register_model("solid", ModelCapabilities(4.0, 6.0))(Solid)
    use_gpu(monkeypatch, memory_gb)
    if fits:
        assert ModelFactory.create_model("solid").name == "solid"
    else:
        with pytest.raises(InsufficientVRAMError, match="needs 4 GB"):
            ModelFactory.create_model("solid")


@pytest.mark.parametrize("options", [{"device": "cpu"}, {"checkpoint": "published"}])
def test_a_choice_of_device_or_checkpoint_overrides_the_memory_rule(
    monkeypatch: pytest.MonkeyPatch, options: dict[str, Any]
) -> None:
    register_model("solid", ModelCapabilities(4.0, 6.0))(Solid)
    use_gpu(monkeypatch, 0.0)
    assert ModelFactory.create_model("solid", **options).config == options


def test_a_nano_checkpoint_needs_no_gpu_and_is_suggested(monkeypatch: pytest.MonkeyPatch) -> None:
    register_model("solid", ModelCapabilities(4.0, 6.0))(Solid)
    use_gpu(monkeypatch, 0.0)
    use_nano(monkeypatch, "solid")
    assert ModelFactory.create_model("solid").name == "solid"
    with pytest.raises(InsufficientVRAMError, match=r"These run here: solid\."):
        ModelFactory.create_model("mvdream")


def test_unknown_model_is_refused_with_the_nearest_name() -> None:
    with pytest.raises(ModelNotFoundError, match="Did you mean 'trellis'"):
        ModelFactory.create_model("treliss")


def test_unknown_constructor_options_are_refused_with_the_legal_ones() -> None:
    register_model("strict")(Strict)
    with pytest.raises(InvalidConfigError, match="Options: size") as caught:
        ModelFactory.create_model("strict", colour="red")
    assert caught.value.details["allowed"] == ["size"]
    assert ModelFactory.create_model("strict", size=3).config == {"size": 3}


def test_the_same_class_may_be_registered_again() -> None:
    first = register_model("solid")(Solid)
    assert first is Solid
    again = type("Solid", (Solid,), {"__module__": Solid.__module__, "__qualname__": "Solid"})
    register_model("solid")(again)
    assert isinstance(ModelFactory.create_model("solid"), again)


@pytest.mark.parametrize("name", ["solid", "triposr", "mvdream"])
def test_a_name_taken_by_another_class_is_refused(name: str) -> None:
    register_model("solid")(Solid)
    with pytest.raises(InvalidConfigError, match="is taken"):
        register_model(name)(Strict)


@pytest.mark.parametrize("thing", [int, Solid(), "Solid", None])
def test_only_subclasses_of_model3d_are_registered(thing: Any) -> None:
    with pytest.raises(InvalidConfigError, match="not a subclass of Model3D"):
        register_model("thing")(thing)


def test_capabilities_registered_before_the_class_are_kept() -> None:
    capabilities = ModelCapabilities(0.0, 0.0, license_type="MIT")
    ModelRegistry().register("solid", capabilities)
    register_model("solid")(Solid)
    assert ModelFactory.create_model("solid").capabilities == capabilities


def test_leaving_the_context_unloads() -> None:
    register_model("solid")(Solid)
    with ModelFactory.create_model("solid") as model:
        model.load_model()
        assert model.is_loaded
    assert not model.is_loaded
