"""CLIP's text encoder with the keys of transformers."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from dream_cad.exceptions import InvalidConfigError
from dream_cad.nn.attention import merge_heads, split_heads


@dataclass(frozen=True)
class TextConfig:
    """Sizes under transformers' names; the defaults are Stable Diffusion 2.1's (23 of 24 blocks).

    Attributes:
        hidden_act: ``"gelu"``, or ``"quick_gelu"`` as in OpenAI's own checkpoints.
    """

    vocab_size: int = 49408
    hidden_size: int = 1024
    intermediate_size: int = 4096
    num_hidden_layers: int = 23
    num_attention_heads: int = 16
    max_position_embeddings: int = 77
    layer_norm_eps: float = 1e-5
    hidden_act: str = "gelu"


def quick_gelu(x: Tensor) -> Tensor:
    """The sigmoid approximation of GELU that OpenAI trained CLIP with."""
    return x * torch.sigmoid(1.702 * x)


ACTIVATIONS: dict[str, Callable[[Tensor], Tensor]] = {"gelu": F.gelu, "quick_gelu": quick_gelu}


class SelfAttention(nn.Module):
    """Causal multi-head attention with biases."""

    def __init__(self, dim: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.k_proj = nn.Linear(dim, dim)
        self.v_proj = nn.Linear(dim, dim)
        self.q_proj = nn.Linear(dim, dim)
        self.out_proj = nn.Linear(dim, dim)

    def forward(self, x: Tensor) -> Tensor:
        """Map (B, N, C) to (B, N, C); a token sees itself and those before it, pads included."""
        q, k, v = (split_heads(f(x), self.heads) for f in (self.q_proj, self.k_proj, self.v_proj))
        out: Tensor = F.scaled_dot_product_attention(q, k, v, is_causal=True)
        projected: Tensor = self.out_proj(merge_heads(out))
        return projected


class MLP(nn.Module):
    """Two linear layers around an activation."""

    def __init__(self, dim: int, inner: int, activation: str = "gelu") -> None:
        super().__init__()
        if activation not in ACTIVATIONS:
            raise InvalidConfigError(
                f"hidden_act is {activation!r}; expected one of {', '.join(ACTIVATIONS)}"
            )
        self.activation = ACTIVATIONS[activation]
        self.fc1 = nn.Linear(dim, inner)
        self.fc2 = nn.Linear(inner, dim)

    def forward(self, x: Tensor) -> Tensor:
        """Map (B, N, C) to (B, N, C)."""
        out: Tensor = self.fc2(self.activation(self.fc1(x)))
        return out


class EncoderLayer(nn.Module):
    """Pre-norm attention and MLP."""

    def __init__(
        self, dim: int, heads: int, inner: int, eps: float = 1e-5, activation: str = "gelu"
    ) -> None:
        super().__init__()
        self.self_attn = SelfAttention(dim, heads)
        self.layer_norm1 = nn.LayerNorm(dim, eps=eps)
        self.mlp = MLP(dim, inner, activation)
        self.layer_norm2 = nn.LayerNorm(dim, eps=eps)

    def forward(self, x: Tensor) -> Tensor:
        """Map (B, N, C) to (B, N, C)."""
        x = x + self.self_attn(self.layer_norm1(x))
        out: Tensor = x + self.mlp(self.layer_norm2(x))
        return out


class _Embeddings(nn.Module):
    def __init__(self, config: TextConfig) -> None:
        super().__init__()
        self.token_embedding = nn.Embedding(config.vocab_size, config.hidden_size)
        self.position_embedding = nn.Embedding(config.max_position_embeddings, config.hidden_size)

    def forward(self, ids: Tensor) -> Tensor:
        positions = self.position_embedding.weight[: ids.shape[1]]
        embedded: Tensor = self.token_embedding(ids) + positions
        return embedded


class _Encoder(nn.Module):
    def __init__(self, config: TextConfig) -> None:
        super().__init__()
        self.layers = nn.ModuleList(
            EncoderLayer(
                config.hidden_size,
                config.num_attention_heads,
                config.intermediate_size,
                config.layer_norm_eps,
                config.hidden_act,
            )
            for _ in range(config.num_hidden_layers)
        )

    def forward(self, x: Tensor) -> Tensor:
        for layer in self.layers:
            x = layer(x)
        return x


class _TextModel(nn.Module):
    def __init__(self, config: TextConfig) -> None:
        super().__init__()
        self.embeddings = _Embeddings(config)
        self.encoder = _Encoder(config)
        self.final_layer_norm = nn.LayerNorm(config.hidden_size, eps=config.layer_norm_eps)


class TextEncoder(nn.Module):
    """Token ids to the embedding that a generator attends to: all rows, after the final norm.

    Stable Diffusion 2.1's file holds 23 blocks: the penultimate layer of OpenCLIP ViT-H-14.

    Args:
        config: sizes.
    """

    def __init__(self, config: TextConfig) -> None:
        super().__init__()
        self.config = config
        self.text_model = _TextModel(config)

    def forward(self, ids: Tensor) -> Tensor:
        """Map ids (B, 77) int64 to (B, 77, C)."""
        model = self.text_model
        hidden: Tensor = model.final_layer_norm(model.encoder(model.embeddings(ids)))
        return hidden

    @property
    def device(self) -> torch.device:
        """Where the network lives."""
        return self.text_model.final_layer_norm.weight.device
