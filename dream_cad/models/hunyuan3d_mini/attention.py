"""Attention blocks of the ShapeVAE (spec section 6), with exchangeable attention kernels."""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor, nn

from dream_cad.nn.attention import AttentionKernel, merge_heads

NORM_EPS = 1e-6


class HeadNorms(nn.Module):
    """Layer norms of queries and keys over a head's channels; identities without ``qk_norm``."""

    def __init__(self, head_width: int, qk_norm: bool) -> None:
        super().__init__()
        self.q_norm = nn.LayerNorm(head_width, eps=NORM_EPS) if qk_norm else nn.Identity()
        self.k_norm = nn.LayerNorm(head_width, eps=NORM_EPS) if qk_norm else nn.Identity()


class SelfAttention(nn.Module):
    """Self-attention whose projection holds (q | k | v) head by head."""

    def __init__(self, width: int, heads: int, *, qkv_bias: bool, qk_norm: bool) -> None:
        super().__init__()
        self.heads = heads
        self.c_qkv = nn.Linear(width, 3 * width, bias=qkv_bias)
        self.c_proj = nn.Linear(width, width)
        self.attention = HeadNorms(width // heads, qk_norm)

    def forward(self, x: Tensor) -> Tensor:
        """Map (B, N, W) to (B, N, W)."""
        batch, tokens, width = x.shape
        qkv = self.c_qkv(x).view(batch, tokens, self.heads, 3 * width // self.heads)
        q, k, v = qkv.transpose(1, 2).chunk(3, dim=-1)
        q, k = self.attention.q_norm(q), self.attention.k_norm(k)
        out: Tensor = self.c_proj(merge_heads(F.scaled_dot_product_attention(q, k, v)))
        return out


class CrossAttention(nn.Module):
    """Cross-attention in two steps, so that keys and values are made once for many queries."""

    def __init__(self, width: int, heads: int, *, qkv_bias: bool, qk_norm: bool) -> None:
        super().__init__()
        self.heads = heads
        self.c_q = nn.Linear(width, width, bias=qkv_bias)
        self.c_kv = nn.Linear(width, 2 * width, bias=qkv_bias)
        self.c_proj = nn.Linear(width, width)
        self.attention = HeadNorms(width // heads, qk_norm)

    def keys_values(self, context: Tensor) -> tuple[Tensor, Tensor]:
        """Return keys and values (B, heads, M, W / heads) of the context (B, M, W)."""
        batch, tokens, width = context.shape
        kv = self.c_kv(context).view(batch, tokens, self.heads, 2 * width // self.heads)
        k, v = kv.transpose(1, 2).chunk(2, dim=-1)
        return self.attention.k_norm(k), v

    def attend(self, x: Tensor, k: Tensor, v: Tensor, kernel: AttentionKernel) -> Tensor:
        """Attend from (B, N, W) to what ``keys_values`` returned."""
        batch, tokens, width = x.shape
        q = self.c_q(x).view(batch, tokens, self.heads, width // self.heads).transpose(1, 2)
        out: Tensor = self.c_proj(merge_heads(kernel(self.attention.q_norm(q), k, v)))
        return out


class _MLP(nn.Module):
    def __init__(self, width: int, ratio: int) -> None:
        super().__init__()
        self.c_fc = nn.Linear(width, ratio * width)
        self.c_proj = nn.Linear(ratio * width, width)

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.c_proj(F.gelu(self.c_fc(x)))
        return out


class SelfAttentionBlock(nn.Module):
    """Pre-norm self-attention and feed-forward."""

    def __init__(self, width: int, heads: int, *, qkv_bias: bool, qk_norm: bool) -> None:
        super().__init__()
        self.attn = SelfAttention(width, heads, qkv_bias=qkv_bias, qk_norm=qk_norm)
        self.ln_1 = nn.LayerNorm(width, eps=NORM_EPS)
        self.mlp = _MLP(width, 4)
        self.ln_2 = nn.LayerNorm(width, eps=NORM_EPS)

    def forward(self, x: Tensor) -> Tensor:
        """Map (B, N, W) to (B, N, W)."""
        x = x + self.attn(self.ln_1(x))
        out: Tensor = x + self.mlp(self.ln_2(x))
        return out


class CrossAttentionBlock(nn.Module):
    """Pre-norm cross-attention and feed-forward; ``ln_2`` norms the context."""

    def __init__(
        self, width: int, heads: int, *, qkv_bias: bool, qk_norm: bool, mlp_ratio: int = 4
    ) -> None:
        super().__init__()
        self.attn = CrossAttention(width, heads, qkv_bias=qkv_bias, qk_norm=qk_norm)
        self.ln_1 = nn.LayerNorm(width, eps=NORM_EPS)
        self.ln_2 = nn.LayerNorm(width, eps=NORM_EPS)
        self.ln_3 = nn.LayerNorm(width, eps=NORM_EPS)
        self.mlp = _MLP(width, mlp_ratio)

    def keys_values(self, context: Tensor) -> tuple[Tensor, Tensor]:
        """Return keys and values of the context (B, M, W)."""
        return self.attn.keys_values(self.ln_2(context))

    def forward(
        self,
        x: Tensor,
        k: Tensor,
        v: Tensor,
        kernel: AttentionKernel = F.scaled_dot_product_attention,
    ) -> Tensor:
        """Map queries (B, N, W) to (B, N, W)."""
        x = x + self.attn.attend(self.ln_1(x), k, v, kernel)
        out: Tensor = x + self.mlp(self.ln_3(x))
        return out


class Transformer(nn.Module):
    """A stack of self-attention blocks, called ``resblocks`` in checkpoints."""

    def __init__(
        self, layers: int, width: int, heads: int, *, qkv_bias: bool, qk_norm: bool
    ) -> None:
        super().__init__()
        self.resblocks = nn.ModuleList(
            SelfAttentionBlock(width, heads, qkv_bias=qkv_bias, qk_norm=qk_norm)
            for _ in range(layers)
        )

    def forward(self, x: Tensor) -> Tensor:
        """Map (B, N, W) to (B, N, W)."""
        for block in self.resblocks:
            x = block(x)
        return x
