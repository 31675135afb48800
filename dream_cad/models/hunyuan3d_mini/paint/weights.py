"""Read the paint and delight folders of ``tencent/Hunyuan3D-2`` (spec section 15)."""

from __future__ import annotations

import json
import logging
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Literal, TypeVar

import torch
from diffusers import UNet2DConditionModel
from torch import Tensor, nn

from dream_cad.exceptions import CheckpointError, InvalidConfigError
from dream_cad.models.hunyuan3d_mini.paint.unet import PaintUNet
from dream_cad.models.hunyuan3d_mini.paint.vae import LatentCodec, create_vae
from dream_cad.models.loading import assign_weights, find_weights, read_weights, verify_weights
from dream_cad.nn.clip_text import TextConfig, TextEncoder

PaintVariant = Literal["standard", "turbo"]

NAME = "hunyuan3d-paint"
PAINT_FOLDERS: dict[PaintVariant, str] = {
    "standard": "hunyuan3d-paint-v2-0",
    "turbo": "hunyuan3d-paint-v2-0-turbo",
}
DELIGHT_FOLDER = "hunyuan3d-delight-v2-0"
NETWORK_FILES = ("diffusion_pytorch_model.safetensors", "diffusion_pytorch_model.bin")
TEXT_FILES = ("model.safetensors", "pytorch_model.bin")

NetworkType = TypeVar("NetworkType", bound=nn.Module)

_UNBUILDABLE = (ArithmeticError, AttributeError, LookupError, RuntimeError, TypeError, ValueError)
_logger = logging.getLogger(__name__)

# Old autoencoders name the parts of their attention so.
_OLD_ATTENTION = {"query": "to_q", "key": "to_k", "value": "to_v", "proj_attn": "to_out.0"}
# transformers wrote it before 4.31; it holds 0, 1, 2 ...
_POSITION_IDS = "text_model.embeddings.position_ids"
# The empty prompt: start, end, and pads of id 0.
_EMPTY_PROMPT = (49_406, 49_407)


def find_paint_folder(folder: Path, variant: PaintVariant) -> Path:
    """Return the folder of a variant: inside a checkout of the repository, or ``folder`` itself.

    Raises:
        InvalidConfigError: there is no such variant.
    """
    if variant not in PAINT_FOLDERS:
        raise InvalidConfigError(
            f"variant is {variant!r}; choose one of {', '.join(PAINT_FOLDERS)}.",
            details={"allowed": list(PAINT_FOLDERS)},
        )
    inside = folder / PAINT_FOLDERS[variant]
    return inside if inside.is_dir() else folder


def find_delight_folder(folder: Path) -> Path:
    """Return the delight folder: inside a checkout of the repository, or ``folder`` itself."""
    inside = folder / DELIGHT_FOLDER
    return inside if inside.is_dir() else folder


def read_config(path: Path) -> dict[str, Any]:
    """Read a diffusers config, without the keys that name its writer.

    Raises:
        CheckpointError: the file is missing or no JSON object.
    """
    try:
        data = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise CheckpointError(
            f"{path} cannot be read as JSON: {error}", hint="Fetch the checkpoint again."
        ) from error
    if not isinstance(data, dict):
        raise CheckpointError(f"{path} holds {type(data).__name__}; an object was expected.")
    return {key: value for key, value in data.items() if not key.startswith("_")}


def read_scheduler(folder: Path) -> dict[str, Any]:
    """Read the noise schedule of a paint or delight folder.

    Raises:
        CheckpointError: the file is missing or no JSON object.
    """
    return read_config(folder / "scheduler" / "scheduler_config.json")


def load_paint_unet(
    folder: Path, variant: PaintVariant, *, device: torch.device, dtype: torch.dtype
) -> PaintUNet:
    """Load the two UNets of a paint folder, verified key by key.

    The safetensors file of turbo is larger than the network: what it holds besides is named in the
    log and not read. Every other file has to hold the network's tensors and no more.

    Raises:
        CheckpointError: a file is missing or damaged, or does not fit the network.
    """
    path = find_weights(folder / "unet", NETWORK_FILES, model=NAME)
    network = _build(PaintUNet, folder / "unet" / "config.json")
    state = read_weights(path)
    if variant == "turbo" and path.suffix == ".safetensors":
        state = _without_surplus(state, network, path)
    verify_weights(state, network, path)
    assign_weights(network, state, device=device, dtype_of=lambda _: dtype)
    return network


