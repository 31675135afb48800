"""DINOv2 whose norms are scaled and shifted by the camera (spec section 4)."""

from __future__ import annotations

from typing import cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from dream_cad.nn.dinov2 import Dinov2Config, Dinov2Embeddings, Dinov2Layer
from dream_cad.nn.embeddings import interpolate_position_embeddings

IMAGE_MEAN = (0.485, 0.456, 0.406)
IMAGE_STD = (0.229, 0.224, 0.225)


class Modulation(nn.Module):
    """Scale and shift from a condition; the key of the layer is ``linear2``."""

    def __init__(self, width: int, condition_width: int) -> None:
        super().__init__()
        self.linear2 = nn.Linear(condition_width, 2 * width)

    def forward(self, x: Tensor, condition: Tensor) -> Tensor:
        """Modulate tokens (B, N, C) by conditions (B, D)."""
        scale, shift = self.linear2(F.silu(condition)).unsqueeze(1).chunk(2, dim=-1)
        out: Tensor = x * (1 + scale) + shift
        return out


class ModulatedLayer(Dinov2Layer):
    """A DINOv2 layer whose two norms are modulated."""

    def __init__(self, config: Dinov2Config, condition_width: int) -> None:
        super().__init__(config)
        self.norm1_modulation = Modulation(config.hidden_size, condition_width)
        self.norm2_modulation = Modulation(config.hidden_size, condition_width)

    def modulate(self, x: Tensor, condition: Tensor) -> Tensor:
        """Map tokens (B, N, C) under conditions (B, D) to (B, N, C)."""
        attended = self.attention(self.norm1_modulation(self.norm1(x), condition))
        x = x + self.layer_scale1(attended)
        hidden = self.mlp(self.norm2_modulation(self.norm2(x), condition))
        out: Tensor = x + self.layer_scale2(hidden)
        return out


class ScaledEmbeddings(Dinov2Embeddings):
    """Embeddings whose position table is resampled by DINO's scale factor, not by its size."""

    def positions(self, height: int, width: int) -> Tensor:
        """Return the position table (1, 1 + height * width, C) for a grid of patches."""
        return interpolate_position_embeddings(self.position_embeddings, height, width, "scale")


class _Encoder(nn.Module):
    def __init__(self, config: Dinov2Config, condition_width: int) -> None:
        super().__init__()
        self.layer = nn.ModuleList(
            ModulatedLayer(config, condition_width) for _ in range(config.num_hidden_layers)
        )


class ModulatedDinov2(nn.Module):
    """DINOv2 returning all tokens under a condition."""

    def __init__(self, config: Dinov2Config, condition_width: int) -> None:
        super().__init__()
        self.embeddings = ScaledEmbeddings(config)
        self.encoder = _Encoder(config, condition_width)
        self.layernorm = nn.LayerNorm(config.hidden_size, eps=config.layer_norm_eps)

    def forward(self, images: Tensor, condition: Tensor) -> Tensor:
        """Map normalised pictures (B, 3, H, W) and conditions (B, D) to tokens (B, N, C)."""
        x = self.embeddings(images)
        for layer in self.encoder.layer:
            x = cast(ModulatedLayer, layer).modulate(x, condition)
        out: Tensor = self.layernorm(x)
        return out


class ImageTokenizer(nn.Module):
    """ImageNet normalisation and the modulated DINOv2."""

    def __init__(self, config: Dinov2Config, condition_width: int) -> None:
        super().__init__()
        self.model = ModulatedDinov2(config, condition_width)

    def forward(self, images: Tensor, condition: Tensor) -> Tensor:
        """Map pictures (B, 3, S, S) in [0, 1] and conditions (B, D) to tokens (B, N, C)."""
        mean, std = (
            torch.tensor(values, device=images.device).view(1, 3, 1, 1)
            for values in (IMAGE_MEAN, IMAGE_STD)
        )
        normalised = ((images - mean) / std).to(self.model.layernorm.weight.dtype)
        out: Tensor = self.model(normalised, condition)
        return out
