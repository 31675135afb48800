from __future__ import annotations

import logging
import math
import sys
from collections.abc import Callable
from importlib.metadata import EntryPoint
from pathlib import Path

import pytest

from dream_cad.exceptions import InvalidConfigError, ModelNotFoundError, ModelUnavailableError
from dream_cad.models import registry as registry_module
from dream_cad.models.base import ModelCapabilities
from dream_cad.models.registry import ModelRegistry, resolve_implementation

BUILT_IN = ["mvdream", "triposr", "stable-fast-3d", "trellis", "hunyuan3d-mini"]
SMALL = ModelCapabilities(min_vram_gb=2.0, recommended_vram_gb=4.0)
PLUGIN = """
from dream_cad.models.base import Model3D, ModelCapabilities
from dream_cad.models.factory import register_model

class Plain(Model3D):
    def __init__(self, **kwargs): super().__init__("plain", **kwargs)
    def generate_from_text(self, prompt, **kwargs): raise NotImplementedError
    def generate_from_image(self, image, **kwargs): raise NotImplementedError

@register_model("decorated", ModelCapabilities(min_vram_gb=3.0, recommended_vram_gb=5.0))
class Decorated(Plain):
    pass

number = 5
"""

pytestmark = pytest.mark.usefixtures("clean_registry")


def use_entry_points(
    monkeypatch: pytest.MonkeyPatch, folder: Path, source: str, **points: str
) -> None:
    (folder / "plugin_under_test.py").write_text(source)
    monkeypatch.syspath_prepend(str(folder))
    monkeypatch.delitem(sys.modules, "plugin_under_test", raising=False)
    found = [EntryPoint(name, value, "dream_cad.models") for name, value in points.items()]
    monkeypatch.setattr(registry_module, "entry_points", lambda group: found)


def test_lists_the_five_models_in_the_documented_order() -> None:
    assert ModelRegistry().list_models() == BUILT_IN


def test_capabilities_of_the_built_in_models() -> None:
    registry = ModelRegistry()
    memory = {
        name: (row.min_vram_gb, row.recommended_vram_gb)
        for name in BUILT_IN
        if (row := registry.get_capabilities(name)) is not None
    }
    assert memory == {
        "mvdream": (16, 20),
        "triposr": (6, 8),
        "stable-fast-3d": (6, 8),
        "trellis": (16, 24),
        "hunyuan3d-mini": (12, 16),
    }


@pytest.mark.parametrize(
    ("vram_gb", "expected"),
    [
        (0.0, []),
        (5.99, []),
        (8.0, ["triposr", "stable-fast-3d"]),
        (12.0, ["triposr", "stable-fast-3d", "hunyuan3d-mini"]),
        (math.inf, BUILT_IN),
    ],
)
def test_models_for_vram(vram_gb: float, expected: list[str]) -> None:
    assert ModelRegistry().get_models_for_vram(vram_gb) == expected


@pytest.mark.parametrize("vram_gb", [-1.0, math.nan])
def test_models_for_impossible_vram_are_refused(vram_gb: float) -> None:
    with pytest.raises(InvalidConfigError, match="at least 0"):
        ModelRegistry().get_models_for_vram(vram_gb)


def test_registered_capabilities_are_seen_by_every_instance() -> None:
    ModelRegistry().register("mine", SMALL)
    assert ModelRegistry().get_capabilities("mine") == SMALL
    assert ModelRegistry().list_models() == [*BUILT_IN, "mine"]
    assert ModelRegistry().get_models_for_vram(2.0) == ["mine"]


def test_registering_again_replaces_the_capabilities() -> None:
    registry = ModelRegistry()
    registry.register("mine", SMALL)
    larger = ModelCapabilities(min_vram_gb=40.0, recommended_vram_gb=80.0)
    registry.register("mine", larger)
    assert registry.get_capabilities("mine") == larger


def test_built_in_models_can_neither_be_replaced_nor_taken_out() -> None:
    registry = ModelRegistry()
    with pytest.raises(InvalidConfigError, match="built in"):
        registry.register("trellis", SMALL)
    with pytest.raises(InvalidConfigError, match="built in"):
        registry.unregister("trellis")


def test_unregister_takes_a_users_model_out() -> None:
    registry = ModelRegistry()
    registry.register("mine", SMALL)
    registry.unregister("mine")
    assert registry.list_models() == BUILT_IN
    with pytest.raises(ModelNotFoundError):
        registry.unregister("mine")