def load_codec(folder: Path, *, device: torch.device, dtype: torch.dtype) -> LatentCodec:
    """Load the autoencoder of a paint or delight folder; old names of its attention are known.

    Raises:
        CheckpointError: a file is missing or damaged, or does not fit the network.
    """
    path = find_weights(folder / "vae", NETWORK_FILES, model=NAME)
    vae = _build(create_vae, folder / "vae" / "config.json")
    wanted = vae.state_dict()
    state = dict(_renamed(key, value, wanted) for key, value in read_weights(path).items())
    verify_weights(state, vae, path)
    assign_weights(vae, state, device=device, dtype_of=lambda _: dtype)
    return LatentCodec(vae)


def load_delight_unet(folder: Path, *, device: torch.device, dtype: torch.dtype) -> Any:
    """Load the UNet of the delight folder: diffusers' own.

    Raises:
        CheckpointError: a file is missing or damaged, or does not fit the network.
    """
    path = find_weights(folder / "unet", NETWORK_FILES, model=NAME)
    unet_class: Any = UNet2DConditionModel  # diffusers has no types
    unet = _build(unet_class.from_config, folder / "unet" / "config.json")
    state = read_weights(path)
    verify_weights(state, unet, path)
    assign_weights(unet, state, device=device, dtype_of=lambda _: dtype)
    return unet


@torch.no_grad()
def encode_empty_prompt(folder: Path, *, device: torch.device, dtype: torch.dtype) -> Tensor:
    """Return the embedding (1, 77, C) of the empty prompt; the text encoder is not kept.

    Raises:
        CheckpointError: a file is missing or damaged, or does not fit the network.
    """
    path = find_weights(folder / "text_encoder", TEXT_FILES, model=NAME)
    encoder = _build(_make_text_encoder, folder / "text_encoder" / "config.json")
    state = {key: value for key, value in read_weights(path).items() if key != _POSITION_IDS}
    verify_weights(state, encoder, path)
    assign_weights(encoder, state, device=device, dtype_of=lambda _: torch.float32)
    ids = torch.zeros(1, encoder.config.max_position_embeddings, dtype=torch.int64, device=device)
    ids[0, : len(_EMPTY_PROMPT)] = torch.tensor(_EMPTY_PROMPT)
    encoded: Tensor = encoder(ids)
    return encoded.to(dtype)


def _make_text_encoder(data: Mapping[str, Any]) -> TextEncoder:
    known = {key: data[key] for key in TextConfig.__dataclass_fields__ if key in data}
    return TextEncoder(TextConfig(**known))


def _build(make: Callable[[dict[str, Any]], NetworkType], path: Path) -> NetworkType:
    """Build the network of a config.json without memory for its weights."""
    config = read_config(path)
    try:
        with torch.device("meta"):
            return make(config)
    except _UNBUILDABLE as error:
        raise CheckpointError(
            f"{path} describes no network that can be built: {error}",
            hint="Fetch the checkpoint again.",
        ) from error


def _without_surplus(
    state: Mapping[str, Tensor], network: nn.Module, path: Path
) -> Mapping[str, Tensor]:
    wanted = network.state_dict()
    surplus = [key for key in state if key not in wanted]
    if surplus:
        _logger.warning(
            "%s holds %d tensors that the network has no place for; they are not read: %s",
            path,
            len(surplus),
            ", ".join(surplus),
        )
    return {key: value for key, value in state.items() if key in wanted}


def _renamed(key: str, value: Tensor, wanted: Mapping[str, Tensor]) -> tuple[str, Tensor]:
    """Give an attention tensor of an old autoencoder its new name and shape."""
    if key in wanted:
        return key, _as_linear(value, wanted[key])
    head, _, tail = key.rpartition(".")
    parent, _, part = head.rpartition(".")
    if part not in _OLD_ATTENTION:
        return key, value
    renamed = f"{parent}.{_OLD_ATTENTION[part]}.{tail}"
    return renamed, _as_linear(value, wanted[renamed]) if renamed in wanted else value


def _as_linear(value: Tensor, wanted: Tensor) -> Tensor:
    """A 1x1 convolution's weight as a linear one's, where that is what is wanted."""
    is_convolution = value.ndim == 4 and wanted.ndim == 2 and value.shape[2:] == (1, 1)
    return value[..., 0, 0] if is_convolution else value
