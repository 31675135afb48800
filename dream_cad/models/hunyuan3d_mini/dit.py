"""The flow-matching transformer: condition and latents in two streams, then in one.

Spec section 4. Nothing is positional: latents are a set, so any number of them works.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from dream_cad.exceptions import InvalidConfigError
from dream_cad.nn.attention import merge_heads

_EMBEDDING = 256
_NORM_EPS = 1e-6


@dataclass(frozen=True)
class DiTConfig:
    """Sizes of the transformer; the defaults are those of the published mini.

    Attributes:
        in_channels: channels of a latent, in and out.
        context_in_dim: channels of a condition token.
        hidden_size: width of both streams.
        mlp_ratio: hidden width of the feed-forwards in multiples of ``hidden_size``.
        num_heads: attention heads.
        depth: two-stream blocks.
        depth_single_blocks: one-stream blocks.
        qkv_bias: whether queries, keys and values of the two-stream blocks have a bias.
        guidance_embed: whether the guidance scale is an input (fast and turbo variants).
    """

    in_channels: int = 64
    context_in_dim: int = 1536
    hidden_size: int = 1024
    mlp_ratio: float = 4.0
    num_heads: int = 16
    depth: int = 8
    depth_single_blocks: int = 16
    qkv_bias: bool = True
    guidance_embed: bool = False


def timestep_embedding(
    t: Tensor, dim: int = _EMBEDDING, *, max_period: float = 1000.0, time_factor: float = 1000.0
) -> Tensor:
    """Return cosines and sines (B, dim) of a time or guidance scale (B,), in its dtype.

    The product with ``time_factor`` is rounded to the dtype of ``t``, as the published float16
    models were run; the period is 1000, not the usual 10000 (spec section 4).
    """
    scaled = (time_factor * t).float()
    half = dim // 2
    index = torch.arange(half, dtype=torch.float32, device=t.device)
    arguments = scaled[:, None] * torch.exp(-math.log(max_period) / half * index)
    return torch.cat((arguments.cos(), arguments.sin()), dim=-1).to(t.dtype)


class MLPEmbedder(nn.Module):
    """Two linear layers with SiLU between them."""

    def __init__(self, dim: int, width: int) -> None:
        super().__init__()
        self.in_layer = nn.Linear(dim, width)
        self.out_layer = nn.Linear(width, width)

    def forward(self, x: Tensor) -> Tensor:
        """Map (B, dim) to (B, width)."""
        out: Tensor = self.out_layer(F.silu(self.in_layer(x)))
        return out


class _RMSNorm(nn.Module):
    """Root-mean-square norm over a head's channels, in float32."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.scale = nn.Parameter(torch.ones(width))

    def forward(self, x: Tensor) -> Tensor:
        wide = x.float()
        normed = wide * torch.rsqrt(wide.square().mean(-1, keepdim=True) + _NORM_EPS)
        return normed.to(x.dtype) * self.scale


