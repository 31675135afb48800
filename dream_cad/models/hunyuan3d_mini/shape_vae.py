"""The ShapeVAE: latents to an implicit surface, and surface points to latents.

Spec section 6. Only the published ``withencoder`` file holds the encoder half.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from dream_cad.exceptions import InvalidConfigError
from dream_cad.models.hunyuan3d_mini.attention import CrossAttentionBlock, Transformer
from dream_cad.nn.attention import AttentionKernel

_POST_NORM_EPS = 1e-5
_LOGVAR_RANGE = (-30.0, 20.0)


@dataclass(frozen=True)
class ShapeVAEConfig:
    """Sizes of the VAE; the defaults are those of the published mini.

    Attributes:
        num_latents: tokens of a shape.
        embed_dim: channels of a latent.
        width: channels of a token.
        heads: attention heads.
        num_decoder_layers: self-attention blocks before the geometry decoder.
        num_encoder_layers: self-attention blocks of the encoder.
        pc_size: random surface points that the encoder reads; pc_sharpedge_size: sharp ones.
        point_feats: channels of a surface point beyond its position.
        downsample_ratio: surface points for each query of the encoder.
        num_freqs: octaves of the Fourier features.
        qkv_bias: whether queries, keys and values have a bias.
        qk_norm: whether queries and keys are normed.
        scale_factor: what the transformer's latents are divided by before decoding.
        geo_decoder_mlp_expand_ratio: hidden width of the geometry decoder's feed-forward.
        geo_decoder_downsample_ratio: by what the geometry decoder is narrower.
        geo_decoder_ln_post: whether it has a final norm; without it, it norms no q and k either.
        with_encoder: whether the encoder half is built.
    """

    num_latents: int = 512
    embed_dim: int = 64
    width: int = 1024
    heads: int = 16
    num_decoder_layers: int = 16
    num_encoder_layers: int = 8
    pc_size: int = 5120
    pc_sharpedge_size: int = 5120
    point_feats: int = 4
    downsample_ratio: int = 20
    num_freqs: int = 8
    qkv_bias: bool = False
    qk_norm: bool = True
    scale_factor: float = 1.0188137142395404
    geo_decoder_mlp_expand_ratio: int = 4
    geo_decoder_downsample_ratio: int = 1
    geo_decoder_ln_post: bool = True
    with_encoder: bool = False


def fourier_features(points: Tensor, num_freqs: int) -> Tensor:
    """Return (..., 3 + 6 * num_freqs): the points, sines, cosines of 2^0 ... 2^(n-1) times them.

    The sines are coordinate-major: all octaves of x, then of y, then of z.
    """
    octaves = 2.0 ** torch.arange(num_freqs, dtype=points.dtype, device=points.device)
    angles = (points[..., None] * octaves).flatten(-2)
    return torch.cat((points, angles.sin(), angles.cos()), dim=-1)


def _fourier_width(num_freqs: int) -> int:
    return 3 + 6 * num_freqs


@dataclass(frozen=True)
class ShapeMemory:
    """Keys and values (B, heads, N, C) of a decoded shape: computed once, queried often."""

    keys: Tensor
    values: Tensor


class GeometryDecoder(nn.Module):
    """Cross-attention from query points to a shape's tokens; one logit each, positive inside."""

    def __init__(self, config: ShapeVAEConfig) -> None:
        super().__init__()
        self.num_freqs = config.num_freqs
        width = config.width // config.geo_decoder_downsample_ratio
        self.query_proj = nn.Linear(_fourier_width(config.num_freqs), width)
        self.latents_proj = (
            nn.Linear(config.width, width) if width != config.width else nn.Identity()
        )
        self.cross_attn_decoder = CrossAttentionBlock(
            width,
            config.heads // config.geo_decoder_downsample_ratio,
            qkv_bias=config.qkv_bias,
            qk_norm=config.qk_norm and config.geo_decoder_ln_post,
            mlp_ratio=config.geo_decoder_mlp_expand_ratio,
        )
        self.ln_post = (
            nn.LayerNorm(width, eps=_POST_NORM_EPS) if config.geo_decoder_ln_post else nn.Identity()
        )
        self.output_proj = nn.Linear(width, 1)

    def remember(self, tokens: Tensor) -> ShapeMemory:
        """Return the keys and values of the tokens (B, N, W)."""
        return ShapeMemory(*self.cross_attn_decoder.keys_values(self.latents_proj(tokens)))

    def forward(
        self,
        points: Tensor,
        memory: ShapeMemory,
        kernel: AttentionKernel = F.scaled_dot_product_attention,
    ) -> Tensor:
        """Return logits (B, P) of points (B, P, 3) float32 in about [-1.01, 1.01].

        Features are made in float32 also for half-precision weights: rounded coordinates would
        move a surface point by up to 2.4e-4 (spec section 13, 13).
        """
        features = fourier_features(points.float(), self.num_freqs)
        queries = self.query_proj(features.to(self.query_proj.weight.dtype))
        x = self.cross_attn_decoder(queries, memory.keys, memory.values, kernel)
        logits: Tensor = self.output_proj(self.ln_post(x))[..., 0]
        return logits


