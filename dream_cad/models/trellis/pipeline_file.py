"""Read ``pipeline.json`` and the JSON file of each network, as published."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from torch import nn

from dream_cad.exceptions import CheckpointError, InvalidConfigError
from dream_cad.models.trellis.config import (
    LatentDecoderConfig,
    LatentFlowConfig,
    LatentNormalization,
    StructureDecoderConfig,
    StructureFlowConfig,
    parse_args,
)
from dream_cad.models.trellis.decoders import GaussianDecoder, MeshDecoder, RadianceFieldDecoder
from dream_cad.models.trellis.latent_flow import StructuredLatentFlow
from dream_cad.models.trellis.representations import GaussianSettings
from dream_cad.models.trellis.sampler import SamplerConfig
from dream_cad.models.trellis.structure import SparseStructureDecoder, SparseStructureFlow

PIPELINE_FILE = "pipeline.json"
Kind = Literal["image", "text"]
Args = dict[str, Any]

_KINDS: dict[str, Kind] = {"TrellisImageTo3DPipeline": "image", "TrellisTextTo3DPipeline": "text"}
_ENCODERS: dict[Kind, str] = {"image": "image_cond_model", "text": "text_cond_model"}
_HINT = "Fetch the checkpoint again."


@dataclass(frozen=True)
class PipelineFile:
    """What a pipeline.json says.

    Attributes:
        kind: what the flows are conditioned on.
        models: reference of each network's files, without suffix, by role.
        structure_sampler: defaults of stage 1.
        latent_sampler: defaults of stage 2.
        normalization: of the structured latent.
        encoder: name of the network that encodes the condition.
    """

    kind: Kind
    models: Mapping[str, str]
    structure_sampler: SamplerConfig
    latent_sampler: SamplerConfig
    normalization: LatentNormalization
    encoder: str


def read_json(path: Path) -> dict[str, Any]:
    """Read a JSON object.

    Raises:
        CheckpointError: the file is missing or holds something else.
    """
    try:
        data = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise CheckpointError(f"{path} cannot be read as JSON: {error}", hint=_HINT) from error
    if not isinstance(data, dict):
        raise CheckpointError(f"{path} holds {type(data).__name__}; an object was expected.")
    return data


def read_pipeline(folder: Path) -> PipelineFile:
    """Read a folder's pipeline.json.

    Raises:
        CheckpointError: it is missing, of another model, or lacks something.
    """
    path = folder / PIPELINE_FILE
    data = read_json(path)
    kind = _KINDS.get(str(data.get("name")))
    if kind is None:
        raise CheckpointError(
            f"{path} describes {data.get('name')!r}; expected one of {', '.join(_KINDS)}."
        )
    try:
        args = data["args"]
        numbers = args["slat_normalization"]
        return PipelineFile(
            kind,
            {str(role): str(name) for role, name in args["models"].items()},
            _sampler(args["sparse_structure_sampler"]),
            _sampler(args["slat_sampler"]),
            LatentNormalization(tuple(numbers["mean"]), tuple(numbers["std"])),
            str(args[_ENCODERS[kind]]),
        )
    except (KeyError, TypeError, AttributeError, InvalidConfigError) as error:
        raise CheckpointError(f"{path} lacks or misstates {error}.", hint=_HINT) from error


def _sampler(data: Args) -> SamplerConfig:
    values = dict(data["params"])
    low, high = values["cfg_interval"]
    return SamplerConfig(
        int(values["steps"]),
        float(values["cfg_strength"]),
        (float(low), float(high)),
        float(values["rescale_t"]),
    )


def _split(args: Args) -> tuple[LatentDecoderConfig, Args]:
    own = {key: value for key, value in args.items() if key != "representation_config"}
    return parse_args(LatentDecoderConfig, own), args.get("representation_config") or {}


def _gaussian(args: Args) -> nn.Module:
    sizes, settings = _split(args)
    return GaussianDecoder(sizes, GaussianSettings.from_mapping(settings))


def _field(args: Args) -> nn.Module:
    sizes, settings = _split(args)
    return RadianceFieldDecoder(sizes, rank=int(settings["rank"]), dim=int(settings["dim"]))


BUILDERS: dict[str, Callable[[Args], nn.Module]] = {
    "SparseStructureFlowModel": lambda a: SparseStructureFlow(parse_args(StructureFlowConfig, a)),
    "SLatFlowModel": lambda a: StructuredLatentFlow(parse_args(LatentFlowConfig, a)),
    "SparseStructureDecoder": lambda a: SparseStructureDecoder(
        parse_args(StructureDecoderConfig, a)
    ),
    "SLatGaussianDecoder": _gaussian,
    "SLatRadianceFieldDecoder": _field,
    "SLatMeshDecoder": lambda a: MeshDecoder(_split(a)[0]),
}
"""How a network is built from the ``args`` of its JSON file, by the published class name."""


def build_network(path: Path) -> nn.Module:
    """Build the network that a JSON file describes.

    Raises:
        CheckpointError: the file is damaged or describes something else.
    """
    data = read_json(path)
    # The repository's own files say Elastic* for networks with the same tensors.
    name = str(data.get("name")).removeprefix("Elastic")
    if name not in BUILDERS:
        raise CheckpointError(f"{path} describes {name!r}; expected one of {', '.join(BUILDERS)}.")
    try:
        return BUILDERS[name](dict(data["args"]))
    except (KeyError, TypeError, ValueError, InvalidConfigError) as error:
        raise CheckpointError(f"{path} lacks or misstates {error}.", hint=_HINT) from error
