from __future__ import annotations

import json

import pytest

from dream_cad.exceptions import InvalidConfigError
from dream_cad.models.options import validate_options
from dream_cad.models.trellis import RepresentationType, Trellis, TrellisOptions


def test_representations_are_those_of_the_api_reference() -> None:
    assert {kind.name: kind.value for kind in RepresentationType} == {
        "MESH": "mesh",
        "NERF": "nerf",
        "GAUSSIAN_SPLATTING": "gaussian_splatting",
        "SLAT": "slat",
    }


@pytest.mark.parametrize(
    ("given", "kept"),
    [
        ("slat", ["slat"]),
        (" mesh , nerf ", ["mesh", "nerf"]),
        (RepresentationType.NERF, ["nerf"]),
        ({RepresentationType.SLAT}, ["slat"]),
        (["slat", "slat", "mesh"], ["slat", "mesh"]),
    ],
)
def test_representations_are_read(given: object, kept: list[str]) -> None:
    assert list(TrellisOptions.parse({"representation": given}).representation) == kept


def test_checked_options_travel_as_json() -> None:
    given = {"representation": "mesh,slat", "structure_interval": [0.2, 0.9]}
    checked = validate_options(Trellis, given)
    again = json.loads(json.dumps(checked))
    assert TrellisOptions.parse(again) == TrellisOptions.parse(given)


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("representation", "voxels"),
        ("representation", []),
        ("representation", 3),
        ("structure_steps", 0),
        ("latent_steps", 201),
        ("latent_guidance", float("nan")),
        ("structure_guidance", -1.0),
        ("structure_interval", (0.9, 0.1)),
        ("latent_interval", (0.0, 1.5)),
        ("latent_interval", (0.0, float("inf"))),
        ("rescale_t", 0.0),
        ("multi_image", "mean"),
        ("seed", -1),
        ("simplify", 1.0),
        ("texture_size", 1000),
        ("texture_size", 128),
        ("texture_source", "mesh"),
        ("bake", "slow"),
        ("preview_size", 4),
        ("wings", 2),
    ],
)
def test_wrong_options_are_refused(name: str, value: object) -> None:
    with pytest.raises(InvalidConfigError, match=name):
        TrellisOptions.parse({name: value})


def test_options_of_text_are_refused_for_pictures() -> None:
    with pytest.raises(InvalidConfigError, match="negative_prompt only concern"):
        TrellisOptions.parse({"negative_prompt": "ugly"}).for_image()
