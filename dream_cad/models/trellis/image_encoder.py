"""DINOv2 with registers under the keys of its published checkpoint (spec, section 3)."""

from __future__ import annotations

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from dream_cad.nn.dinov2 import GeluMLP

_MEAN, _STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)


@dataclass(frozen=True)
class ImageEncoderConfig:
    """Sizes; the defaults are ViT-L/14 with four registers."""

    img_size: int = 518
    patch_size: int = 14
    embed_dim: int = 1024
    depth: int = 24
    num_heads: int = 16
    num_register_tokens: int = 4
    mlp_ratio: int = 4
    norm_eps: float = 1e-6


class _Attention(nn.Module):
    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.qkv = nn.Linear(width, 3 * width)
        self.proj = nn.Linear(width, width)

    def forward(self, x: Tensor) -> Tensor:
        parts = self.qkv(x).unflatten(-1, (3, self.heads, -1)).unbind(-3)
        q, k, v = (part.transpose(1, 2) for part in parts)
        values = F.scaled_dot_product_attention(q, k, v).transpose(1, 2)
        out: Tensor = self.proj(values.flatten(-2))
        return out


class _LayerScale(nn.Module):
    def __init__(self, width: int) -> None:
        super().__init__()
        self.gamma = nn.Parameter(torch.ones(width))

    def forward(self, x: Tensor) -> Tensor:
        return x * self.gamma


class ImageEncoderBlock(nn.Module):
    """Pre-norm block with scaled residual branches."""

    def __init__(self, width: int, heads: int, ratio: int = 4, eps: float = 1e-6) -> None:
        super().__init__()
        self.norm1 = nn.LayerNorm(width, eps=eps)
        self.attn = _Attention(width, heads)
        self.ls1 = _LayerScale(width)
        self.norm2 = nn.LayerNorm(width, eps=eps)
        self.mlp = GeluMLP(width, width * ratio)
        self.ls2 = _LayerScale(width)

    def forward(self, x: Tensor) -> Tensor:
        """Map (B, N, C) to (B, N, C)."""
        x = x + self.ls1(self.attn(self.norm1(x)))
        out: Tensor = x + self.ls2(self.mlp(self.norm2(x)))
        return out


class _PatchEmbed(nn.Module):
    def __init__(self, width: int, patch: int) -> None:
        super().__init__()
        self.proj = nn.Conv2d(3, width, kernel_size=patch, stride=patch)


class ImageEncoder(nn.Module):
    """Tokens of an image: CLS, registers, patches, before the final norm."""

    mean: Tensor
    std: Tensor

    def __init__(self, config: ImageEncoderConfig) -> None:
        super().__init__()
        width, grid = config.embed_dim, config.img_size // config.patch_size
        self.config = config
        self.cls_token = nn.Parameter(torch.zeros(1, 1, width))
        self.pos_embed = nn.Parameter(torch.zeros(1, 1 + grid**2, width))
        self.register_tokens = nn.Parameter(torch.zeros(1, config.num_register_tokens, width))
        self.mask_token = nn.Parameter(torch.zeros(1, width))
        self.patch_embed = _PatchEmbed(width, config.patch_size)
        self.blocks = nn.ModuleList(
            ImageEncoderBlock(width, config.num_heads, config.mlp_ratio, config.norm_eps)
            for _ in range(config.depth)
        )
        # Present in the checkpoint; the condition is taken before it.
        self.norm = nn.LayerNorm(width, eps=config.norm_eps)
        self.register_buffer("mean", torch.tensor(_MEAN).view(3, 1, 1), persistent=False)
        self.register_buffer("std", torch.tensor(_STD).view(3, 1, 1), persistent=False)

    def place_constants(self, device: torch.device) -> None:
        """Make the constants that no checkpoint holds; needed after building on meta."""
        self.mean = torch.tensor(_MEAN, device=device).view(3, 1, 1)
        self.std = torch.tensor(_STD, device=device).view(3, 1, 1)

    def tokens(self, images: Tensor) -> Tensor:
        """Map RGB (B, 3, S, S) in [0, 1] to tokens (B, 1 + registers + patches, C)."""
        patches = self.patch_embed.proj((images - self.mean) / self.std)
        x = patches.flatten(2).transpose(1, 2)
        batch = len(x)
        x = torch.cat((self.cls_token.expand(batch, -1, -1), x), dim=1) + self.pos_embed
        registers = self.register_tokens.expand(batch, -1, -1)
        x = torch.cat((x[:, :1], registers, x[:, 1:]), dim=1)
        for block in self.blocks:
            x = block(x)
        out: Tensor = x
        return out

    def forward(self, images: Tensor) -> Tensor:
        """Map RGB (B, 3, S, S) in [0, 1] to the condition (B, N, C), normalised token by token."""
        tokens = self.tokens(images)
        return F.layer_norm(tokens, tokens.shape[-1:])
