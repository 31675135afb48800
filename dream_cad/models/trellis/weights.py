"""Load TRELLIS from folders in the published layout."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

import torch
from torch import Tensor, nn

from dream_cad.exceptions import CheckpointError
from dream_cad.models.loading import assign_weights, find_weights, read_weights, verify_weights
from dream_cad.models.trellis.decoders import GaussianDecoder, MeshDecoder, RadianceFieldDecoder
from dream_cad.models.trellis.dinov2_keys import from_hub, is_hub_layout
from dream_cad.models.trellis.image_encoder import ImageEncoder, ImageEncoderConfig
from dream_cad.models.trellis.latent_flow import StructuredLatentFlow
from dream_cad.models.trellis.network import (
    Decoders,
    Flows,
    ImageBranch,
    TextBranch,
    TrellisNetworks,
    torso_keys,
)
from dream_cad.models.trellis.pipeline_file import (
    PIPELINE_FILE,
    PipelineFile,
    build_network,
    read_json,
    read_pipeline,
)
from dream_cad.models.trellis.structure import SparseStructureDecoder, SparseStructureFlow
from dream_cad.nn.clip_text import TextConfig, TextEncoder
from dream_cad.nn.clip_tokenizer import ClipTokenizer

NAME = "trellis"
DINOV2_FILES = (
    "dinov2/model.safetensors",
    "dinov2_vitl14_reg4_pretrain.pth",
    "dinov2_vitl14_reg4_pretrain.safetensors",
)
"""Where the image encoder is looked for: the hub's layout first, then the original file."""

# Folders beside a text variant's in which the networks that it shares may lie.
_SIBLINGS = ("TRELLIS-image-large", NAME)
_STRUCTURE_FLOW, _LATENT_FLOW = "sparse_structure_flow_model", "slat_flow_model"
_Module = TypeVar("_Module", bound=nn.Module)


@dataclass(frozen=True)
class LoadTarget:
    """Where to put the networks, and in which dtype their torsos run."""

    device: torch.device
    dtype: torch.dtype = torch.float32


def load_networks(
    folder: Path, text_folder: Path | None = None, *, target: LoadTarget
) -> TrellisNetworks:
    """Load a variant, and with it a text variant that shares its decoders.

    Args:
        folder: ``pipeline.json`` with ``ckpts/``; for an image variant also DINOv2 (``dinov2/``
            as on the hub, or the original file), for a text variant CLIP
            (``clip-vit-large-patch14/``). What a text variant shares may lie beside it.
        text_folder: of a text variant, to read prompts natively.
        target: device and dtype.

    Raises:
        CheckpointError: a file is missing or damaged, does not fit, or is of another variant.
    """
    main = read_pipeline(folder)
    decoders = _load_decoders(folder, main, target)
    if main.kind == "text":
        if text_folder is not None:
            raise CheckpointError(f"{folder} is itself a text variant; name an image variant.")
        return TrellisNetworks(decoders, text=_load_text(folder, main, target))
    image = ImageBranch(_load_image_encoder(folder, target), _load_flows(folder, main, target))
    if text_folder is None:
        return TrellisNetworks(decoders, image)
    second = read_pipeline(text_folder)
    if second.kind != "text":
        raise CheckpointError(f"{text_folder} is no text variant but one for pictures.")
    return TrellisNetworks(decoders, image, _load_text(text_folder, second, target))


def is_text_variant(folder: Path) -> bool:
    """Tell whether a folder holds a text variant; a folder without a pipeline does not."""
    return (folder / PIPELINE_FILE).is_file() and read_pipeline(folder).kind == "text"


def receipt_file(folder: Path) -> Path:
    """Return the weights file that receipts name: that of the structured latent's flow."""
    return _find(folder, _reference(read_pipeline(folder), _LATENT_FLOW), ".safetensors")


def _load_decoders(folder: Path, pipeline: PipelineFile, target: LoadTarget) -> Decoders:
    def load(role: str, kind: type[_Module]) -> _Module:
        return _load_network(folder, _reference(pipeline, role), kind, target)

    return Decoders(
        load("sparse_structure_decoder", SparseStructureDecoder),
        load("slat_decoder_mesh", MeshDecoder),
        load("slat_decoder_gs", GaussianDecoder),
        load("slat_decoder_rf", RadianceFieldDecoder),
        pipeline.normalization,
    )


def _load_flows(folder: Path, pipeline: PipelineFile, target: LoadTarget) -> Flows:
    structure, latent = (_reference(pipeline, role) for role in (_STRUCTURE_FLOW, _LATENT_FLOW))
    return Flows(
        _load_network(folder, structure, SparseStructureFlow, target),
        _load_network(folder, latent, StructuredLatentFlow, target),
        pipeline.structure_sampler,
        pipeline.latent_sampler,
    )


def _reference(pipeline: PipelineFile, role: str) -> str:
    try:
        return pipeline.models[role]
    except KeyError:
        raise CheckpointError(f"{PIPELINE_FILE} names no {role}.") from None


