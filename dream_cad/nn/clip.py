"""CLIP's image encoder with the key names of open_clip checkpoints (Radford et al. 2021)."""

from __future__ import annotations

from collections import OrderedDict
from dataclasses import dataclass, field

import torch
from torch import Tensor, nn

_LAYER_NORM_EPS = 1e-5


@dataclass(frozen=True)
class ClipTextConfig:
    """The text tower, which only completes a checkpoint: nothing here reads it."""

    context_length: int = 77
    vocab_size: int = 49408
    width: int = 512
    heads: int = 8
    layers: int = 12


@dataclass(frozen=True)
class ClipConfig:
    """Sizes of a CLIP; the defaults are ViT-B/32.

    Attributes:
        embed_dim: channels of the feature.
        image_size: side of the picture in pixels.
        layers: blocks of the image encoder.
        width: channels of its tokens.
        heads: attention heads.
        patch_size: side of a patch in pixels.
        text: sizes of the text tower.
    """

    embed_dim: int = 512
    image_size: int = 224
    layers: int = 12
    width: int = 768
    heads: int = 12
    patch_size: int = 32
    text: ClipTextConfig = field(default_factory=ClipTextConfig)


class ClipBlock(nn.Module):
    """Pre-norm block: self-attention, then an exact-GELU feed-forward four times as wide."""

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.ln_1 = nn.LayerNorm(width, eps=_LAYER_NORM_EPS)
        self.attn = nn.MultiheadAttention(width, heads, batch_first=True)
        self.ln_2 = nn.LayerNorm(width, eps=_LAYER_NORM_EPS)
        self.mlp = nn.Sequential(
            OrderedDict(
                c_fc=nn.Linear(width, 4 * width), gelu=nn.GELU(), c_proj=nn.Linear(4 * width, width)
            )
        )

    def forward(self, x: Tensor) -> Tensor:
        """Map (B, N, C) to (B, N, C)."""
        normed = self.ln_1(x)
        x = x + self.attn(normed, normed, normed, need_weights=False)[0]
        out: Tensor = x + self.mlp(self.ln_2(x))
        return out


class _Transformer(nn.Module):
    def __init__(self, width: int, heads: int, layers: int) -> None:
        super().__init__()
        self.resblocks = nn.ModuleList(ClipBlock(width, heads) for _ in range(layers))


class ClipVision(nn.Module):
    """Picture to one feature vector, not normalised."""

    def __init__(self, config: ClipConfig) -> None:
        super().__init__()
        width, grid = config.width, config.image_size // config.patch_size
        self.class_embedding = nn.Parameter(torch.zeros(width))
        self.positional_embedding = nn.Parameter(torch.zeros(1 + grid**2, width))
        self.proj = nn.Parameter(torch.zeros(width, config.embed_dim))
        patch = config.patch_size
        self.conv1 = nn.Conv2d(3, width, kernel_size=patch, stride=patch, bias=False)
        self.ln_pre = nn.LayerNorm(width, eps=_LAYER_NORM_EPS)
        self.transformer = _Transformer(width, config.heads, config.layers)
        self.ln_post = nn.LayerNorm(width, eps=_LAYER_NORM_EPS)

    def forward(self, images: Tensor) -> Tensor:
        """Map normalised pictures (B, 3, S, S) to features (B, embed_dim)."""
        patches = self.conv1(images).flatten(2).transpose(1, 2)
        first = self.class_embedding.expand(len(patches), 1, -1)
        x = self.ln_pre(torch.cat((first, patches), dim=1) + self.positional_embedding)
        for block in self.transformer.resblocks:
            x = block(x)
        out: Tensor = self.ln_post(x[:, 0]) @ self.proj
        return out


class Clip(nn.Module):
    """The towers under the names of an open_clip checkpoint.

    Args:
        config: sizes.
        with_text: build the text tower too, as checkpoint files hold it; nothing reads it.
    """

    def __init__(self, config: ClipConfig, *, with_text: bool = False) -> None:
        super().__init__()
        self.config = config
        self.visual = ClipVision(config)
        if with_text:
            text = config.text
            self.positional_embedding = nn.Parameter(torch.zeros(text.context_length, text.width))
            self.text_projection = nn.Parameter(torch.zeros(text.width, config.embed_dim))
            self.logit_scale = nn.Parameter(torch.zeros(()))
            self.transformer = _Transformer(text.width, text.heads, text.layers)
            self.token_embedding = nn.Embedding(text.vocab_size, text.width)
            self.ln_final = nn.LayerNorm(text.width, eps=_LAYER_NORM_EPS)
