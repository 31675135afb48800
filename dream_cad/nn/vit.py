"""Vision transformer with the module names of ``transformers`` 4.x ViT checkpoints."""

from __future__ import annotations

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from dream_cad.nn.attention import merge_heads, split_heads
from dream_cad.nn.embeddings import PositionInterpolation, interpolate_position_embeddings


@dataclass(frozen=True)
class ViTConfig:
    """Sizes of a ViT; the defaults are ViT-B/16 (facebook/dino-vitb16).

    Attributes:
        hidden_size: channels of a token.
        num_hidden_layers: encoder layers.
        num_attention_heads: heads; their width is ``hidden_size // num_attention_heads``.
        intermediate_size: hidden width of the feed-forward.
        image_size: side of the images whose patches the stored position grid covers.
        patch_size: side of a patch in pixels.
        layer_norm_eps: 1e-12 in the published checkpoints.
        position_interpolation: see ``interpolate_position_embeddings``.
    """

    hidden_size: int = 768
    num_hidden_layers: int = 12
    num_attention_heads: int = 12
    intermediate_size: int = 3072
    image_size: int = 224
    patch_size: int = 16
    layer_norm_eps: float = 1e-12
    position_interpolation: PositionInterpolation = "scale"


class PatchEmbeddings(nn.Module):
    """Non-overlapping patches to tokens, row-major."""

    def __init__(self, config: ViTConfig) -> None:
        super().__init__()
        patch = config.patch_size
        self.projection = nn.Conv2d(3, config.hidden_size, kernel_size=patch, stride=patch)

    def forward(self, images: Tensor) -> Tensor:
        """Map (B, 3, H, W) to (B, C, H / patch, W / patch)."""
        out: Tensor = self.projection(images)
        return out


class Embeddings(nn.Module):
    """CLS token, patch tokens and their positions."""

    def __init__(self, config: ViTConfig) -> None:
        super().__init__()
        grid = config.image_size // config.patch_size
        self.mode = config.position_interpolation
        self.cls_token = nn.Parameter(torch.zeros(1, 1, config.hidden_size))
        self.position_embeddings = nn.Parameter(torch.zeros(1, 1 + grid**2, config.hidden_size))
        self.patch_embeddings = PatchEmbeddings(config)
        nn.init.trunc_normal_(self.cls_token, std=0.02)
        nn.init.trunc_normal_(self.position_embeddings, std=0.02)

    def forward(self, images: Tensor) -> Tensor:
        """Map (B, 3, H, W) to (B, 1 + patches, C)."""
        patches = self.patch_embeddings(images)
        tokens = patches.flatten(2).transpose(1, 2)
        tokens = torch.cat((self.cls_token.expand(tokens.shape[0], -1, -1), tokens), dim=1)
        height, width = patches.shape[-2:]
        positions = interpolate_position_embeddings(
            self.position_embeddings, height, width, self.mode
        )
        out: Tensor = tokens + positions
        return out


class SelfAttention(nn.Module):
    """Queries, keys and values with bias; no output projection."""

    def __init__(self, config: ViTConfig) -> None:
        super().__init__()
        width = config.hidden_size
        self.heads = config.num_attention_heads
        self.query = nn.Linear(width, width)
        self.key = nn.Linear(width, width)
        self.value = nn.Linear(width, width)

    def forward(self, x: Tensor) -> Tensor:
        """Map (B, N, C) to (B, N, C)."""
        q = split_heads(self.query(x), self.heads)
        k = split_heads(self.key(x), self.heads)
        v = split_heads(self.value(x), self.heads)
        return merge_heads(F.scaled_dot_product_attention(q, k, v))


class _Dense(nn.Module):
    """One linear layer called ``dense``, as the checkpoint names it."""

    def __init__(self, width_in: int, width_out: int) -> None:
        super().__init__()
        self.dense = nn.Linear(width_in, width_out)

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.dense(x)
        return out


class _AttentionBlock(nn.Module):
    """Self-attention and its output projection, named as the checkpoint nests them."""

    def __init__(self, config: ViTConfig) -> None:
        super().__init__()
        self.attention = SelfAttention(config)
        self.output = _Dense(config.hidden_size, config.hidden_size)

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.output(self.attention(x))
        return out


class Layer(nn.Module):
    """Pre-norm encoder layer: attention, then an exact-GELU feed-forward."""

    def __init__(self, config: ViTConfig) -> None:
        super().__init__()
        width, eps = config.hidden_size, config.layer_norm_eps
        self.attention = _AttentionBlock(config)
        self.intermediate = _Dense(width, config.intermediate_size)
        self.output = _Dense(config.intermediate_size, width)
        self.layernorm_before = nn.LayerNorm(width, eps=eps)
        self.layernorm_after = nn.LayerNorm(width, eps=eps)

    def forward(self, x: Tensor) -> Tensor:
        """Map (B, N, C) to (B, N, C)."""
        x = x + self.attention(self.layernorm_before(x))
        hidden = F.gelu(self.intermediate(self.layernorm_after(x)))
        out: Tensor = x + self.output(hidden)
        return out


class _Encoder(nn.Module):
    """The stack of layers, called ``encoder.layer`` in checkpoints."""

    def __init__(self, config: ViTConfig) -> None:
        super().__init__()
        self.layer = nn.ModuleList(Layer(config) for _ in range(config.num_hidden_layers))


class ViT(nn.Module):
    """Vision transformer returning all tokens, CLS first, after the final layer norm.

    ``pooler.dense`` exists only because published checkpoints hold it; nothing reads it.
    """

    def __init__(self, config: ViTConfig) -> None:
        super().__init__()
        self.embeddings = Embeddings(config)
        self.encoder = _Encoder(config)
        self.layernorm = nn.LayerNorm(config.hidden_size, eps=config.layer_norm_eps)
        self.pooler = _Dense(config.hidden_size, config.hidden_size)

    def forward(self, images: Tensor) -> Tensor:
        """Map normalised images (B, 3, H, W) to tokens (B, 1 + patches, C)."""
        x = self.embeddings(images)
        for layer in self.encoder.layer:
            x = layer(x)
        out: Tensor = self.layernorm(x)
        return out
