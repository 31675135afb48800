"""MVDream against its numeric reference cases."""

from __future__ import annotations

import json
import math

import pytest
import torch
from torch import nn

from dream_cad.models.mvdream.config import LGMConfig, MVDreamConfig, UNetConfig
from dream_cad.models.mvdream.key_maps import split_original
from dream_cad.models.mvdream.lgm import LGM
from dream_cad.models.mvdream.network import MVDreamNetwork
from dream_cad.models.mvdream.unet import MultiViewUNet
from tests.reference.cases import Case, load_cases, reference_folder
from tests.reference.mvdream_stages import STAGES

CASES = load_cases("mvdream")


@pytest.mark.parametrize("case", [pytest.param(c, id=f"mvdream-{c.name}") for c in CASES])
@torch.no_grad()
def test_case(case: Case) -> None:
    assert case.stage in STAGES, f"stage {case.stage!r} is not known to this runner"
    outputs = STAGES[case.stage](case)
    expected = case.expected()
    assert expected
    for name in expected:
        assert name in outputs, f"output {name!r} is not made by stage {case.stage!r}"
        case.check(name, outputs[name])


def shapes(module: nn.Module) -> dict[str, list[int]]:
    return {key: list(tensor.shape) for key, tensor in module.state_dict().items()}


def published() -> tuple[dict[str, dict[str, list[int]]], dict[str, list[int]]]:
    data = json.loads((reference_folder("mvdream") / "checkpoint.json").read_text())
    extra = {key: entry["shape"] for key, entry in data["optional_imagedream_extra"].items()}
    files = {
        name: {key: entry["shape"] for key, entry in tensors.items()}
        for name, tensors in data["tensors"].items()
    }
    return files, extra


def test_state_dicts_equal_the_diffusers_layout() -> None:
    _, unet, vae, text, lgm = published()[0].values()
    with torch.device("meta"):
        network = MVDreamNetwork(MVDreamConfig.published())
        gaussians = LGM(LGMConfig())
    assert shapes(network.unet) == unet
    assert shapes(network.vae) == vae
    assert shapes(network.text_encoder) == text
    assert shapes(gaussians) == lgm
    assert sum(math.prod(shape) for shape in unet.values()) == 867_572_164


def test_the_original_file_maps_to_the_same_networks() -> None:
    original, unet, vae, text, _ = published()[0].values()
    parts = split_original({key: torch.empty(s, device="meta") for key, s in original.items()})
    for mapped, want in ((parts.unet, unet), (parts.vae, vae), (parts.text, text)):
        assert {key: list(tensor.shape) for key, tensor in mapped.items()} == want


def test_image_prompt_branch_equals_its_manifest() -> None:
    files, extra = published()
    plain = list(files.values())[1]
    with torch.device("meta"):
        module = MultiViewUNet(UNetConfig(ip_dim=16))
    assert shapes(module) == plain | extra
