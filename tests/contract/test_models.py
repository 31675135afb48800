from __future__ import annotations

import inspect
import json
from contextlib import closing
from pathlib import Path

import pytest

from dream_cad import ModelFactory
from dream_cad.exceptions import (
    InvalidConfigError,
)
from dream_cad.mesh.export import FORMATS
from dream_cad.models.availability import get_availability
from dream_cad.models.base import Model3D
from dream_cad.models.built_in import BUILT_IN_CAPABILITIES
from dream_cad.models.download import CheckpointDownloader
from dream_cad.models.options import validate_options
from dream_cad.models.registry import (
    ModelRegistry,
    check_capabilities,
    resolve_implementation,
)
from dream_cad.models.weights import PUBLISHED

NAMES = list(BUILT_IN_CAPABILITIES)  # not what other tests have registered
IMPLEMENTED = [name for name in NAMES if ModelRegistry().get_entry(name).is_implemented]

every_model = pytest.mark.parametrize("name", NAMES)
every_implemented_model = pytest.mark.parametrize("name", IMPLEMENTED)


@every_model
def test_capabilities_make_sense(name: str) -> None:
    capabilities = ModelRegistry().require_capabilities(name)
    check_capabilities(name, capabilities)
    assert set(capabilities.output_formats) <= set(FORMATS)
    assert capabilities.license_type != "unknown"
    assert capabilities.typical_generation_time != "unknown"


@every_model
def test_every_model_states_its_availability_with_a_reason(name: str) -> None:
    for vram_gb in (0.0, 8.0, 80.0):
        found = get_availability(name, vram_gb=vram_gb)
        assert found.reason
        assert (found.device is not None) is found.available


@every_implemented_model
def test_class_of_an_implemented_model(name: str) -> None:
    model_class = resolve_implementation(name)
    assert issubclass(model_class, Model3D)
    assert not inspect.isabstract(model_class)
    for method in (model_class.generate_from_text, model_class.generate_from_image):
        parameters = inspect.signature(method).parameters
        assert "progress" in parameters
        assert method.__doc__


@every_implemented_model
def test_options_are_described_and_strict(name: str) -> None:
    model_class = resolve_implementation(name)
    schema = model_class.options_model()
    assert schema is not None
    described = schema.model_json_schema()
    json.dumps(described)
    assert described["additionalProperties"] is False
    for field in described["properties"].values():
        assert field.get("description")
    with pytest.raises(InvalidConfigError, match="Options: "):
        validate_options(model_class, {"no_such_option": 1})
    assert validate_options(model_class, {}) == {}


@every_implemented_model
@pytest.mark.parametrize("value", [float("nan"), float("inf"), "text", [], {}, -(10**30)])
def test_numbers_out_of_range_are_refused(name: str, value: object) -> None:
    model_class = resolve_implementation(name)
    schema = model_class.options_model()
    assert schema is not None
    for option in ("resolution", "seed"):
        if option in schema.model_fields:
            with pytest.raises(InvalidConfigError, match=option):
                validate_options(model_class, {option: value})


@every_implemented_model
def test_published_checkpoint_is_pinned_or_fetched_only_on_demand(
    name: str, tmp_path: Path
) -> None:
    published = PUBLISHED[name]
    for revision in published.revisions().values():
        if revision is not None:
            assert len(revision) == 40
            continue
        with (  # before anything is asked of the hub
            closing(CheckpointDownloader("http://127.0.0.1:9")) as downloader,
            pytest.raises(InvalidConfigError, match="no commit of"),
        ):
            downloader.plan(name, tmp_path)
    assert published.files
    assert published.license == BUILT_IN_CAPABILITIES[name].license_type


@every_implemented_model
@pytest.mark.parametrize(
    ("option", "value"), [("precision", "fp99"), ("checkpoint", "/no/such/folder")]
)
def test_wrong_constructor_values_are_refused(name: str, option: str, value: str) -> None:
    with pytest.raises(InvalidConfigError, match=value.replace("/", ".")):
        ModelFactory.create_model(name, device="cpu", **{option: value}).load_model()


@every_implemented_model
def test_a_new_model_holds_no_weights(name: str) -> None:
    model = ModelFactory.create_model(name, checkpoint="nano", device="cpu")
    assert (model.name, model.is_loaded) == (name, False)
    assert model.capabilities == BUILT_IN_CAPABILITIES[name]
    model.unload_model()
    assert not model.is_loaded