@pytest.mark.parametrize("name", ["", "a b", "../up", "-x", "x" * 65, "a/b", None, 7])
def test_malformed_names_are_refused(name: str) -> None:
    with pytest.raises(InvalidConfigError, match="not valid"):
        ModelRegistry().register(name, SMALL)


@pytest.mark.parametrize(
    "capabilities",
    [
        ModelCapabilities(min_vram_gb=-1.0, recommended_vram_gb=4.0),
        ModelCapabilities(min_vram_gb=8.0, recommended_vram_gb=4.0),
        ModelCapabilities(min_vram_gb=math.nan, recommended_vram_gb=4.0),
        ModelCapabilities(min_vram_gb=1.0, recommended_vram_gb=math.inf),
        ModelCapabilities(1.0, 2.0, supports_text_to_3d=False, supports_image_to_3d=False),
        ModelCapabilities(1.0, 2.0, output_formats=[]),
        ModelCapabilities(1.0, 2.0, max_resolution=0),
    ],
)
def test_impossible_capabilities_are_refused(capabilities: ModelCapabilities) -> None:
    with pytest.raises(InvalidConfigError, match="'mine'"):
        ModelRegistry().register("mine", capabilities)


def test_unknown_model_names_the_others_and_the_nearest() -> None:
    assert ModelRegistry().get_capabilities("tripsor") is None
    with pytest.raises(ModelNotFoundError) as caught:
        ModelRegistry().require_capabilities("tripsor")
    assert "Did you mean 'triposr'?" in str(caught.value)
    assert caught.value.details["allowed"] == BUILT_IN


@pytest.mark.parametrize("name", [None, [], 3])
def test_a_name_that_is_no_text_is_not_found(name: str) -> None:
    with pytest.raises(ModelNotFoundError):
        ModelRegistry().get_entry(name)


def test_entry_points_are_listed_without_being_imported(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    use_entry_points(monkeypatch, tmp_path, "1 / 0", broken="plugin_under_test:Plain")
    assert ModelRegistry().list_models() == [*BUILT_IN, "broken"]


def test_entry_point_of_a_class_and_of_a_decorated_module(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    points = {"plain": "plugin_under_test:Plain", "decorated": "plugin_under_test"}
    use_entry_points(monkeypatch, tmp_path, PLUGIN, **points)
    registry = ModelRegistry()
    assert registry.require_capabilities("decorated").min_vram_gb == 3.0
    assert registry.require_capabilities("plain").min_vram_gb == 0.0
    assert resolve_implementation("plain").__name__ == "Plain"
    assert resolve_implementation("decorated").__name__ == "Decorated"
    assert registry.list_models() == [*BUILT_IN, "plain", "decorated"]


@pytest.mark.parametrize(
    ("source", "value", "message"),
    [
        ("1 / 0", "plugin_under_test:Plain", "ZeroDivisionError"),
        (PLUGIN, "plugin_under_test:Missing", "AttributeError"),
        (PLUGIN, "no_such_module:Model", "ModuleNotFoundError"),
        (PLUGIN, "plugin_under_test:number", "is int, and importing it registered no class"),
    ],
)
def test_a_failing_entry_point_fails_alone(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, source: str, value: str, message: str
) -> None:
    use_entry_points(monkeypatch, tmp_path, source, broken=value)
    registry = ModelRegistry()
    assert registry.get_models_for_vram(8.0) == ["triposr", "stable-fast-3d"]
    assert registry.get_capabilities("broken") is None
    with pytest.raises(ModelUnavailableError, match=message):
        resolve_implementation("broken")


def test_entry_points_with_a_taken_name_are_left_out(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    use_entry_points(monkeypatch, tmp_path, PLUGIN, triposr="plugin_under_test:Plain")
    with caplog.at_level(logging.WARNING):
        assert ModelRegistry().list_models() == BUILT_IN
    assert "triposr = plugin_under_test:Plain is left out" in caplog.text


def test_models_without_code_say_that_they_are_not_in_this_version(
    without_code: Callable[[str], None],
) -> None:
    without_code("trellis")
    with pytest.raises(ModelUnavailableError, match="not in this version"):
        resolve_implementation("trellis")
    ModelRegistry().register("mine", SMALL)
    with pytest.raises(ModelUnavailableError, match="has no implementation"):
        resolve_implementation("mine")
