"""Embeddings, norms, attention and flow block of TRELLIS (spec, section 5)."""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from dream_cad.nn.sparse.groups import grouped_attention
from dream_cad.nn.sparse.tensor import VoxelSet

_TIME_WIDTH = 256


def time_frequencies(t: Tensor, width: int = _TIME_WIDTH) -> Tensor:
    """Embed times (B,), already multiplied by 1000, as (B, width): cosines, then sines."""
    half = width // 2
    steps = torch.arange(half, dtype=torch.float32, device=t.device)
    angles = t.float()[:, None] * torch.exp(-math.log(10000) * steps / half)
    return torch.cat((angles.cos(), angles.sin()), dim=-1)


def position_embedding(coords: Tensor, channels: int) -> Tensor:
    """Embed positions (N, 3) as (N, channels) float32: sines and cosines axis by axis, then 0."""
    count = channels // 3 // 2
    steps = torch.arange(count, dtype=torch.float32, device=coords.device) / count
    angles = coords.float()[..., None] * (1.0 / 10000**steps)
    table = torch.cat((angles.sin(), angles.cos()), dim=-1).flatten(1)
    return F.pad(table, (0, channels - table.shape[1]))


class TimeEmbedder(nn.Module):
    """Times to (B, C) through two linear layers."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.mlp = nn.Sequential(
            nn.Linear(_TIME_WIDTH, channels), nn.SiLU(), nn.Linear(channels, channels)
        )

    def forward(self, t: Tensor) -> Tensor:
        """Map (B,) to (B, C)."""
        out: Tensor = self.mlp(time_frequencies(t))
        return out


class FloatLayerNorm(nn.LayerNorm):
    """Layer norm over the last axis with float32 statistics, whatever the input's dtype."""

    def forward(self, x: Tensor) -> Tensor:
        """Normalise (..., C); returns the dtype of ``x``."""
        weight = None if self.weight is None else self.weight.float()
        bias = None if self.bias is None else self.bias.float()
        return F.layer_norm(x.float(), self.normalized_shape, weight, bias, self.eps).to(x.dtype)


class HeadNorm(nn.Module):
    """Scale each head's vector to length sqrt(D) * gamma, in float32."""

    def __init__(self, heads: int, width: int) -> None:
        super().__init__()
        self.gamma = nn.Parameter(torch.ones(heads, width))

    def forward(self, x: Tensor) -> Tensor:
        """Normalise (..., K, D)."""
        unit = F.normalize(x.float(), dim=-1)
        scaled: Tensor = unit * self.gamma * float(x.shape[-1]) ** 0.5
        return scaled.to(x.dtype)


