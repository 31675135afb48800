"""DINOv2 with the module names of ``transformers`` 4.x checkpoints (Oquab et al. 2023)."""

from __future__ import annotations

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from dream_cad.nn.attention import merge_heads, split_heads
from dream_cad.nn.embeddings import interpolate_position_embeddings


@dataclass(frozen=True)
class Dinov2Config:
    """Sizes of a DINOv2; the defaults are ViT-g/14 with SwiGLU (facebook/dinov2-giant).

    Attributes:
        hidden_size: channels of a token.
        num_hidden_layers: encoder layers.
        num_attention_heads: heads; their width is ``hidden_size // num_attention_heads``.
        image_size: side of the images whose patches the stored position grid covers.
        patch_size: side of a patch in pixels.
        mlp_ratio: hidden width of the feed-forward in multiples of ``hidden_size``.
        use_swiglu_ffn: SwiGLU feed-forward instead of GELU.
        layer_norm_eps: of every layer norm.
        qkv_bias: whether queries, keys and values have a bias.
    """

    hidden_size: int = 1536
    num_hidden_layers: int = 40
    num_attention_heads: int = 24
    image_size: int = 518
    patch_size: int = 14
    mlp_ratio: int = 4
    use_swiglu_ffn: bool = True
    layer_norm_eps: float = 1e-6
    qkv_bias: bool = True


class _PatchEmbeddings(nn.Module):
    """Non-overlapping patches to tokens."""

    def __init__(self, config: Dinov2Config) -> None:
        super().__init__()
        patch = config.patch_size
        self.projection = nn.Conv2d(3, config.hidden_size, kernel_size=patch, stride=patch)


class Dinov2Embeddings(nn.Module):
    """CLS token, patch tokens and their positions; ``mask_token`` serves training only."""

    def __init__(self, config: Dinov2Config) -> None:
        super().__init__()
        grid = config.image_size // config.patch_size
        width = config.hidden_size
        self.cls_token = nn.Parameter(torch.zeros(1, 1, width))
        self.mask_token = nn.Parameter(torch.zeros(1, width))
        self.position_embeddings = nn.Parameter(torch.zeros(1, 1 + grid**2, width))
        self.patch_embeddings = _PatchEmbeddings(config)

    def positions(self, height: int, width: int) -> Tensor:
        """Return the position table (1, 1 + height * width, C) for a grid of patches."""
        return interpolate_position_embeddings(self.position_embeddings, height, width, "size")

    def forward(self, images: Tensor) -> Tensor:
        """Map (B, 3, H, W) to (B, 1 + patches, C)."""
        patches = self.patch_embeddings.projection(images)
        tokens = patches.flatten(2).transpose(1, 2)
        tokens = torch.cat((self.cls_token.expand(tokens.shape[0], -1, -1), tokens), dim=1)
        out: Tensor = tokens + self.positions(*patches.shape[-2:])
        return out


class _SelfAttention(nn.Module):
    def __init__(self, config: Dinov2Config) -> None:
        super().__init__()
        width, bias = config.hidden_size, config.qkv_bias
        self.heads = config.num_attention_heads
        self.query = nn.Linear(width, width, bias=bias)
        self.key = nn.Linear(width, width, bias=bias)
        self.value = nn.Linear(width, width, bias=bias)

    def forward(self, x: Tensor) -> Tensor:
        q = split_heads(self.query(x), self.heads)
        k = split_heads(self.key(x), self.heads)
        v = split_heads(self.value(x), self.heads)
        return merge_heads(F.scaled_dot_product_attention(q, k, v))


class _Output(nn.Module):
    def __init__(self, width: int) -> None:
        super().__init__()
        self.dense = nn.Linear(width, width)


class _Attention(nn.Module):
    def __init__(self, config: Dinov2Config) -> None:
        super().__init__()
        self.attention = _SelfAttention(config)
        self.output = _Output(config.hidden_size)

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.output.dense(self.attention(x))
        return out


class _LayerScale(nn.Module):
    def __init__(self, width: int) -> None:
        super().__init__()
        self.lambda1 = nn.Parameter(torch.ones(width))

    def forward(self, x: Tensor) -> Tensor:
        return x * self.lambda1


class SwiGLU(nn.Module):
    """Gated feed-forward: silu of the first half times the second half."""

    def __init__(self, width: int, hidden: int) -> None:
        super().__init__()
        # Two thirds of the plain width keep the parameter count; a multiple of 8 for the hardware.
        inner = (int(hidden * 2 / 3) + 7) // 8 * 8
        self.weights_in = nn.Linear(width, 2 * inner)
        self.weights_out = nn.Linear(inner, width)

    def forward(self, x: Tensor) -> Tensor:
        """Map (..., C) to (..., C)."""
        gate, value = self.weights_in(x).chunk(2, dim=-1)
        out: Tensor = self.weights_out(F.silu(gate) * value)
        return out


class GeluMLP(nn.Module):
    """Plain feed-forward with exact GELU."""

    def __init__(self, width: int, hidden: int) -> None:
        super().__init__()
        self.fc1 = nn.Linear(width, hidden)
        self.fc2 = nn.Linear(hidden, width)

    def forward(self, x: Tensor) -> Tensor:
        """Map (..., C) to (..., C)."""
        out: Tensor = self.fc2(F.gelu(self.fc1(x)))
        return out


class Dinov2Layer(nn.Module):
    """Pre-norm layer whose two residual branches are scaled channel by channel."""

    def __init__(self, config: Dinov2Config) -> None:
        super().__init__()
        width, eps = config.hidden_size, config.layer_norm_eps
        hidden = width * config.mlp_ratio
        self.norm1 = nn.LayerNorm(width, eps=eps)
        self.attention = _Attention(config)
        self.layer_scale1 = _LayerScale(width)
        self.norm2 = nn.LayerNorm(width, eps=eps)
        self.mlp = SwiGLU(width, hidden) if config.use_swiglu_ffn else GeluMLP(width, hidden)
        self.layer_scale2 = _LayerScale(width)

    def forward(self, x: Tensor) -> Tensor:
        """Map (B, N, C) to (B, N, C)."""
        x = x + self.layer_scale1(self.attention(self.norm1(x)))
        out: Tensor = x + self.layer_scale2(self.mlp(self.norm2(x)))
        return out


class _Encoder(nn.Module):
    def __init__(self, config: Dinov2Config) -> None:
        super().__init__()
        self.layer = nn.ModuleList(Dinov2Layer(config) for _ in range(config.num_hidden_layers))


class Dinov2(nn.Module):
    """DINOv2 returning all tokens, CLS first, after the final layer norm."""

    def __init__(self, config: Dinov2Config) -> None:
        super().__init__()
        self.config = config
        self.embeddings = Dinov2Embeddings(config)
        self.encoder = _Encoder(config)
        self.layernorm = nn.LayerNorm(config.hidden_size, eps=config.layer_norm_eps)

    def forward(self, images: Tensor) -> Tensor:
        """Map normalised images (B, 3, H, W) to tokens (B, 1 + patches, C)."""
        x = self.embeddings(images)
        for layer in self.encoder.layer:
            x = layer(x)
        out: Tensor = self.layernorm(x)
        return out
