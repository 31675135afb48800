from __future__ import annotations

from typing import Any

import pytest

from dream_cad.exceptions import InvalidConfigError
from dream_cad.models.triposr.config import TripoSRConfig
from dream_cad.models.triposr.options import TripoSROptions


def test_defaults_come_from_the_checkpoint() -> None:
    config = TripoSRConfig.nano()
    used = TripoSROptions.parse({}).resolve(config)
    assert used.resolution == config.default_resolution
    assert used.threshold == config.threshold


def test_given_values_win() -> None:
    used = TripoSROptions.parse({"resolution": 64, "threshold": 10}).resolve(TripoSRConfig.nano())
    assert (used.resolution, used.threshold) == (64, 10.0)


@pytest.mark.parametrize(
    "options",
    [
        {"resolution": 31},
        {"resolution": 513},
        {"resolution": 64.5},
        {"threshold": 0},
        {"threshold": float("nan")},
        {"threshold": float("inf")},
        {"foreground_ratio": 0.4},
        {"foreground_ratio": 1.01},
        {"chunk_size": 0},
        {"texture_size": 8192},
        {"seed": -1},
        {"seed": 2**32},
        {"target_faces": 3},
        {"min_component": -0.1},
        {"num_inference_steps": 0},
        {"guidance_scale": float("nan")},
        {"matting": "magic"},
        {"resolutoin": 64},
    ],
)
def test_wrong_options_are_named(options: dict[str, Any]) -> None:
    (name,) = options
    with pytest.raises(InvalidConfigError, match=name) as caught:
        TripoSROptions.parse(options)
    assert "resolution" in caught.value.details["allowed"]


@pytest.mark.parametrize(
    "options", [{"resolution": 32}, {"resolution": 512}, {"foreground_ratio": 0.5}, {"seed": 0}]
)
def test_limits_are_inclusive(options: dict[str, Any]) -> None:
    (name,) = options
    assert getattr(TripoSROptions.parse(options), name) == options[name]


@pytest.mark.parametrize(
    ("name", "value"),
    [("num_inference_steps", 5), ("guidance_scale", 1.0), ("negative_prompt", "blur")],
)
def test_text_options_are_refused_for_images(name: str, value: object) -> None:
    assert name in TripoSROptions.text_options
    with pytest.raises(InvalidConfigError, match=name):
        TripoSROptions.parse({name: value}).for_image()


def test_seed_is_accepted_for_images() -> None:
    assert TripoSROptions.parse({"seed": 7}).for_image().seed == 7


def test_every_option_is_described() -> None:
    properties = TripoSROptions.model_json_schema()["properties"]
    assert all(entry.get("description") for entry in properties.values())
