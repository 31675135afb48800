"""Blocks of the multi-view UNet; attribute names equal the keys of the published checkpoint."""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from dream_cad.nn.attention import Attention, FeedForward, merge_heads, split_heads

_GROUPS = 32


def timestep_embedding(timesteps: Tensor, dim: int) -> Tensor:
    """Return the sinusoids (B, dim) float32 of timesteps (B,): cosines, then sines."""
    half = dim // 2
    steps = torch.arange(half, dtype=torch.float32, device=timesteps.device)
    angles = timesteps[:, None].float() * torch.exp(-math.log(10_000) * steps / half)
    return torch.cat([angles.cos(), angles.sin()], dim=-1)


class ResBlock(nn.Module):
    """Two normalised 3x3 convolutions, shifted by the embedding of time and camera between them.

    Args:
        channels: channels in.
        emb_channels: channels of the embedding.
        out_channels: channels out; a 1x1 convolution carries the input over if they differ.
    """

    def __init__(self, channels: int, emb_channels: int, out_channels: int) -> None:
        super().__init__()
        self.in_layers = nn.Sequential(
            nn.GroupNorm(_GROUPS, channels, eps=1e-5),
            nn.SiLU(),
            nn.Conv2d(channels, out_channels, 3, padding=1),
        )
        self.emb_layers = nn.Sequential(nn.SiLU(), nn.Linear(emb_channels, out_channels))
        self.out_layers = nn.Sequential(
            nn.GroupNorm(_GROUPS, out_channels, eps=1e-5),
            nn.SiLU(),
            nn.Identity(),  # the published dropout of 0: keeps the numbering of the keys
            nn.Conv2d(out_channels, out_channels, 3, padding=1),
        )
        self.skip_connection: nn.Module = nn.Identity()
        if channels != out_channels:
            self.skip_connection = nn.Conv2d(channels, out_channels, 1)

    def forward(self, x: Tensor, emb: Tensor) -> Tensor:
        """Map x (B, C, H, W) with emb (B, E) to (B, C', H, W)."""
        hidden = self.in_layers(x) + self.emb_layers(emb)[:, :, None, None]
        out: Tensor = self.skip_connection(x) + self.out_layers(hidden)
        return out


class Downsample(nn.Module):
    """Halve the side by a strided 3x3 convolution, key ``op``."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.op = nn.Conv2d(channels, channels, 3, stride=2, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        """Map (B, C, H, W) to (B, C, H/2, W/2)."""
        out: Tensor = self.op(x)
        return out


class Upsample(nn.Module):
    """Double the side by repetition and a 3x3 convolution, key ``conv``."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.conv = nn.Conv2d(channels, channels, 3, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        """Map (B, C, H, W) to (B, C, 2H, 2W)."""
        out: Tensor = self.conv(F.interpolate(x, scale_factor=2.0, mode="nearest"))
        return out


class ImagePromptAttention(Attention):
    """Cross-attention with keys and values of its own for the tokens of an image prompt.

    Args:
        dim: channels of the tokens.
        heads: number of heads.
        dim_head: channels of a head.
        context_dim: channels of the context.
        ip_dim: how many of the last context tokens are the image prompt.
        ip_weight: weight of what they add.
    """

    def __init__(
        self, dim: int, heads: int, dim_head: int, context_dim: int, ip_dim: int, ip_weight: float
    ) -> None:
        super().__init__(dim, heads, dim_head, context_dim)
        self.to_k_ip = nn.Linear(context_dim, heads * dim_head, bias=False)
        self.to_v_ip = nn.Linear(context_dim, heads * dim_head, bias=False)
        self.ip_dim = ip_dim
        self.ip_weight = ip_weight

    def forward(self, x: Tensor, context: Tensor | None = None) -> Tensor:
        """Attend from ``x`` (B, N, dim) to text and image prompt, context (B, M + ip_dim, C)."""
        if context is None:
            raise ValueError("an image prompt needs a context")
        text, image = context[:, : -self.ip_dim], context[:, -self.ip_dim :]
        q = split_heads(self.to_q(x), self.heads)
        seen = self.kernel(
            q, split_heads(self.to_k(text), self.heads), split_heads(self.to_v(text), self.heads)
        )
        added = self.kernel(
            q,
            split_heads(self.to_k_ip(image), self.heads),
            split_heads(self.to_v_ip(image), self.heads),
        )
        out: Tensor = self.to_out[0](merge_heads(seen + self.ip_weight * added))
        return out


class MultiViewBlock(nn.Module):
    """Self-attention over all views of an object, cross-attention a view, GEGLU feed-forward.

    Args:
        dim: channels of the tokens.
        heads: heads of both attentions.
        dim_head: channels of a head.
        context_dim: channels of the context.
        ip_dim: tokens of an image prompt at the end of the context; 0 for none.
        ip_weight: weight of the image prompt.
    """

    def __init__(
        self,
        dim: int,
        heads: int,
        dim_head: int,
        context_dim: int,
        ip_dim: int = 0,
        ip_weight: float = 1.0,
    ) -> None:
        super().__init__()
        self.attn1 = Attention(dim, heads, dim_head)
        self.ff = FeedForward(dim)
        self.attn2: Attention = (
            ImagePromptAttention(dim, heads, dim_head, context_dim, ip_dim, ip_weight)
            if ip_dim
            else Attention(dim, heads, dim_head, context_dim)
        )
        self.norm1 = nn.LayerNorm(dim, eps=1e-5)
        self.norm2 = nn.LayerNorm(dim, eps=1e-5)
        self.norm3 = nn.LayerNorm(dim, eps=1e-5)

    def forward(self, x: Tensor, context: Tensor, num_frames: int) -> Tensor:
        """Map tokens (b*f, N, dim), frames fastest, with context (b*f, M, C) to (b*f, N, dim)."""
        views, tokens, channels = x.shape
        joint = x.reshape(views // num_frames, num_frames * tokens, channels)
        joint = joint + self.attn1(self.norm1(joint))
        x = joint.reshape(views, tokens, channels)
        x = x + self.attn2(self.norm2(x), context)
        out: Tensor = x + self.ff(self.norm3(x))
        return out


class SpatialTransformer3D(nn.Module):
    """GroupNorm, linear in, multi-view blocks, linear out, added to the input.

    Args:
        channels: channels of the map.
        heads: attention heads.
        dim_head: channels of a head.
        context_dim: channels of the context.
        depth: number of blocks.
        ip_dim: tokens of an image prompt; 0 for none.
        ip_weight: weight of the image prompt.
    """

    def __init__(
        self,
        channels: int,
        heads: int,
        dim_head: int,
        context_dim: int,
        depth: int = 1,
        ip_dim: int = 0,
        ip_weight: float = 1.0,
    ) -> None:
        super().__init__()
        inner = heads * dim_head
        self.norm = nn.GroupNorm(_GROUPS, channels, eps=1e-6)
        self.proj_in = nn.Linear(channels, inner)
        self.transformer_blocks = nn.ModuleList(
            MultiViewBlock(inner, heads, dim_head, context_dim, ip_dim, ip_weight)
            for _ in range(depth)
        )
        self.proj_out = nn.Linear(inner, channels)

    def forward(self, x: Tensor, context: Tensor, num_frames: int) -> Tensor:
        """Map x (b*f, C, H, W) with context (b*f, M, C') to (b*f, C, H, W)."""
        tokens = self.proj_in(self.norm(x).flatten(2).transpose(1, 2))
        for block in self.transformer_blocks:
            tokens = block(tokens, context, num_frames)
        out: Tensor = self.proj_out(tokens).transpose(1, 2).reshape(x.shape)
        return out + x
