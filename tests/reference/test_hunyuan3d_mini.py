"""Hunyuan3D-2mini against its numeric reference cases."""

from __future__ import annotations

import json
import math
from dataclasses import replace

import pytest
import torch
from torch import nn

from dream_cad.models.hunyuan3d_mini.conditioner import Conditioner
from dream_cad.models.hunyuan3d_mini.config import Hunyuan3DConfig
from dream_cad.models.hunyuan3d_mini.dit import Hunyuan3DDiT
from dream_cad.models.hunyuan3d_mini.shape_vae import ShapeVAE, ShapeVAEConfig
from tests.reference.cases import Case, load_cases, reference_folder
from tests.reference.hunyuan3d_mini_stages import STAGES

CASES = load_cases("hunyuan3d_mini")


@pytest.mark.parametrize("case", [pytest.param(c, id=f"hunyuan3d_mini-{c.name}") for c in CASES])
@torch.no_grad()
def test_case(case: Case) -> None:
    assert case.stage in STAGES, f"stage {case.stage!r} is not known to this runner"
    outputs = STAGES[case.stage](case)
    expected = case.expected()
    assert expected
    for name in expected:
        assert name in outputs, f"output {name!r} is not made by stage {case.stage!r}"
        case.check(name, outputs[name])


def networks(variant: str, *, with_encoder: bool = False) -> dict[str, list[int]]:
    """Keys and shapes of our networks under the prefixes of the published file."""
    config = Hunyuan3DConfig.published(variant)
    with torch.device("meta"):
        parts: dict[str, nn.Module] = {
            "model.": Hunyuan3DDiT(config.dit),
            "vae.": ShapeVAE(replace(config.vae, with_encoder=with_encoder)),
            "conditioner.": Conditioner(config.conditioner),
        }
    return {
        prefix + key: list(tensor.shape)
        for prefix, module in parts.items()
        for key, tensor in module.state_dict().items()
    }


def published_tensors() -> dict[str, dict[str, list[int]]]:
    data = json.loads((reference_folder("hunyuan3d_mini") / "checkpoint.json").read_text())
    return {
        name: {key: entry["shape"] for key, entry in tensors.items()}
        for name, tensors in data["tensors"].items()
    }


def test_state_dict_equals_standard_checkpoint() -> None:
    standard, *_ = published_tensors().values()
    got = networks("standard")
    assert got == standard
    assert sum(math.prod(shape) for shape in got.values()) == 1_909_889_857


@pytest.mark.parametrize("variant", ["fast", "turbo"])
def test_state_dict_equals_guided_checkpoints(variant: str) -> None:
    standard, guidance, *_ = published_tensors().values()
    assert networks(variant) == standard | guidance


def test_state_dict_equals_turbo_vae() -> None:
    *_, turbo, _ = published_tensors().values()
    config = ShapeVAEConfig(
        geo_decoder_mlp_expand_ratio=1, geo_decoder_downsample_ratio=2, geo_decoder_ln_post=False
    )
    with torch.device("meta"):
        module = ShapeVAE(config)
    assert {key: list(tensor.shape) for key, tensor in module.state_dict().items()} == turbo


def test_state_dict_equals_vae_with_encoder() -> None:
    standard, *_, encoder = published_tensors().values()
    got = networks("standard", with_encoder=True)
    assert got == standard | {f"vae.{key}": shape for key, shape in encoder.items()}


@pytest.mark.parametrize(("section", "variant"), [("mini", "standard"), ("turbo", "turbo")])
def test_published_config_is_read(section: str, variant: str) -> None:
    data = json.loads((reference_folder("hunyuan3d_mini") / "config.json").read_text())
    assert Hunyuan3DConfig.from_mapping(data[section]) == Hunyuan3DConfig.published(variant)
