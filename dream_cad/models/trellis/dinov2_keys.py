"""Keys of DINOv2 with registers: the hub's (transformers) to those of the original file."""

from __future__ import annotations

import re
from collections.abc import Mapping

import torch
from torch import Tensor

from dream_cad.exceptions import CheckpointError

_ENDS = {
    "embeddings.cls_token": "cls_token",
    "embeddings.mask_token": "mask_token",
    "embeddings.position_embeddings": "pos_embed",
    "embeddings.register_tokens": "register_tokens",
    "embeddings.patch_embeddings.projection.weight": "patch_embed.proj.weight",
    "embeddings.patch_embeddings.projection.bias": "patch_embed.proj.bias",
    "layernorm.weight": "norm.weight",
    "layernorm.bias": "norm.bias",
}
# transformers 5 shortened two of the names.
_IN_BLOCK = {
    "attention.output.dense.": "attn.proj.",
    "attention.o_proj.": "attn.proj.",
    "layer_scale1.lambda1": "ls1.gamma",
    "layer_scale2.lambda1": "ls2.gamma",
    "norm1.": "norm1.",
    "norm2.": "norm2.",
    "mlp.": "mlp.",
}
_BLOCK = re.compile(r"encoder\.layer\.(\d+)\.(.+)")
_QKV = re.compile(r"attention\.(?:attention\.)?(query|key|value|q_proj|k_proj|v_proj)\.(\w+)")


def is_hub_layout(state: Mapping[str, Tensor]) -> bool:
    """Tell the hub's file from the original one."""
    return "embeddings.cls_token" in state


def from_hub(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Rename the hub's keys; query, key and value become one matrix.

    Raises:
        CheckpointError: a key is of something else, or a part of an attention is missing.
    """
    mapped: dict[str, Tensor] = {}
    parts: dict[str, dict[str, Tensor]] = {}
    for key, value in state.items():
        block = _BLOCK.fullmatch(key)
        if block is None:
            mapped[_end(key)] = value
        elif found := _QKV.fullmatch(block[2]):
            parts.setdefault(f"blocks.{block[1]}.attn.qkv.{found[2]}", {})[found[1][0]] = value
        else:
            mapped[f"blocks.{block[1]}.{_in_block(block[2])}"] = value
    for key, by_name in parts.items():
        if set(by_name) != {"q", "k", "v"}:
            raise CheckpointError(f"{key} lacks its query, key or value.")
        mapped[key] = torch.cat([by_name[name] for name in "qkv"])
    return mapped


def _end(key: str) -> str:
    if key not in _ENDS:
        raise CheckpointError(f"{key!r} is not a key of DINOv2 with registers.")
    return _ENDS[key]


def _in_block(key: str) -> str:
    for old, new in _IN_BLOCK.items():
        if key.startswith(old):
            return new + key.removeprefix(old)
    raise CheckpointError(f"{key!r} is not a key of a block of DINOv2 with registers.")
