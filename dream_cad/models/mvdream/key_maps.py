"""The original checkpoint's keys (``sd-v2.1-base-4view.pt``) to those of the diffusers layout."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass

from torch import Tensor

from dream_cad.exceptions import CheckpointError

UNET_PREFIX = "model.diffusion_model."
VAE_PREFIX = "first_stage_model."
TEXT_PREFIX = "cond_stage_model.model."

_SCHEDULE = re.compile(
    r"betas|alphas_cumprod(_prev)?|sqrt_(one_minus_)?alphas_cumprod|log_one_minus_alphas_cumprod"
    r"|sqrt_recipm?1?_alphas_cumprod|posterior_(variance|log_variance_clipped|mean_coef[12])"
)
_DROPPED_TEXT = ("text_projection", "logit_scale", "attn_mask")
_BLOCK = re.compile(r"transformer\.resblocks\.(\d+)\.(.+)")
_IN_TEXT_BLOCK = {
    "ln_1.": "layer_norm1.",
    "ln_2.": "layer_norm2.",
    "attn.out_proj.": "self_attn.out_proj.",
    "mlp.c_fc.": "mlp.fc1.",
    "mlp.c_proj.": "mlp.fc2.",
}
_TEXT_ENDS = {
    "token_embedding.weight": "text_model.embeddings.token_embedding.weight",
    "positional_embedding": "text_model.embeddings.position_embedding.weight",
    "ln_final.weight": "text_model.final_layer_norm.weight",
    "ln_final.bias": "text_model.final_layer_norm.bias",
}
_VAE_RULES = [
    (re.compile(r"encoder\.down\.(\d+)\.block\.(\d+)\."), r"encoder.down_blocks.\1.resnets.\2."),
    (
        re.compile(r"encoder\.down\.(\d+)\.downsample\.conv\."),
        r"encoder.down_blocks.\1.downsamplers.0.conv.",
    ),
    (re.compile(r"decoder\.up\.(\d+)\.block\.(\d+)\."), r"decoder.up_blocks.\1.resnets.\2."),
    (
        re.compile(r"decoder\.up\.(\d+)\.upsample\.conv\."),
        r"decoder.up_blocks.\1.upsamplers.0.conv.",
    ),
    (re.compile(r"mid\.block_1\."), "mid_block.resnets.0."),
    (re.compile(r"mid\.block_2\."), "mid_block.resnets.1."),
    (re.compile(r"mid\.attn_1\.norm\."), "mid_block.attentions.0.group_norm."),
    (re.compile(r"mid\.attn_1\.([qkv])\."), r"mid_block.attentions.0.to_\1."),
    (re.compile(r"mid\.attn_1\.proj_out\."), "mid_block.attentions.0.to_out.0."),
    (re.compile(r"nin_shortcut\."), "conv_shortcut."),
    (re.compile(r"norm_out\."), "conv_norm_out."),
]
_UP_LEVEL = re.compile(r"decoder\.up_blocks\.(\d+)\.")


@dataclass(frozen=True)
class OriginalWeights:
    """The original file cut into its networks, keyed as in the diffusers layout."""

    unet: dict[str, Tensor]
    vae: dict[str, Tensor]
    text: dict[str, Tensor]


def split_original(state: Mapping[str, Tensor]) -> OriginalWeights:
    """Cut the original file into networks and rename their keys.

    Raises:
        CheckpointError: it holds keys of something else.
    """
    parts: dict[str, dict[str, Tensor]] = {UNET_PREFIX: {}, VAE_PREFIX: {}, TEXT_PREFIX: {}}
    unknown = []
    for key, value in state.items():
        prefix = next((p for p in parts if key.startswith(p)), None)
        if prefix is not None:
            parts[prefix][key.removeprefix(prefix)] = value
        elif not _SCHEDULE.fullmatch(key):
            unknown.append(key)
    if unknown:
        raise CheckpointError(
            f"{len(unknown)} keys are not MVDream's: {', '.join(unknown[:5])}.",
            hint="sd-v2.1-base-4view.pt of MVDream/MVDream was expected.",
        )
    return OriginalWeights(
        parts[UNET_PREFIX], map_vae(parts[VAE_PREFIX]), map_text(parts[TEXT_PREFIX])
    )


def map_vae(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Rename the autoencoder's keys; 1x1 convolutions of the attention become linear layers."""
    levels = len({m[1] for key in state if (m := re.match(r"decoder\.up\.(\d+)\.", key))})
    return {_vae_key(key, levels): _vae_value(key, value) for key, value in state.items()}


def _vae_key(key: str, levels: int) -> str:
    for pattern, replacement in _VAE_RULES:
        key = pattern.sub(replacement, key)
    return _UP_LEVEL.sub(lambda m: f"decoder.up_blocks.{levels - 1 - int(m[1])}.", key)


def _vae_value(key: str, value: Tensor) -> Tensor:
    return value[:, :, 0, 0] if ".attn_1." in key and value.ndim == 4 else value


def map_text(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Rename OpenCLIP's text tower, without its last block, which is never run.

    Raises:
        CheckpointError: a key is not of the text tower.
    """
    last = max((int(m[1]) for key in state if (m := _BLOCK.match(key))), default=-1)
    mapped: dict[str, Tensor] = {}
    for key, value in state.items():
        block = _BLOCK.match(key)
        if block is None:
            if key not in _DROPPED_TEXT:
                mapped[_text_end(key)] = value
        elif int(block[1]) < last:
            mapped |= _text_block(f"text_model.encoder.layers.{block[1]}.", block[2], value)
    return mapped


def _text_end(key: str) -> str:
    if key not in _TEXT_ENDS:
        raise CheckpointError(f"{key!r} is not a key of OpenCLIP's text tower.")
    return _TEXT_ENDS[key]


def _text_block(prefix: str, key: str, value: Tensor) -> dict[str, Tensor]:
    if key.startswith("attn.in_proj_"):
        kind = key.removeprefix("attn.in_proj_")
        parts = zip("qkv", value.chunk(3), strict=True)
        return {f"{prefix}self_attn.{name}_proj.{kind}": part for name, part in parts}
    for old, new in _IN_TEXT_BLOCK.items():
        if key.startswith(old):
            return {prefix + new + key.removeprefix(old): value}
    raise CheckpointError(f"{key!r} is not a key of a block of OpenCLIP's text tower.")