def _find(folder: Path, reference: str, suffix: str) -> Path:
    """The file of a reference: ``ckpts/x`` of this folder, or ``owner/repo/ckpts/x`` of another."""
    inside = Path("ckpts") / Path(reference).name
    roots = [folder, *(folder.parent / name for name in _SIBLINGS)]
    places = [folder / reference, *(root / inside for root in roots)]
    for place in places:
        if (path := place.with_name(place.name + suffix)).is_file():
            return path
    raise CheckpointError(
        f"{folder} holds no {inside}{suffix}.",
        hint=f"Run 'dream-cad pull {NAME}'; a text variant shares its decoders with "
        f"TRELLIS-image-large, which may lie beside it.",
    )


def _load_network(folder: Path, reference: str, kind: type[_Module], target: LoadTarget) -> _Module:
    config = _find(folder, reference, ".json")
    with torch.device("meta"):
        network = build_network(config)
    if not isinstance(network, kind):
        raise CheckpointError(
            f"{config} describes a {type(network).__name__}; {kind.__name__} was expected."
        )
    path = _find(folder, reference, ".safetensors")
    return _filled(network, read_weights(path), path, target)


def _filled(
    network: _Module, state: Mapping[str, Tensor], path: Path, target: LoadTarget
) -> _Module:
    verify_weights(state, network, path)
    torso = torso_keys(network)
    assign_weights(
        network,
        state,
        device=target.device,
        dtype_of=lambda key: target.dtype if key in torso else torch.float32,
    )
    return network


def _load_image_encoder(folder: Path, target: LoadTarget) -> ImageEncoder:
    """Load DINOv2, which stays in float32 as published."""
    path = _find_beside(folder, DINOV2_FILES)
    with torch.device("meta"):
        encoder = ImageEncoder(_image_encoder_config(path))
    state = read_weights(path)
    state = from_hub(state) if is_hub_layout(state) else state
    _filled(encoder, state, path, LoadTarget(target.device))
    encoder.place_constants(target.device)
    return encoder


def _image_encoder_config(path: Path) -> ImageEncoderConfig:
    """Sizes from the hub's config.json beside the file; without one, those of ViT-L/14."""
    config = path.with_name("config.json")
    if path.parent.name != "dinov2" or not config.is_file():
        return ImageEncoderConfig()
    data, default = read_json(config), ImageEncoderConfig()
    return ImageEncoderConfig(
        img_size=int(data.get("image_size", default.img_size)),
        patch_size=int(data.get("patch_size", default.patch_size)),
        embed_dim=int(data.get("hidden_size", default.embed_dim)),
        depth=int(data.get("num_hidden_layers", default.depth)),
        num_heads=int(data.get("num_attention_heads", default.num_heads)),
        num_register_tokens=int(data.get("num_register_tokens", default.num_register_tokens)),
        mlp_ratio=int(data.get("mlp_ratio", default.mlp_ratio)),
        norm_eps=float(data.get("layer_norm_eps", default.norm_eps)),
    )


def _load_text(folder: Path, pipeline: PipelineFile, target: LoadTarget) -> TextBranch:
    """Load CLIP's text tower, which stays in float32 as published, and the text flows."""
    name = Path(pipeline.encoder).name
    path = _find_beside(folder, (f"{name}/model.safetensors",))
    data = read_json(path.with_name("config.json"))
    sizes = _text_config(data.get("text_config", data))
    with torch.device("meta"):
        encoder = TextEncoder(sizes)
    state = {
        key: value
        for key, value in read_weights(path).items()
        if key.startswith("text_model.") and not key.endswith("position_ids")
    }
    _filled(encoder, state, path, LoadTarget(target.device))
    length = sizes.max_position_embeddings
    tokenizer = (
        ClipTokenizer.from_folder(path.parent, length, "end")
        if (path.parent / "vocab.json").is_file()
        else ClipTokenizer.bundled("end")
    )
    return TextBranch(encoder, tokenizer, _load_flows(folder, pipeline, target))


def _text_config(data: Mapping[str, object]) -> TextConfig:
    """CLIP ViT-L/14 where the file says nothing else; transformers leaves defaults out."""
    sizes = {
        "vocab_size": 49408,
        "hidden_size": 768,
        "intermediate_size": 3072,
        "num_hidden_layers": 12,
        "num_attention_heads": 12,
        "max_position_embeddings": 77,
    }
    integers = {key: int(str(data.get(key, value))) for key, value in sizes.items()}
    return TextConfig(
        **integers,
        layer_norm_eps=float(str(data.get("layer_norm_eps", 1e-5))),
        hidden_act=str(data.get("hidden_act", "quick_gelu")),
    )


def _find_beside(folder: Path, names: Iterable[str]) -> Path:
    """The first of the files in the folder, its parent, or the folders beside it."""
    listed = tuple(names)
    for root in (folder, *(folder.parent / name for name in _SIBLINGS), folder.parent):
        if any((root / name).is_file() for name in listed):
            return find_weights(root, listed, model=NAME)
    return find_weights(folder, listed, model=NAME)
