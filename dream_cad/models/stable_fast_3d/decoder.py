"""From token planes to the field: upsampling, sampling, and the four heads (spec 7 and 8)."""

from __future__ import annotations

import itertools

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from dream_cad.models.stable_fast_3d.config import (
    DecoderConfig,
    HeadActivation,
    HeadConfig,
    PostProcessorConfig,
)

_MIN_LENGTH = 1e-7


class PostProcessor(nn.Module):
    """Convolutions with ReLU between, then a pixel shuffle; planes do not mix."""

    def __init__(self, config: PostProcessorConfig) -> None:
        super().__init__()
        self.config = config
        kernel = config.conv_kernel_size
        widths = [config.in_channels] * config.conv_layers
        layers: list[nn.Module] = []
        for width_in, width_out in itertools.pairwise(widths):
            layers += [nn.Conv2d(width_in, width_out, kernel, padding="same"), nn.ReLU()]
        last = config.out_channels * config.scale_factor**2
        layers.append(nn.Conv2d(config.in_channels, last, kernel, padding="same"))
        self.upsample = nn.Sequential(*layers, nn.PixelShuffle(config.scale_factor))

    def forward(self, planes: Tensor) -> Tensor:
        """Map planes (B, 3, C, p, p) to (B, 3, out_channels, s * p, s * p)."""
        scale, (height, width) = self.config.scale_factor, planes.shape[-2:]
        size = (self.config.out_channels, scale * height, scale * width)
        if planes.requires_grad:
            return self._upsample(planes.flatten(0, 1)).view(*planes.shape[:2], *size)
        # One plane after the other: the wide layers of three would take three times the memory.
        done = [self._upsample(plane) for plane in torch.split(planes.flatten(0, 1), 1)]
        return torch.cat(done).view(*planes.shape[:2], *size)

    def _upsample(self, planes: Tensor) -> Tensor:
        out: Tensor = self.upsample(planes)
        return out


class MaterialMLP(nn.Module):
    """The heads of the decoder, each an MLP of its own on the sampled features."""

    def __init__(self, config: DecoderConfig) -> None:
        super().__init__()
        self.config = {head.name: head for head in config.heads}
        self.heads = nn.ModuleDict({name: _mlp(config, head) for name, head in self.config.items()})

    def raw(self, name: str, features: Tensor) -> Tensor:
        """Return a head's last layer (..., channels), before bias and activation."""
        out: Tensor = self.heads[name](features)
        return out

    def forward(self, features: Tensor, *names: str) -> dict[str, Tensor]:
        """Return the heads' values (..., channels) at features (..., in_channels), by name."""
        values = {}
        for name in names or self.config:
            head = self.config[name]
            values[name] = activate(self.raw(name, features) + head.out_bias, head)
        return values


def activate(values: Tensor, head: HeadConfig) -> Tensor:
    """Apply a head's activation."""
    kind: HeadActivation = head.output_activation
    if kind == "trunc_exp":
        return values.exp()
    if kind == "sigmoid":
        return values.sigmoid()
    if kind == "normalize_channel_last":
        return F.normalize(values, dim=-1, eps=_MIN_LENGTH)
    return values


def _mlp(config: DecoderConfig, head: HeadConfig) -> nn.Sequential:
    widths = [config.in_channels] + [config.n_neurons] * head.n_hidden_layers
    layers: list[nn.Module] = []
    for width_in, width_out in itertools.pairwise(widths):
        layers += [nn.Linear(width_in, width_out), nn.SiLU()]
    return nn.Sequential(*layers, nn.Linear(widths[-1], head.out_channels))
