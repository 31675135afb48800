"""The two-stream interleaved transformer (spec section 6)."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from dream_cad.models.stable_fast_3d.config import BackboneConfig
from dream_cad.nn.attention import FeedForward, merge_heads, split_heads


class Attention(nn.Module):
    """Queries, keys and values without bias, output with bias; keys wq, wk, wv, proj.

    Args:
        dim: channels of the queries and of the output.
        kv_dim: channels of the source.
        heads: number of heads, of ``dim // heads`` channels.
    """

    def __init__(self, dim: int, kv_dim: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.wq = nn.Linear(dim, dim, bias=False)
        self.wk = nn.Linear(kv_dim, dim, bias=False)
        self.wv = nn.Linear(kv_dim, dim, bias=False)
        self.proj = nn.Linear(dim, dim)

    def forward(self, x: Tensor, source: Tensor) -> Tensor:
        """Attend from (B, N, dim) to (B, M, kv_dim)."""
        q = split_heads(self.wq(x), self.heads)
        k = split_heads(self.wk(source), self.heads)
        v = split_heads(self.wv(source), self.heads)
        out: Tensor = self.proj(merge_heads(F.scaled_dot_product_attention(q, k, v)))
        return out


class BasicBlock(nn.Module):
    """Self-attention, attention to the image tokens, gated feed-forward."""

    def __init__(self, dim: int, kv_dim: int, heads: int) -> None:
        super().__init__()
        self.norm1 = nn.LayerNorm(dim)
        self.attn1 = Attention(dim, dim, heads)
        self.norm2 = nn.LayerNorm(dim)
        self.attn2 = Attention(dim, kv_dim, heads)
        self.norm3 = nn.LayerNorm(dim)
        self.ff = FeedForward(dim)

    def forward(self, z: Tensor, x: Tensor) -> Tensor:
        """Map latents (B, N, dim) with image tokens (B, M, kv_dim) to (B, N, dim)."""
        normed = self.norm1(z)
        z = z + self.attn1(normed, normed)
        z = z + self.attn2(self.norm2(z), x)
        out: Tensor = z + self.ff(self.norm3(z))
        return out


class FuseBlock(nn.Module):
    """Brings one stream into the other; the source is not normalised."""

    def __init__(self, dim_z: int, dim_x: int, heads: int) -> None:
        super().__init__()
        self.norm_z1 = nn.LayerNorm(dim_z)
        self.attn = Attention(dim_z, dim_x, heads)
        self.norm_z2 = nn.LayerNorm(dim_z)
        self.ff = FeedForward(dim_z)

    def forward(self, z: Tensor, x: Tensor) -> Tensor:
        """Map (B, N, dim_z) with the source (B, M, dim_x) to (B, N, dim_z)."""
        z = z + self.attn(self.norm_z1(z), x)
        if z.requires_grad:
            return z + self._feed(z)
        # The hidden layer is eight times as wide as the stream: in parts, to keep memory low.
        parts = [part + self._feed(part) for part in torch.split(z, _TOKENS_PER_PART, dim=1)]
        return torch.cat(parts, dim=1)

    def _feed(self, z: Tensor) -> Tensor:
        out: Tensor = self.ff(self.norm_z2(z))
        return out


_TOKENS_PER_PART = 4096


class TwoStreamBlock(nn.Module):
    """Triplane into latents, basic blocks on the latents, latents into the triplane."""

    def __init__(
        self, dim_latent: int, dim_input: int, dim_cross: int, num_basic_blocks: int, heads: int
    ) -> None:
        super().__init__()
        self.fuse_block_in = FuseBlock(dim_latent, dim_input, heads)
        self.transformer_block = nn.ModuleList(
            BasicBlock(dim_latent, dim_cross, heads) for _ in range(num_basic_blocks)
        )
        self.fuse_block_out = FuseBlock(dim_input, dim_latent, heads)

    def forward(self, latent: Tensor, stream: Tensor, image: Tensor) -> tuple[Tensor, Tensor]:
        """Return new latents and the new stream.

        Args:
            latent: (B, L, dim_latent).
            stream: (B, N, dim_input).
            image: (B, M, dim_cross).
        """
        latent = self.fuse_block_in(latent, stream)
        for block in self.transformer_block:
            latent = block(latent, image)
        return latent, self.fuse_block_out(stream, latent)


class Backbone(nn.Module):
    """Triplane tokens under image tokens."""

    def __init__(self, config: BackboneConfig) -> None:
        super().__init__()
        latent, raw, inner = (
            config.latent_channels,
            config.raw_triplane_channels,
            config.triplane_channels,
        )
        self.latent_init = nn.Parameter(torch.randn(1, config.num_latents, latent) * 0.02)
        self.norm_triplane = nn.GroupNorm(config.norm_num_groups, raw, eps=1e-6)
        self.proj_triplane = nn.Linear(raw, inner)
        self.norm_image = nn.LayerNorm(config.raw_image_channels)
        self.proj_image = nn.Linear(config.raw_image_channels, latent)
        self.norm_latent = nn.LayerNorm(latent)
        self.proj_latent = nn.Linear(latent, latent)
        self.main_blocks = nn.ModuleList(
            TwoStreamBlock(
                latent,
                inner,
                config.raw_image_channels,
                config.num_basic_blocks,
                config.num_attention_heads,
            )
            for _ in range(config.num_blocks)
        )
        self.proj_out = nn.Linear(inner, raw)

    def forward(self, triplane: Tensor, image: Tensor) -> Tensor:
        """Map triplane tokens (B, C, N) with image tokens (B, M, X) to (B, C, N)."""
        stream = self.proj_triplane(self.norm_triplane(triplane).transpose(1, 2))
        known = self.proj_image(self.norm_image(image))
        learned = self.proj_latent(self.norm_latent(self.latent_init))
        latent = torch.cat((known, learned.expand(len(image), -1, -1)), dim=1)
        for block in self.main_blocks:
            latent, stream = block(latent, stream, image)
        out: Tensor = self.proj_out(stream).transpose(1, 2) + triplane
        return out