class SelfAttention(nn.Module):
    """Self-attention over tokens; keys ``to_qkv``, ``to_out`` and the optional head norms."""

    q_rms_norm: HeadNorm | None
    k_rms_norm: HeadNorm | None

    def __init__(self, channels: int, heads: int, *, qk_norm: bool) -> None:
        super().__init__()
        self.heads = heads
        self.to_qkv = nn.Linear(channels, 3 * channels)
        self.q_rms_norm = HeadNorm(heads, channels // heads) if qk_norm else None
        self.k_rms_norm = HeadNorm(heads, channels // heads) if qk_norm else None
        self.to_out = nn.Linear(channels, channels)

    def _heads(self, x: Tensor) -> tuple[Tensor, ...]:
        """Split (..., C) into q, k and v (..., K, D), normalised where the model does so."""
        q, k, v = self.to_qkv(x).unflatten(-1, (3, self.heads, -1)).unbind(-3)
        if self.q_rms_norm is not None and self.k_rms_norm is not None:
            q, k = self.q_rms_norm(q), self.k_rms_norm(k)
        return q, k, v

    def forward(self, x: Tensor) -> Tensor:
        """Map dense tokens (B, N, C) to (B, N, C)."""
        q, k, v = (part.transpose(1, 2) for part in self._heads(x))
        values = F.scaled_dot_product_attention(q, k, v).transpose(1, 2)
        out: Tensor = self.to_out(values.flatten(-2))
        return out

    def sparse(self, x: Tensor, voxels: VoxelSet, window: int = 0, shift: int = 0) -> Tensor:
        """Map rows (N, C) on voxels to (N, C), within batch items or shifted windows."""
        q, k, v = self._heads(x)
        values = grouped_attention(q, k, v, voxels.buckets(window, shift))
        out: Tensor = self.to_out(values.flatten(-2))
        return out


class CrossAttention(nn.Module):
    """Attention of tokens to the condition; keys ``to_q``, ``to_kv``, ``to_out``."""

    q_rms_norm: HeadNorm | None
    k_rms_norm: HeadNorm | None

    def __init__(self, channels: int, context: int, heads: int, *, qk_norm: bool) -> None:
        super().__init__()
        self.heads = heads
        self.to_q = nn.Linear(channels, channels)
        self.to_kv = nn.Linear(context, 2 * channels)
        self.q_rms_norm = HeadNorm(heads, channels // heads) if qk_norm else None
        self.k_rms_norm = HeadNorm(heads, channels // heads) if qk_norm else None
        self.to_out = nn.Linear(channels, channels)

    def forward(self, x: Tensor, context: Tensor) -> Tensor:
        """Map (B, N, C) with a condition (B, M, C') to (B, N, C)."""
        q = self.to_q(x).unflatten(-1, (self.heads, -1))
        k, v = self.to_kv(context).unflatten(-1, (2, self.heads, -1)).unbind(-3)
        if self.q_rms_norm is not None and self.k_rms_norm is not None:
            q, k = self.q_rms_norm(q), self.k_rms_norm(k)
        q, k, v = (part.transpose(1, 2) for part in (q, k, v))
        values = F.scaled_dot_product_attention(q, k, v).transpose(1, 2)
        out: Tensor = self.to_out(values.flatten(-2))
        return out

    def sparse(self, x: Tensor, voxels: VoxelSet, context: Tensor) -> Tensor:
        """Map rows (N, C) on voxels, each to its item's condition of (B, M, C'), to (N, C)."""
        rows = list(voxels.items())
        parts = [self(x[part][None], context[i][None])[0] for i, part in enumerate(rows)]
        return torch.cat(parts) if parts else x


class FeedForward(nn.Module):
    """Linear, tanh GELU, linear; keys ``mlp.0`` and ``mlp.2``."""

    def __init__(self, channels: int, ratio: float) -> None:
        super().__init__()
        hidden = int(channels * ratio)
        self.mlp = nn.Sequential(
            nn.Linear(channels, hidden), nn.GELU(approximate="tanh"), nn.Linear(hidden, channels)
        )

    def forward(self, x: Tensor) -> Tensor:
        """Map (..., C) to (..., C)."""
        out: Tensor = self.mlp(x)
        return out


class FlowBlock(nn.Module):
    """Time-modulated block of both flow models: self-attention, cross-attention, feed-forward."""

    def __init__(
        self,
        channels: int,
        context: int,
        heads: int,
        ratio: float,
        *,
        qk_norm: bool,
        qk_norm_cross: bool = False,
    ) -> None:
        super().__init__()
        self.norm1 = FloatLayerNorm(channels, eps=1e-6, elementwise_affine=False)
        self.norm2 = FloatLayerNorm(channels, eps=1e-6)
        self.norm3 = FloatLayerNorm(channels, eps=1e-6, elementwise_affine=False)
        self.self_attn = SelfAttention(channels, heads, qk_norm=qk_norm)
        self.cross_attn = CrossAttention(channels, context, heads, qk_norm=qk_norm_cross)
        self.mlp = FeedForward(channels, ratio)
        self.adaLN_modulation = nn.Sequential(nn.SiLU(), nn.Linear(channels, 6 * channels))

    def forward(self, x: Tensor, time: Tensor, context: Tensor) -> Tensor:
        """Map tokens (B, N, C) with time (B, C) and condition (B, M, C') to (B, N, C)."""
        parts = self.adaLN_modulation(time)[:, None].chunk(6, dim=-1)
        shift1, scale1, gate1, shift2, scale2, gate2 = parts
        x = x + gate1 * self.self_attn(self.norm1(x) * (1 + scale1) + shift1)
        x = x + self.cross_attn(self.norm2(x), context)
        out: Tensor = x + gate2 * self.mlp(self.norm3(x) * (1 + scale2) + shift2)
        return out

    def sparse(self, x: Tensor, voxels: VoxelSet, time: Tensor, context: Tensor) -> Tensor:
        """Map rows (N, C) on voxels with time (B, C) and condition (B, M, C') to (N, C)."""
        parts = self.adaLN_modulation(time)[voxels.batch].chunk(6, dim=-1)
        shift1, scale1, gate1, shift2, scale2, gate2 = parts
        h = self.norm1(x) * (1 + scale1) + shift1
        x = x + gate1 * self.self_attn.sparse(h, voxels)
        x = x + self.cross_attn.sparse(self.norm2(x), voxels, context)
        out: Tensor = x + gate2 * self.mlp(self.norm3(x) * (1 + scale2) + shift2)
        return out


def torso_dtype(blocks: nn.Module) -> torch.dtype:
    """Dtype of a torso's linear layers and convolutions; its norms may be kept in float32."""
    kinds = (nn.Linear, nn.Conv3d)
    return next((m.weight.dtype for m in blocks.modules() if isinstance(m, kinds)), torch.float32)
