"""A Stable Fast 3D checkpoint of tiny size whose mesh is a lumpy ball, other for each picture."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from safetensors.torch import save_file

from dream_cad.models.stable_fast_3d.config import StableFast3DConfig
from dream_cad.models.stable_fast_3d.config_file import write_config
from dream_cad.models.stable_fast_3d.network import StableFast3DNetwork

# The first channel of each plane falls as 1 - r^2: the three add up to 3 - 2 r^2.
_SURFACE_SUM = 3 - 2 * 0.6**2
_STEEPNESS = 4.0
_INFLUENCE = 0.02


@torch.no_grad()
def make_network(config: StableFast3DConfig | None = None) -> StableFast3DNetwork:
    """Random weights, but for the parts that make the ball."""
    config = config or StableFast3DConfig.tiny()
    torch.manual_seed(0)
    network = StableFast3DNetwork(config).eval()
    for parameter in network.image_estimator.parameters():
        if parameter.ndim > 1:
            parameter.normal_(std=0.1)
    network.backbone.proj_out.weight.mul_(_INFLUENCE)
    network.backbone.proj_out.bias.zero_()
    axis = torch.linspace(-1, 1, config.plane_size)
    ball = 1 - axis[:, None] ** 2 - axis[None] ** 2
    network.tokenizer.embeddings[:, 0] = ball + 1  # above zero, for the ReLUs
    _pass_through(network, config)
    _density(network, config)
    return network


def _pass_through(network: StableFast3DNetwork, config: StableFast3DConfig) -> None:
    convolutions = [m for m in network.post_processor.upsample if isinstance(m, torch.nn.Conv2d)]
    for layer in convolutions:
        shuffled = config.post_processor.scale_factor**2 if layer is convolutions[-1] else 1
        layer.weight[:shuffled] = 0.0
        layer.weight[:shuffled, 0, 1, 1] = 1.0
        layer.bias[:shuffled] = 0.0


def _density(network: StableFast3DNetwork, config: StableFast3DConfig) -> None:
    layers = list(network.decoder.heads["density"])
    first, last = layers[0], layers[-1]
    first.weight[0] = 0.0
    first.weight[0, :: config.post_processor.out_channels] = 1.0
    first.bias[0] = 0.0
    level = torch.tensor(_SURFACE_SUM + 3)
    for layer in layers[1:-1]:
        if isinstance(layer, torch.nn.Linear):
            layer.weight[0] = 0.0
            layer.weight[0, 0] = 1.0
            layer.bias[0] = 0.0
        else:
            level = F.silu(level)
    last.weight[0] = 0.0
    last.weight[0, 0] = _STEEPNESS
    last.bias[0] = config.threshold_logit - _STEEPNESS * level


def write_checkpoint(folder: Path, network: StableFast3DNetwork | None = None) -> Path:
    """Write ``config.yaml`` and the weights file; returns the folder."""
    network = network or make_network()
    folder.mkdir(parents=True, exist_ok=True)
    write_config(network.config, folder / "config.yaml")
    state: dict[str, Any] = {key: v.contiguous() for key, v in network.state_dict().items()}
    save_file(state, folder / "model.safetensors")
    return folder
