"""A tiny MVDream checkpoint with LGM, in the published layouts, with a surface to extract."""

from __future__ import annotations

import json
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file
from torch import Tensor, nn

from dream_cad.models.mvdream.config import MVDreamConfig, tiny_lgm
from dream_cad.models.mvdream.lgm import LGM
from dream_cad.models.mvdream.network import MVDreamNetwork
from dream_cad.models.mvdream.weights import LGM_FILE, TEXT_FILE, UNET_FILE, VAE_FILE
from dream_cad.nn.clip_tokenizer import END, START, _byte_letters

PROMPT = "a red chair"
# Byte letters, then these merges: enough for the prompt to be words.
MERGES = [("r", "e"), ("re", "d</w>"), ("c", "h"), ("a", "i"), ("ai", "r</w>"), ("ch", "air</w>")]


def write_checkpoint(folder: Path) -> Path:
    """Write the diffusers layout and ``lgm/``, and return the folder."""
    torch.manual_seed(0)
    config = MVDreamConfig.tiny()
    network, lgm = MVDreamNetwork(config), LGM(tiny_lgm())
    _make_visible(lgm)
    _save(network.unet, folder / UNET_FILE, asdict(config.unet))
    _save(network.vae, folder / VAE_FILE, asdict(config.vae))
    _save(network.text_encoder, folder / TEXT_FILE, asdict(config.text))
    _save(lgm, folder / "lgm" / LGM_FILE, asdict(lgm.config))
    return folder


def write_tokenizer(folder: Path) -> None:
    folder.mkdir(parents=True)
    letters = _byte_letters()
    tokens = [*letters, *(letter + "</w>" for letter in letters)]
    tokens += ["".join(pair) for pair in MERGES] + [START, END]
    (folder / "vocab.json").write_text(json.dumps({t: i for i, t in enumerate(tokens)}))
    lines = ["#version: 0.2", *(" ".join(pair) for pair in MERGES)]
    (folder / "merges.txt").write_text("\n".join(lines) + "\n")


@torch.no_grad()
def _make_visible(lgm: LGM) -> None:
    """Spread the Gaussians over a ball, opaque and as large as the tiny map asks for."""
    bias = lgm.conv.bias
    assert bias is not None
    bias[3], bias[4:7], bias[7] = 4.0, 0.5, 1.0


def _save(module: nn.Module, path: Path, config: dict[str, Any]) -> None:
    path.parent.mkdir(parents=True)
    state = {key: value.half().contiguous() for key, value in module.state_dict().items()}
    save_file(state, path)
    (path.parent / "config.json").write_text(json.dumps(config))


def original_state(folder: Path) -> dict[str, Tensor]:
    """The diffusers folder's tensors under the original file's keys."""
    from safetensors.torch import load_file

    from tests.reference.mvdream_networks import openclip_shapes, original_vae_shapes

    config = MVDreamConfig.tiny()
    state = {
        f"model.diffusion_model.{key}": value
        for key, value in load_file(folder / UNET_FILE).items()
    }
    vae = load_file(folder / VAE_FILE)
    levels = len(config.vae.block_out_channels)
    shapes = original_vae_shapes({k: tuple(v.shape) for k, v in vae.items()}, levels)
    for (key, shape), value in zip(shapes.items(), vae.values(), strict=True):
        state[f"first_stage_model.{key}"] = value.reshape(shape)
    text, sizes = load_file(folder / TEXT_FILE), config.text
    layers = sizes.num_hidden_layers + 1
    for key, shape in openclip_shapes(sizes.hidden_size, layers, sizes.vocab_size, 77).items():
        state[f"cond_stage_model.model.{key}"] = _open_clip(key, shape, text)
    state["betas"] = torch.linspace(0.1, 0.2, 1000)
    return state


def _open_clip(key: str, shape: tuple[int, ...], text: dict[str, Tensor]) -> Tensor:
    """The tensor of an OpenCLIP key; the last block and the projection are never read."""
    ends = {
        "token_embedding.weight": "embeddings.token_embedding.weight",
        "positional_embedding": "embeddings.position_embedding.weight",
        "ln_final.weight": "final_layer_norm.weight",
        "ln_final.bias": "final_layer_norm.bias",
    }
    if key in ends:
        return text[f"text_model.{ends[key]}"]
    names = {"ln_1": "layer_norm1", "ln_2": "layer_norm2", "attn": "self_attn", "mlp": "mlp"}
    inner = {"c_fc": "fc1", "c_proj": "fc2"}
    if not key.startswith("transformer"):
        return torch.zeros(shape)
    _, _, index, part, *rest = key.split(".")
    prefix = f"text_model.encoder.layers.{index}.{names[part]}."
    if rest[0].startswith("in_proj"):
        kind = rest[0].removeprefix("in_proj_")
        found = [text.get(f"{prefix}{name}_proj.{kind}") for name in "qkv"]
        return (
            torch.cat([t for t in found if t is not None])
            if found[0] is not None
            else torch.zeros(shape)
        )
    name = ".".join(inner.get(word, word) for word in rest)
    return text.get(prefix + name, torch.zeros(shape))
