"""A TripoSR checkpoint of tiny size whose mesh is a rounded box, a little different per image."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from PIL import Image, ImageDraw
from safetensors.torch import save_file

from dream_cad.models.triposr.config import TripoSRConfig
from dream_cad.models.triposr.network import TripoSRNetwork

# Sum of the three planes' first channel on the surface: 3 inside, 2 in the middle of a box face.
_SURFACE_SUM = 2.3
_STEEPNESS = 10.0


@torch.no_grad()
def make_network(config: TripoSRConfig | None = None) -> TripoSRNetwork:
    """Random weights, but for the parts that make the box."""
    config = config or TripoSRConfig.tiny()
    torch.manual_seed(0)
    network = TripoSRNetwork(config).eval()
    upsample, layers = network.post_processor.upsample, network.decoder.layers
    upsample.weight.normal_(std=0.01)
    upsample.bias.fill_(1.0)
    first, last = layers[0], layers[-1]
    first.weight[0] = 0.0
    first.weight[0, :: config.out_channels] = 1.0
    first.bias[0] = 0.0
    level = torch.tensor(_SURFACE_SUM)
    for layer in layers[1:-1]:
        if isinstance(layer, torch.nn.Linear):
            layer.weight[0] = 0.0
            layer.weight[0, 0] = 1.0
            layer.bias[0] = 0.0
        else:
            level = F.silu(level)
    last.weight[0] = 0.0
    last.weight[0, 0] = _STEEPNESS
    last.bias[0] = math.log(config.threshold) - config.density_bias - _STEEPNESS * level
    return network


def write_checkpoint(
    folder: Path, *, weights: str = "model.ckpt", network: TripoSRNetwork | None = None
) -> Path:
    """Write ``config.yaml`` and the weights file; returns the folder."""
    network = network or make_network()
    folder.mkdir(parents=True, exist_ok=True)
    network.config.to_yaml(folder / "config.yaml")
    state: dict[str, Any] = {k: v.contiguous() for k, v in network.state_dict().items()}
    if weights.endswith(".safetensors"):
        save_file({key: value.half() for key, value in state.items()}, folder / weights)
    else:
        torch.save(state, folder / weights)
    return folder


def picture(color: str = "red") -> Image.Image:
    """A matted disc, (48, 40) RGBA."""
    image = Image.new("RGBA", (48, 40), (0, 0, 0, 0))
    ImageDraw.Draw(image).ellipse((8, 5, 38, 33), fill=color)
    return image
