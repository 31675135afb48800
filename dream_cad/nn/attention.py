"""Multi-head attention and gated feed-forward with the key names of diffusers checkpoints."""

from __future__ import annotations

from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor, nn


def split_heads(x: Tensor, heads: int) -> Tensor:
    """Reshape (B, N, heads * D) to (B, heads, N, D); heads are contiguous in the channels."""
    batch, tokens, channels = x.shape
    return x.view(batch, tokens, heads, channels // heads).transpose(1, 2)


def merge_heads(x: Tensor) -> Tensor:
    """Inverse of split_heads: (B, heads, N, D) to (B, N, heads * D)."""
    batch, heads, tokens, width = x.shape
    return x.transpose(1, 2).reshape(batch, tokens, heads * width)


def plain_attention(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
    """Readable reference of softmax(q k^T / sqrt(D)) v, without mask.

    Args:
        q: (B, K, N, D).
        k: (B, K, M, D).
        v: (B, K, M, D).

    Returns:
        (B, K, N, D). The whole (N, M) score matrix is held in memory; used by tests and
        benchmarks as the baseline of ``scaled_dot_product_attention``.
    """
    scores = q @ k.transpose(-1, -2) * q.shape[-1] ** -0.5
    return torch.softmax(scores, dim=-1) @ v


AttentionKernel = Callable[[Tensor, Tensor, Tensor], Tensor]


class Attention(nn.Module):
    """Self- or cross-attention; queries, keys and values without bias, output with bias.

    State-dict keys: ``to_q``, ``to_k``, ``to_v``, ``to_out.0`` (TripoSR spec, section 5).

    Args:
        dim: channels of the tokens.
        heads: number of heads.
        dim_head: channels of a head; the score scale is ``dim_head ** -0.5``.
        context_dim: channels of the context; None means self-attention over ``dim``.

    Attributes:
        kernel: computes softmax(q k^T / sqrt(D)) v; ``plain_attention`` is the reference.
    """

    def __init__(self, dim: int, heads: int, dim_head: int, context_dim: int | None = None) -> None:
        super().__init__()
        inner = heads * dim_head
        self.heads = heads
        self.kernel: AttentionKernel = F.scaled_dot_product_attention
        self.to_q = nn.Linear(dim, inner, bias=False)
        self.to_k = nn.Linear(context_dim or dim, inner, bias=False)
        self.to_v = nn.Linear(context_dim or dim, inner, bias=False)
        self.to_out = nn.ModuleList([nn.Linear(inner, dim)])

    def forward(self, x: Tensor, context: Tensor | None = None) -> Tensor:
        """Attend from ``x`` (B, N, dim) to ``context`` (B, M, context_dim), or to ``x`` itself."""
        source = x if context is None else context
        q = split_heads(self.to_q(x), self.heads)
        k = split_heads(self.to_k(source), self.heads)
        v = split_heads(self.to_v(source), self.heads)
        out: Tensor = self.to_out[0](merge_heads(self.kernel(q, k, v)))
        return out


class GEGLU(nn.Module):
    """Linear to two halves: the first is the value, the second the (exact) GELU gate."""

    def __init__(self, dim: int, inner: int) -> None:
        super().__init__()
        self.proj = nn.Linear(dim, 2 * inner)

    def forward(self, x: Tensor) -> Tensor:
        """Map (..., dim) to (..., inner)."""
        value, gate = self.proj(x).chunk(2, dim=-1)
        out: Tensor = value * F.gelu(gate)
        return out


class FeedForward(nn.Module):
    """GEGLU feed-forward, state-dict keys ``net.0.proj`` and ``net.2``.

    Args:
        dim: channels in and out.
        mult: width of the hidden layer in multiples of ``dim``.
    """

    def __init__(self, dim: int, mult: int = 4) -> None:
        super().__init__()
        # The published index 1 is a dropout of 0; Identity keeps the numbering of the keys.
        self.net = nn.Sequential(GEGLU(dim, dim * mult), nn.Identity(), nn.Linear(dim * mult, dim))

    def forward(self, x: Tensor) -> Tensor:
        """Map (B, N, dim) to (B, N, dim)."""
        out: Tensor = self.net(x)
        return out


class TransformerBlock(nn.Module):
    """Pre-norm block: self-attention, cross-attention, GEGLU feed-forward (keys of diffusers).

    Args:
        dim: channels of the tokens.
        heads: number of heads of both attentions.
        dim_head: channels of a head.
        context_dim: channels of the context tokens.
    """

    def __init__(self, dim: int, heads: int, dim_head: int, context_dim: int) -> None:
        super().__init__()
        self.norm1 = nn.LayerNorm(dim, eps=1e-5)
        self.attn1 = Attention(dim, heads, dim_head)
        self.norm2 = nn.LayerNorm(dim, eps=1e-5)
        self.attn2 = Attention(dim, heads, dim_head, context_dim)
        self.norm3 = nn.LayerNorm(dim, eps=1e-5)
        self.ff = FeedForward(dim)

    def attend_self(self, x: Tensor) -> Tensor:
        """First third of the block, (B, N, dim): needs no context, so it can be precomputed."""
        out: Tensor = x + self.attn1(self.norm1(x))
        return out

    def attend_context(self, x: Tensor, context: Tensor) -> Tensor:
        """Rest of the block on the result of ``attend_self``, context (B, M, context_dim)."""
        x = x + self.attn2(self.norm2(x), context)
        out: Tensor = x + self.ff(self.norm3(x))
        return out

    def forward(self, x: Tensor, context: Tensor) -> Tensor:
        """Map tokens (B, N, dim) with context (B, M, context_dim) to (B, N, dim)."""
        return self.attend_context(self.attend_self(x), context)
