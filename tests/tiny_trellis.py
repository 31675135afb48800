"""Tiny TRELLIS checkpoints in the published layout, for pictures and for text."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file
from torch import Tensor, nn

from dream_cad.models.trellis.image_encoder import ImageEncoder, ImageEncoderConfig
from dream_cad.models.trellis.network import torso_keys
from dream_cad.models.trellis.pipeline_file import BUILDERS
from dream_cad.nn.clip_text import TextConfig, TextEncoder
from tests.tiny_mvdream import PROMPT, write_tokenizer

__all__ = ["PROMPT", "hub_state", "write_checkpoint", "write_text_checkpoint"]

SIDE = 8
"""Voxels along an axis of the structured latent."""

Args = dict[str, Any]

_WIDTH = 48
_FLOW: Args = {
    "in_channels": 8,
    "out_channels": 8,
    "model_channels": 64,
    "cond_channels": _WIDTH,
    "num_blocks": 1,
    "num_heads": 4,
    "mlp_ratio": 2,
    "pe_mode": "ape",
    "qk_rms_norm": True,
    "use_fp16": True,
}
_STRUCTURE_FLOW: Args = _FLOW | {"resolution": SIDE // 4, "patch_size": 1}
_LATENT_FLOW: Args = _FLOW | {
    "resolution": SIDE,
    "patch_size": 2,
    "num_io_res_blocks": 2,
    "io_block_channels": [24],
}
_DECODER: Args = {
    "resolution": SIDE,
    "model_channels": 64,
    "latent_channels": 8,
    "num_blocks": 2,
    "num_heads": 4,
    "mlp_ratio": 2,
    "attn_mode": "swin",
    "window_size": 4,
    "use_fp16": True,
}
_GAUSSIANS: Args = {
    "lr": {"_xyz": 1.0, "_features_dc": 1.0, "_opacity": 1.0, "_scaling": 1.0, "_rotation": 0.1},
    "perturb_offset": True,
    "voxel_size": 1.5,
    "num_gaussians": 8,
    "2d_filter_kernel_size": 0.1,
    "3d_filter_kernel_size": 0.0009,
    "scaling_bias": 0.004,
    "opacity_bias": 0.9,  # not the published 0.1: splats of random weights would show nothing
    "scaling_activation": "softplus",
}
_DECODERS: dict[str, tuple[str, str, Args]] = {
    "sparse_structure_decoder": (
        "ss_dec_conv3d_16l8_fp16",
        "SparseStructureDecoder",
        {
            "out_channels": 1,
            "latent_channels": 8,
            "num_res_blocks": 1,
            "num_res_blocks_middle": 1,
            "channels": [16, 8, 8],
            "use_fp16": True,
        },
    ),
    "slat_decoder_gs": (
        "slat_dec_gs_swin8_B_64l8gs32_fp16",
        "SLatGaussianDecoder",
        _DECODER | {"representation_config": _GAUSSIANS},
    ),
    "slat_decoder_rf": (
        "slat_dec_rf_swin8_B_64l8r16_fp16",
        "SLatRadianceFieldDecoder",
        _DECODER | {"representation_config": {"rank": 4, "dim": 4}},
    ),
    "slat_decoder_mesh": (
        "slat_dec_mesh_swin8_B_64l8m256c_fp16",
        "SLatMeshDecoder",
        _DECODER | {"model_channels": 256, "representation_config": {"use_color": True}},
    ),
}
_FLOWS: dict[str, tuple[str, str, Args]] = {
    "sparse_structure_flow_model": (
        "ss_flow_img_dit_L_16l8_fp16",
        "SparseStructureFlowModel",
        _STRUCTURE_FLOW,
    ),
    "slat_flow_model": ("slat_flow_img_dit_L_64l8p2_fp16", "SLatFlowModel", _LATENT_FLOW),
}
_DINOV2 = ImageEncoderConfig(img_size=42, embed_dim=_WIDTH, depth=1, num_heads=3)


def write_checkpoint(folder: Path) -> Path:
    """Write the image variant with its DINOv2 in the hub's layout, and return the folder."""
    torch.manual_seed(0)
    for stem, name, args in (_DECODERS | _FLOWS).values():
        _write_network(folder, stem, name, args)
    models = {role: f"ckpts/{row[0]}" for role, row in (_DECODERS | _FLOWS).items()}
    _write_pipeline(folder, "TrellisImageTo3DPipeline", models, image_cond_model="dinov2_tiny")
    encoder = ImageEncoder(_DINOV2)
    for parameter in encoder.parameters():
        nn.init.normal_(parameter, std=0.3)
    path = folder / "dinov2" / "model.safetensors"
    path.parent.mkdir()
    save_file(hub_state(encoder), path)
    sizes = {
        "image_size": _DINOV2.img_size,
        "hidden_size": _DINOV2.embed_dim,
        "num_hidden_layers": _DINOV2.depth,
        "num_attention_heads": _DINOV2.num_heads,
    }
    (path.parent / "config.json").write_text(json.dumps(sizes))
    return folder


