"""The networks of Hunyuan3D-Paint against their numeric reference cases."""

from __future__ import annotations

import json
from typing import Any

import pytest
import torch
from diffusers import UNet2DConditionModel
from torch import nn

from dream_cad.models.hunyuan3d_mini.paint.unet import PaintUNet
from dream_cad.models.hunyuan3d_mini.paint.vae import create_vae
from tests.reference.cases import Case, load_cases, reference_folder
from tests.reference.hunyuan3d_paint_networks import NETWORK_STAGES

CASES = [c for c in load_cases("hunyuan3d_mini/paint") if c.stage in NETWORK_STAGES]


@pytest.mark.parametrize(
    "case", [pytest.param(c, id=f"hunyuan3d_mini-paint-{c.name}") for c in CASES]
)
@torch.no_grad()
def test_case(case: Case) -> None:
    outputs = NETWORK_STAGES[case.stage](case)
    expected = case.expected()
    assert expected
    for name in expected:
        assert name in outputs, f"output {name!r} is not made by stage {case.stage!r}"
        case.check(name, outputs[name])


def published(file: str) -> dict[str, Any]:
    data: dict[str, Any] = json.loads(
        (reference_folder("hunyuan3d_mini/paint") / f"{file}.json").read_text()
    )
    return data


def shapes(module: nn.Module) -> dict[str, list[int]]:
    return {key: list(tensor.shape) for key, tensor in module.state_dict().items()}


def test_state_dict_equals_paint_unet() -> None:
    with torch.device("meta"):
        network = PaintUNet(published("config")["hunyuan3d_paint"]["unet"])
    assert shapes(network) == published("checkpoint")["tensors"]["hunyuan3d-paint-v2-0/unet"]


def test_state_dict_equals_vae() -> None:
    with torch.device("meta"):
        module = create_vae(published("config")["vae"])
    assert shapes(module) == published("checkpoint")["tensors"]["vae (all three)"]


def test_state_dict_equals_delight_unet() -> None:
    unet_class: Any = UNet2DConditionModel
    with torch.device("meta"):
        network = unet_class.from_config(published("config")["hunyuan3d_delight"]["unet"])
    assert shapes(network) == published("checkpoint")["tensors"]["hunyuan3d-delight-v2-0/unet"]