class QKNorm(nn.Module):
    """Separate norms of queries and keys."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.query_norm = _RMSNorm(width)
        self.key_norm = _RMSNorm(width)

    def heads(self, qkv: Tensor, num_heads: int) -> tuple[Tensor, Tensor, Tensor]:
        """Split (B, N, 3 * C) into normed q and k, and v, (B, heads, N, C / heads) each."""
        batch, tokens, channels = qkv.shape
        parts = qkv.view(batch, tokens, 3, num_heads, channels // (3 * num_heads))
        q, k, v = parts.permute(2, 0, 3, 1, 4)
        return self.query_norm(q), self.key_norm(k), v


class _Attention(nn.Module):
    def __init__(self, config: DiTConfig) -> None:
        super().__init__()
        width = config.hidden_size
        self.qkv = nn.Linear(width, 3 * width, bias=config.qkv_bias)
        self.norm = QKNorm(width // config.num_heads)
        self.proj = nn.Linear(width, width)


class Modulation(nn.Module):
    """Shift, scale and gate, (B, 1, C) each, for one or two branches."""

    def __init__(self, width: int, branches: int) -> None:
        super().__init__()
        self.chunks = 3 * branches
        self.lin = nn.Linear(width, self.chunks * width)

    def forward(self, vec: Tensor) -> tuple[Tensor, ...]:
        """Map the conditioning vector (B, C) to ``3 * branches`` tensors (B, 1, C)."""
        projected: Tensor = self.lin(F.silu(vec))[:, None]
        return projected.chunk(self.chunks, dim=-1)


def modulate(x: Tensor, shift: Tensor, scale: Tensor) -> Tensor:
    """Layer norm without parameters, then scale and shift."""
    return (1 + scale) * F.layer_norm(x, x.shape[-1:], eps=_NORM_EPS) + shift


def _feed_forward(config: DiTConfig) -> nn.Sequential:
    width = config.hidden_size
    hidden = int(width * config.mlp_ratio)
    return nn.Sequential(
        nn.Linear(width, hidden), nn.GELU(approximate="tanh"), nn.Linear(hidden, width)
    )


class DoubleBlock(nn.Module):
    """Own weights for latents (``img``) and condition (``txt``), one joint attention."""

    def __init__(self, config: DiTConfig) -> None:
        super().__init__()
        self.num_heads = config.num_heads
        self.img_mod = Modulation(config.hidden_size, 2)
        self.img_attn = _Attention(config)
        self.img_mlp = _feed_forward(config)
        self.txt_mod = Modulation(config.hidden_size, 2)
        self.txt_attn = _Attention(config)
        self.txt_mlp = _feed_forward(config)

    def forward(self, img: Tensor, txt: Tensor, vec: Tensor) -> tuple[Tensor, Tensor]:
        """Map latents (B, N, C) and condition (B, M, C) under the vector (B, C)."""
        img_mod, txt_mod = self.img_mod(vec), self.txt_mod(vec)
        img_qkv = self._heads(self.img_attn, modulate(img, *img_mod[:2]))
        txt_qkv = self._heads(self.txt_attn, modulate(txt, *txt_mod[:2]))
        q, k, v = (torch.cat(pair, dim=2) for pair in zip(txt_qkv, img_qkv, strict=True))
        attended = merge_heads(F.scaled_dot_product_attention(q, k, v))
        from_txt, from_img = torch.split(attended, [txt.shape[1], img.shape[1]], dim=1)
        img = self._finish(img, from_img, img_mod, self.img_attn, self.img_mlp)
        txt = self._finish(txt, from_txt, txt_mod, self.txt_attn, self.txt_mlp)
        return img, txt

    def _heads(self, attention: _Attention, x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        return attention.norm.heads(attention.qkv(x), self.num_heads)

    @staticmethod
    def _finish(
        x: Tensor,
        attended: Tensor,
        mod: tuple[Tensor, ...],
        attention: _Attention,
        mlp: nn.Sequential,
    ) -> Tensor:
        _, _, gate, mlp_shift, mlp_scale, mlp_gate = mod
        x = x + gate * attention.proj(attended)
        out: Tensor = x + mlp_gate * mlp(modulate(x, mlp_shift, mlp_scale))
        return out


class SingleBlock(nn.Module):
    """Attention and feed-forward side by side on the joined stream."""

    def __init__(self, config: DiTConfig) -> None:
        super().__init__()
        width = config.hidden_size
        self.num_heads = config.num_heads
        self.sizes = [3 * width, int(width * config.mlp_ratio)]
        self.linear1 = nn.Linear(width, sum(self.sizes))
        self.linear2 = nn.Linear(width + self.sizes[1], width)
        self.norm = QKNorm(width // config.num_heads)
        self.modulation = Modulation(width, 1)

    def forward(self, x: Tensor, vec: Tensor) -> Tensor:
        """Map (B, M + N, C) under the vector (B, C)."""
        shift, scale, gate = self.modulation(vec)
        qkv, hidden = torch.split(self.linear1(modulate(x, shift, scale)), self.sizes, dim=-1)
        q, k, v = self.norm.heads(qkv, self.num_heads)
        attended = merge_heads(F.scaled_dot_product_attention(q, k, v))
        joined = torch.cat((attended, F.gelu(hidden, approximate="tanh")), dim=-1)
        out: Tensor = x + gate * self.linear2(joined)
        return out


class _FinalLayer(nn.Module):
    def __init__(self, width: int, out_channels: int) -> None:
        super().__init__()
        self.linear = nn.Linear(width, out_channels)
        self.adaLN_modulation = nn.Sequential(nn.SiLU(), nn.Linear(width, 2 * width))

    def forward(self, x: Tensor, vec: Tensor) -> Tensor:
        shift, scale = self.adaLN_modulation(vec)[:, None].chunk(2, dim=-1)
        out: Tensor = self.linear(modulate(x, shift, scale))
        return out


class Hunyuan3DDiT(nn.Module):
    """Predicts the velocity of latents on their way from noise (t = 0) to data (t = 1)."""

    def __init__(self, config: DiTConfig) -> None:
        super().__init__()
        self.config = config
        width = config.hidden_size
        self.latent_in = nn.Linear(config.in_channels, width)
        self.time_in = MLPEmbedder(_EMBEDDING, width)
        if config.guidance_embed:
            self.guidance_in = MLPEmbedder(_EMBEDDING, width)
        self.cond_in = nn.Linear(config.context_in_dim, width)
        self.double_blocks = nn.ModuleList(DoubleBlock(config) for _ in range(config.depth))
        self.single_blocks = nn.ModuleList(
            SingleBlock(config) for _ in range(config.depth_single_blocks)
        )
        self.final_layer = _FinalLayer(width, config.in_channels)

    def forward(
        self, x: Tensor, t: Tensor, condition: Tensor, guidance: Tensor | None = None
    ) -> Tensor:
        """Return the velocity (B, N, in_channels).

        Args:
            x: latents (B, N, in_channels).
            t: time (B,) in [0, 1].
            condition: image tokens (B, M, context_in_dim).
            guidance: guidance scale (B,); needed with ``guidance_embed`` and only there.

        Raises:
            InvalidConfigError: ``guidance`` is missing.
        """
        return self.velocity(x, t, self.cond_in(condition), guidance)

    def velocity(self, x: Tensor, t: Tensor, txt: Tensor, guidance: Tensor | None = None) -> Tensor:
        """As ``forward``, with the condition embedded by ``cond_in`` (B, M, hidden_size).

        The embedding is the same at every time, so a sampler makes it once.
        """
        vec = self.time_in(timestep_embedding(t))
        if self.config.guidance_embed:
            if guidance is None:
                raise InvalidConfigError("This variant needs guidance_scale as an input.")
            vec = vec + self.guidance_in(timestep_embedding(guidance))
        img = self.latent_in(x)
        for block in self.double_blocks:
            img, txt = block(img, txt, vec)
        joined = torch.cat((txt, img), dim=1)
        for block in self.single_blocks:
            joined = block(joined, vec)
        out: Tensor = self.final_layer(joined[:, txt.shape[1] :], vec)
        return out