def write_text_checkpoint(folder: Path, image_folder: str = "TRELLIS-image-large") -> Path:
    """Write a text variant, whose decoders lie beside it in ``image_folder``, and its CLIP."""
    torch.manual_seed(1)
    models: dict[str, str] = {}
    for role, (stem, name, args) in _FLOWS.items():
        own = stem.replace("img_dit_L", "txt_dit_B")
        _write_network(folder, own, name, args)
        models[role] = f"ckpts/{own}"
    models |= {role: f"someone/{image_folder}/ckpts/{row[0]}" for role, row in _DECODERS.items()}
    _write_pipeline(folder, "TrellisTextTo3DPipeline", models, text_cond_model="openai/clip-tiny")
    tokens = folder / "clip-tiny"
    write_tokenizer(tokens)
    vocab = len(json.loads((tokens / "vocab.json").read_text()))
    sizes = {
        "vocab_size": vocab,
        "hidden_size": _WIDTH,
        "intermediate_size": 96,
        "num_hidden_layers": 2,
        "num_attention_heads": 4,
    }
    encoder = TextEncoder(TextConfig(**sizes, hidden_act="quick_gelu"))
    state = {key: value.contiguous() for key, value in encoder.state_dict().items()}
    save_file(state | {"logit_scale": torch.ones(())}, tokens / "model.safetensors")
    (tokens / "config.json").write_text(json.dumps({"text_config": sizes}))
    return folder


def _write_pipeline(folder: Path, name: str, models: dict[str, str], **encoder: str) -> None:
    sampler = {
        "name": "FlowEulerGuidanceIntervalSampler",
        "args": {"sigma_min": 1e-05},
        "params": {
            "steps": 3,
            "cfg_strength": 2.0,
            "cfg_interval": [0.5, 1.0],
            "rescale_t": 3.0,
        },
    }
    args = {
        "models": models,
        "sparse_structure_sampler": sampler,
        "slat_sampler": sampler,
        "slat_normalization": {"mean": [0.0] * 8, "std": [1.0] * 8},
    }
    (folder / "pipeline.json").write_text(json.dumps({"name": name, "args": args | encoder}))


def _write_network(folder: Path, stem: str, name: str, args: Args) -> None:
    """Write a network's JSON and its weights, the torso in half precision as published."""
    (folder / "ckpts").mkdir(parents=True, exist_ok=True)
    network = BUILDERS[name](dict(args))
    half = torso_keys(network)
    state = {
        key: (value.half() if key in half else value).contiguous()
        for key, value in network.state_dict().items()
    }
    save_file(state, folder / "ckpts" / f"{stem}.safetensors")
    data = {"name": name, "args": args}
    (folder / "ckpts" / f"{stem}.json").write_text(json.dumps(data))


def hub_state(encoder: ImageEncoder) -> dict[str, Tensor]:
    """The image encoder's tensors under the keys of the hub's file."""
    names = {
        "cls_token": "embeddings.cls_token",
        "mask_token": "embeddings.mask_token",
        "pos_embed": "embeddings.position_embeddings",
        "register_tokens": "embeddings.register_tokens",
        "patch_embed.proj.weight": "embeddings.patch_embeddings.projection.weight",
        "patch_embed.proj.bias": "embeddings.patch_embeddings.projection.bias",
        "norm.weight": "layernorm.weight",
        "norm.bias": "layernorm.bias",
    }
    inner = {
        "ls1.gamma": "layer_scale1.lambda1",
        "ls2.gamma": "layer_scale2.lambda1",
        "attn.proj.weight": "attention.output.dense.weight",
        "attn.proj.bias": "attention.output.dense.bias",
    }
    state: dict[str, Tensor] = {}
    for key, value in encoder.state_dict().items():
        if key in names:
            state[names[key]] = value.contiguous()
            continue
        _, index, name = key.split(".", 2)
        prefix = f"encoder.layer.{index}."
        if name.startswith("attn.qkv."):
            kind = name.removeprefix("attn.qkv.")
            for part, rows in zip(("query", "key", "value"), value.chunk(3), strict=True):
                state[f"{prefix}attention.attention.{part}.{kind}"] = rows.contiguous()
        else:
            state[prefix + inner.get(name, name)] = value.contiguous()
    return state
