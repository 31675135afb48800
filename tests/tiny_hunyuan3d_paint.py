"""Tiny paint and delight checkpoints in the published layout, with random weights."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch
from diffusers import UNet2DConditionModel
from safetensors.torch import save_file
from torch import nn

from dream_cad.models.hunyuan3d_mini.paint.diffusion import PaintDiffusion
from dream_cad.models.hunyuan3d_mini.paint.vae import create_vae
from dream_cad.models.hunyuan3d_mini.paint.weights import (
    DELIGHT_FOLDER,
    PAINT_FOLDERS,
    PaintVariant,
)
from dream_cad.nn.clip_text import TextConfig, TextEncoder

UNET = {
    "sample_size": 8,
    "in_channels": 4,
    "out_channels": 4,
    "down_block_types": ["CrossAttnDownBlock2D", "DownBlock2D"],
    "up_block_types": ["UpBlock2D", "CrossAttnUpBlock2D"],
    "block_out_channels": [16, 32],
    "layers_per_block": 1,
    "attention_head_dim": [2, 4],
    "cross_attention_dim": 32,
    "norm_num_groups": 8,
    "use_linear_projection": True,
}
VAE = {
    "in_channels": 3,
    "out_channels": 3,
    "down_block_types": ["DownEncoderBlock2D"] * 4,
    "up_block_types": ["UpDecoderBlock2D"] * 4,
    "block_out_channels": [8, 8, 8, 8],
    "layers_per_block": 1,
    "norm_num_groups": 4,
    "latent_channels": 4,
    "sample_size": 64,
}
TEXT = TextConfig(hidden_size=32, intermediate_size=32, num_hidden_layers=1, num_attention_heads=2)
_BETAS = {
    "num_train_timesteps": 1000,
    "beta_start": 0.00085,
    "beta_end": 0.012,
    "beta_schedule": "scaled_linear",
    "prediction_type": "v_prediction",
    "steps_offset": 1,
}
PAINT_SCHEDULER = {
    **_BETAS,
    "_class_name": "DDIMScheduler",
    "rescale_betas_zero_snr": True,
    "timestep_spacing": "trailing",
}
DELIGHT_SCHEDULER = {**PAINT_SCHEDULER, "rescale_betas_zero_snr": False} | {
    "timestep_spacing": "leading"
}


def tiny_diffusion(variant: PaintVariant = "turbo") -> PaintDiffusion:
    """Random networks that take pictures whose sides are multiples of 16."""
    torch.manual_seed(0)
    return PaintDiffusion.from_config(UNET, VAE, PAINT_SCHEDULER, variant=variant)


def write_paint(root: Path, variant: PaintVariant = "turbo") -> Path:
    """Write one variant below ``root`` and return ``root``."""
    diffusion, folder = tiny_diffusion(variant), root / PAINT_FOLDERS[variant]
    _save(diffusion.unet, folder / "unet", UNET)
    _save(diffusion.codec.vae, folder / "vae", VAE)
    _write_scheduler(folder, PAINT_SCHEDULER)
    return root


def write_delight(root: Path) -> Path:
    """Write the delight folder below ``root`` and return ``root``."""
    torch.manual_seed(0)
    folder, config = root / DELIGHT_FOLDER, UNET | {"in_channels": 8}
    _save(UNet2DConditionModel(**config), folder / "unet", config)
    _save(create_vae(VAE), folder / "vae", VAE)
    encoder = TextEncoder(TEXT)
    _save(encoder, folder / "text_encoder", asdict(TEXT), "model.safetensors")
    _write_scheduler(folder, DELIGHT_SCHEDULER)
    return root


def _write_scheduler(folder: Path, config: Mapping[str, Any]) -> None:
    (folder / "scheduler").mkdir()
    (folder / "scheduler" / "scheduler_config.json").write_text(json.dumps(config))


def _save(
    module: nn.Module,
    folder: Path,
    config: Mapping[str, Any],
    file: str = "diffusion_pytorch_model.safetensors",
) -> None:
    folder.mkdir(parents=True)
    state = {key: value.half().contiguous() for key, value in module.state_dict().items()}
    save_file(state, folder / file)
    (folder / "config.json").write_text(json.dumps(config))
