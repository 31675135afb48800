"""A tiny Hunyuan3D-2mini checkpoint in the published layout, with a surface to extract."""

from __future__ import annotations

from pathlib import Path

import torch
import yaml
from safetensors.torch import save_file

from dream_cad.models.hunyuan3d_mini.config import Hunyuan3DConfig, Variant
from dream_cad.models.hunyuan3d_mini.field import ExactField
from dream_cad.models.hunyuan3d_mini.network import Hunyuan3DNetwork
from dream_cad.models.hunyuan3d_mini.weights import FOLDERS
from dream_cad.surface.volume import grid_points


@torch.no_grad()
def tiny_network(variant: Variant = "standard") -> Hunyuan3DNetwork:
    """Random weights whose field is positive in about a third of the cube."""
    torch.manual_seed(0)
    config = Hunyuan3DConfig.tiny(variant)
    network = Hunyuan3DNetwork(config).eval()
    decoder = network.vae.geo_decoder
    latents = torch.randn(1, config.vae.num_latents, config.vae.embed_dim)
    memory = decoder.remember(network.vae.decode(latents))
    logits = ExactField(decoder, memory).coarse(grid_points(16, 1.01))
    decoder.output_proj.weight *= 20.0
    bias = decoder.output_proj.bias
    bias += -20.0 * (logits.quantile(0.66) - bias) - bias
    return network


def write_checkpoint(root: Path, variant: Variant = "standard") -> Path:
    """Write one variant below ``root`` and return ``root``."""
    network = tiny_network(variant)
    folder = root / FOLDERS[variant]
    folder.mkdir(parents=True)
    text = yaml.safe_dump(network.config.to_mapping())
    (folder / "config.yaml").write_text(text, encoding="utf-8")
    state = {key: value.half().contiguous() for key, value in network.state_dict().items()}
    save_file(state, folder / "model.fp16.safetensors")
    return root
