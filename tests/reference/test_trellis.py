"""TRELLIS against its numeric reference cases and the published tensors."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import nn

from dream_cad.models.trellis.config import (
    LatentDecoderConfig,
    LatentFlowConfig,
    StructureDecoderConfig,
    StructureFlowConfig,
    parse_args,
)
from dream_cad.models.trellis.decoders import (
    GaussianDecoder,
    LatentEncoder,
    MeshDecoder,
    RadianceFieldDecoder,
)
from dream_cad.models.trellis.image_encoder import ImageEncoder, ImageEncoderConfig
from dream_cad.models.trellis.latent_flow import StructuredLatentFlow
from dream_cad.models.trellis.representations import GaussianSettings
from dream_cad.models.trellis.structure import (
    SparseStructureDecoder,
    SparseStructureEncoder,
    SparseStructureFlow,
)
from tests.reference.cases import Case, load_cases, reference_folder
from tests.reference.trellis_stages import STAGES

CASES = load_cases("trellis")
Args = dict[str, Any]


@pytest.mark.parametrize("case", [pytest.param(c, id=f"trellis-{c.name}") for c in CASES])
@torch.no_grad()
def test_case(case: Case) -> None:
    assert case.stage in STAGES, f"stage {case.stage!r} is not known to this runner"
    outputs = STAGES[case.stage](case)
    expected = case.expected()
    assert expected
    for name in expected:
        assert name in outputs, f"output {name!r} is not made by stage {case.stage!r}"
        case.check(name, outputs[name])


def split_representation(args: Args) -> tuple[LatentDecoderConfig, Args]:
    own = {key: value for key, value in args.items() if key != "representation_config"}
    return parse_args(LatentDecoderConfig, own), args.get("representation_config", {})


def gaussian_decoder(args: Args) -> nn.Module:
    sizes, settings = split_representation(args)
    return GaussianDecoder(sizes, GaussianSettings.from_mapping(settings))


def field_decoder(args: Args) -> nn.Module:
    sizes, settings = split_representation(args)
    return RadianceFieldDecoder(sizes, **settings)


def structure_encoder(args: Args) -> nn.Module:
    own = dict(args)
    width = own.pop("in_channels")
    return SparseStructureEncoder(parse_args(StructureDecoderConfig, own), width)


def encoder(args: Args) -> nn.Module:
    own = dict(args)
    width = own.pop("in_channels")
    return LatentEncoder(parse_args(LatentDecoderConfig, own), width)


BUILDERS: dict[str, Callable[[Args], nn.Module]] = {
    "SparseStructureFlowModel": lambda a: SparseStructureFlow(parse_args(StructureFlowConfig, a)),
    "SLatFlowModel": lambda a: StructuredLatentFlow(parse_args(LatentFlowConfig, a)),
    "SparseStructureDecoder": lambda a: SparseStructureDecoder(
        parse_args(StructureDecoderConfig, a)
    ),
    "SparseStructureEncoder": structure_encoder,
    "SLatGaussianDecoder": gaussian_decoder,
    "SLatRadianceFieldDecoder": field_decoder,
    "SLatMeshDecoder": lambda a: MeshDecoder(split_representation(a)[0]),
    "SLatEncoder": encoder,
}
MODELS = json.loads((reference_folder("trellis") / "config.json").read_text())["models"]
BUILT = sorted(MODELS)


def published_shapes(file: str) -> dict[str, list[int]]:
    data = json.loads((reference_folder("trellis") / "checkpoint.json").read_text())
    return {key: entry["shape"] for key, entry in data["tensors"][file].items()}


def shapes(module: nn.Module) -> dict[str, list[int]]:
    return {key: list(tensor.shape) for key, tensor in module.state_dict().items()}


@pytest.mark.parametrize("name", BUILT)
def test_state_dict_equals_checkpoint(name: str) -> None:
    with torch.device("meta"):
        module = BUILDERS[MODELS[name]["name"]](MODELS[name]["args"])
    assert shapes(module) == published_shapes(f"{name}.safetensors")


def test_image_encoder_equals_checkpoint() -> None:
    with torch.device("meta"):
        module = ImageEncoder(ImageEncoderConfig())
    assert shapes(module) == published_shapes("torch.hub/dinov2_vitl14_reg4_pretrain.pth")