class SurfaceEncoder(nn.Module):
    """Surface points with features to tokens."""

    def __init__(self, config: ShapeVAEConfig) -> None:
        super().__init__()
        self.num_freqs = config.num_freqs
        width, heads = config.width, config.heads
        norms = {"qkv_bias": config.qkv_bias, "qk_norm": config.qk_norm}
        self.input_proj = nn.Linear(_fourier_width(config.num_freqs) + config.point_feats, width)
        self.cross_attn = CrossAttentionBlock(width, heads, **norms)
        self.self_attn = Transformer(config.num_encoder_layers, width, heads, **norms)
        self.ln_post = nn.LayerNorm(width, eps=_POST_NORM_EPS)

    def forward(self, queries: Tensor, points: Tensor) -> Tensor:
        """Return tokens (B, N, W) of queries (B, N, 3 + F) attending to points (B, M, 3 + F)."""
        x = self.input_proj(self._features(queries))
        context = self.input_proj(self._features(points))
        x = self.cross_attn(x, *self.cross_attn.keys_values(context))
        out: Tensor = self.ln_post(self.self_attn(x))
        return out

    def _features(self, rows: Tensor) -> Tensor:
        positions, features = rows[..., :3], rows[..., 3:]
        return torch.cat((fourier_features(positions, self.num_freqs), features), dim=-1)


class ShapeVAE(nn.Module):
    """Encoder (optional), decoder transformer and geometry decoder."""

    def __init__(self, config: ShapeVAEConfig) -> None:
        super().__init__()
        self.config = config
        if config.with_encoder:
            self.encoder = SurfaceEncoder(config)
            self.pre_kl = nn.Linear(config.width, 2 * config.embed_dim)
        self.post_kl = nn.Linear(config.embed_dim, config.width)
        self.transformer = Transformer(
            config.num_decoder_layers,
            config.width,
            config.heads,
            qkv_bias=config.qkv_bias,
            qk_norm=config.qk_norm,
        )
        self.geo_decoder = GeometryDecoder(config)

    def decode(self, latents: Tensor) -> Tensor:
        """Return tokens (B, N, W) of unscaled latents (B, N, embed_dim)."""
        out: Tensor = self.transformer(self.post_kl(latents))
        return out

    def encode(self, queries: Tensor, points: Tensor) -> tuple[Tensor, Tensor]:
        """Return mean and log-variance (B, N, embed_dim) of the latents of surface points.

        Args:
            queries: (B, N, 3 + F) chosen points; see ``select_points``.
            points: (B, M, 3 + F) points attended to.

        Raises:
            InvalidConfigError: the checkpoint holds no encoder.
        """
        if not self.config.with_encoder:
            raise InvalidConfigError(
                "This checkpoint has no shape encoder.",
                hint="Use hunyuan3d-vae-v2-mini-withencoder.",
            )
        mean, logvar = self.pre_kl(self.encoder(queries, points)).chunk(2, dim=-1)
        return mean, logvar.clamp(*_LOGVAR_RANGE)
