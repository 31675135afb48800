"""The perceiver resampler of ImageDream: features of a picture to tokens of the context."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from dream_cad.nn.attention import merge_heads, split_heads

_DIM_HEAD = 64
_HEADS = 12
_DEPTH = 4
_QUERIES = 16
_FEATURES = 1280


class PerceiverAttention(nn.Module):
    """Queries attend to the picture's features and to themselves."""

    def __init__(self, dim: int) -> None:
        super().__init__()
        inner = _HEADS * _DIM_HEAD
        self.norm1 = nn.LayerNorm(dim)
        self.norm2 = nn.LayerNorm(dim)
        self.to_q = nn.Linear(dim, inner, bias=False)
        self.to_kv = nn.Linear(dim, 2 * inner, bias=False)
        self.to_out = nn.Linear(inner, dim, bias=False)

    def forward(self, features: Tensor, queries: Tensor) -> Tensor:
        """Map features (B, N, C) and queries (B, Q, C) to (B, Q, C)."""
        features, queries = self.norm1(features), self.norm2(queries)
        k, v = self.to_kv(torch.cat([features, queries], dim=1)).chunk(2, dim=-1)
        out: Tensor = F.scaled_dot_product_attention(
            split_heads(self.to_q(queries), _HEADS), split_heads(k, _HEADS), split_heads(v, _HEADS)
        )
        projected: Tensor = self.to_out(merge_heads(out))
        return projected


class Resampler(nn.Module):
    """Four layers of perceiver attention over the penultimate features of CLIP ViT-H.

    Args:
        dim: channels inside and of the tokens it makes.
        queries: number of tokens.
    """

    def __init__(self, dim: int, queries: int = _QUERIES) -> None:
        super().__init__()
        self.latents = nn.Parameter(torch.randn(1, queries, dim) * dim**-0.5)
        self.proj_in = nn.Linear(_FEATURES, dim)
        self.proj_out = nn.Linear(dim, dim)
        self.norm_out = nn.LayerNorm(dim)
        self.layers = nn.ModuleList(
            nn.ModuleList([PerceiverAttention(dim), _feed_forward(dim)]) for _ in range(_DEPTH)
        )

    def forward(self, features: Tensor) -> Tensor:
        """Map features (B, N, 1280) to tokens (B, queries, dim)."""
        queries = self.latents.expand(len(features), -1, -1)
        features = self.proj_in(features)
        for layer in self.layers:
            attention, feed_forward = layer.children()
            queries = queries + attention(features, queries)
            queries = queries + feed_forward(queries)
        out: Tensor = self.norm_out(self.proj_out(queries))
        return out


def _feed_forward(dim: int) -> nn.Sequential:
    return nn.Sequential(
        nn.LayerNorm(dim),
        nn.Linear(dim, 4 * dim, bias=False),
        nn.GELU(),
        nn.Linear(4 * dim, dim, bias=False),
    )
