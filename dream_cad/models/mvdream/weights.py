"""Load MVDream and LGM from a folder in one of the published layouts."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor, nn

from dream_cad.models.loading import assign_weights, find_weights, read_weights, verify_weights
from dream_cad.models.mvdream.config import (
    LGMConfig,
    MVDreamConfig,
    UNetConfig,
    VAEConfig,
    read_section,
)
from dream_cad.models.mvdream.key_maps import split_original
from dream_cad.models.mvdream.lgm import LGM
from dream_cad.models.mvdream.network import MVDreamNetwork
from dream_cad.nn.clip_text import TextConfig
from dream_cad.nn.clip_tokenizer import ClipTokenizer

NAME = "mvdream"
UNET_FILE = "unet/diffusion_pytorch_model.safetensors"
VAE_FILE = "vae/diffusion_pytorch_model.safetensors"
TEXT_FILE = "text_encoder/model.safetensors"
ORIGINAL_FILE = "sd-v2.1-base-4view.pt"
LGM_FILE = "model_fp16_fixrot.safetensors"
LGM_FILES = (f"lgm/{LGM_FILE}", LGM_FILE)
WEIGHTS_FILES = (UNET_FILE, ORIGINAL_FILE)

# transformers wrote it before 4.31; it holds 0, 1, 2 ...
_POSITION_IDS = "text_model.embeddings.position_ids"


@dataclass(frozen=True)
class LoadedNetworks:
    """What a checkpoint folder holds.

    Attributes:
        network: text encoder, UNet and autoencoder.
        tokenizer: its vocabulary.
        path: the weights file that receipts name.
    """

    network: MVDreamNetwork
    tokenizer: ClipTokenizer
    path: Path


def read_config(folder: Path) -> MVDreamConfig:
    """Read the sizes; files that are not there mean the published ones.

    Args:
        folder: with ``unet/config.json`` and so on, or, for the original layout, one
            ``config.json`` with sections ``unet``, ``text_encoder`` and ``vae``.
    """
    if (folder / UNET_FILE).is_file():
        return MVDreamConfig(
            read_section(UNetConfig, folder / "unet/config.json"),
            read_section(TextConfig, folder / "text_encoder/config.json"),
            read_section(VAEConfig, folder / "vae/config.json"),
        )
    path = folder / "config.json"
    return MVDreamConfig(
        read_section(UNetConfig, path, "unet"),
        read_section(TextConfig, path, "text_encoder"),
        read_section(VAEConfig, path, "vae"),
    )


def load_networks(
    folder: Path, *, device: torch.device | str = "cpu", dtype: torch.dtype = torch.float32
) -> LoadedNetworks:
    """Load what makes views from text, verified key by key, in evaluation mode.

    Args:
        folder: the diffusers layout (``ashawkey/mvdream-sd2.1-diffusers``) or the original one
            (``MVDream/MVDream``).
        device: where to put the networks.
        dtype: of the weights.

    Raises:
        CheckpointError: a file is missing or damaged, or does not fit the sizes.
    """
    path = find_weights(folder, WEIGHTS_FILES, model=NAME)
    config = read_config(folder)
    with torch.device("meta"):
        network = MVDreamNetwork(config)
    for part, state, source in _read_parts(network, folder, path):
        verify_weights(state, part, source)
        assign_weights(part, state, device=torch.device(device), dtype_of=lambda _: dtype)
    length = config.text.max_position_embeddings
    tokens = folder / "tokenizer"
    tokenizer = (
        ClipTokenizer.from_folder(tokens, length) if tokens.is_dir() else ClipTokenizer.bundled()
    )
    return LoadedNetworks(network.eval(), tokenizer, path)


def _read_parts(
    network: MVDreamNetwork, folder: Path, path: Path
) -> list[tuple[nn.Module, Mapping[str, Tensor], Path]]:
    if path.name == ORIGINAL_FILE:
        original = split_original(read_weights(path))
        return [
            (network.unet, original.unet, path),
            (network.vae, original.vae, path),
            (network.text_encoder, original.text, path),
        ]
    text_path = find_weights(folder, (TEXT_FILE,), model=NAME)
    vae_path = find_weights(folder, (VAE_FILE,), model=NAME)
    text = {key: v for key, v in read_weights(text_path).items() if key != _POSITION_IDS}
    return [
        (network.unet, read_weights(path), path),
        (network.vae, read_weights(vae_path), vae_path),
        (network.text_encoder, text, text_path),
    ]


def load_lgm(
    folder: Path, *, device: torch.device | str = "cpu", dtype: torch.dtype = torch.float32
) -> LGM:
    """Load the large Gaussian model from ``lgm/`` or the folder itself.

    Raises:
        CheckpointError: the file is missing or damaged, or does not fit.
    """
    path = find_weights(folder, LGM_FILES, model=NAME)
    with torch.device("meta"):
        network = LGM(read_section(LGMConfig, folder / "lgm" / "config.json"))
    state = read_weights(path)
    verify_weights(state, network, path)
    assign_weights(network, state, device=torch.device(device), dtype_of=lambda _: dtype)
    return network
