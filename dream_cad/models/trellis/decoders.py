"""Decoders of the structured latent and the torso they share (spec, section 11)."""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor, nn

from dream_cad.models.trellis.blocks import (
    FeedForward,
    FloatLayerNorm,
    SelfAttention,
    position_embedding,
    torso_dtype,
)
from dream_cad.models.trellis.config import LatentDecoderConfig
from dream_cad.models.trellis.representations import (
    Gaussians,
    GaussianSettings,
    RadianceField,
    offset_perturbation,
)
from dream_cad.nn.sparse.conv import SparseConv3d, SparseGroupNorm
from dream_cad.nn.sparse.resample import subdivide, subdivide_voxels
from dream_cad.nn.sparse.tensor import SparseTensor

CUBE_CHANNELS = 101


class WindowBlock(nn.Module):
    """Attention within shifted windows, then a feed-forward; norms without parameters."""

    def __init__(self, channels: int, heads: int, ratio: float, window: int, shift: int) -> None:
        super().__init__()
        self.window, self.shift = window, shift
        self.norm1 = FloatLayerNorm(channels, eps=1e-6, elementwise_affine=False)
        self.norm2 = FloatLayerNorm(channels, eps=1e-6, elementwise_affine=False)
        self.attn = SelfAttention(channels, heads, qk_norm=False)
        self.mlp = FeedForward(channels, ratio)

    def forward(self, x: SparseTensor) -> SparseTensor:
        """Map (N, C) to (N, C)."""
        normed = self.norm1(x.feats)
        feats = x.feats + self.attn.sparse(normed, x.voxels, self.window, self.shift)
        return x.with_feats(feats + self.mlp(self.norm2(feats)))


class LatentTorso(nn.Module):
    """Linear, positions and windowed blocks, the shift alternating between 0 and half a window."""

    def __init__(self, config: LatentDecoderConfig, in_channels: int | None = None) -> None:
        super().__init__()
        self.config = config
        c, window = config.model_channels, config.window_size
        self.input_layer = nn.Linear(in_channels or config.latent_channels, c)
        self.blocks = nn.ModuleList(
            WindowBlock(c, config.num_heads, config.mlp_ratio, window, window // 2 * (index % 2))
            for index in range(config.num_blocks)
        )

    def transform(self, x: SparseTensor) -> SparseTensor:
        """Map the latent (N, 8) to features (N, C)."""
        places = position_embedding(x.voxels.coords[:, 1:], self.config.model_channels)
        weight = self.input_layer.weight
        h = self.input_layer(x.feats.to(weight.dtype)) + places.to(weight.dtype)
        out = x.with_feats(h.to(torso_dtype(self.blocks)))
        for block in self.blocks:
            out = block(out)
        return out


class _HeadDecoder(LatentTorso):
    """Torso, float32 layer norm and a linear head of ``channels``."""

    def __init__(
        self, config: LatentDecoderConfig, channels: int, in_channels: int | None = None
    ) -> None:
        super().__init__(config, in_channels)
        self.out_layer = nn.Linear(config.model_channels, channels)

    def forward(self, x: SparseTensor) -> SparseTensor:
        """Map the latent (N, 8) to the raw channels of each voxel."""
        feats = self.transform(x).feats.float()
        normed = F.layer_norm(feats, feats.shape[-1:]).to(self.out_layer.weight.dtype)
        return x.with_feats(self.out_layer(normed))


class LatentEncoder(_HeadDecoder):
    """Voxel features to the mean and log variance of a latent; generation does not use it."""

    def __init__(self, config: LatentDecoderConfig, in_channels: int) -> None:
        super().__init__(config, 2 * config.latent_channels, in_channels)


class GaussianDecoder(_HeadDecoder):
    """Gaussian splats of each voxel."""

    offset_perturbation: Tensor

    def __init__(self, config: LatentDecoderConfig, settings: GaussianSettings) -> None:
        super().__init__(config, settings.num_gaussians * 14)
        self.settings = settings
        perturbation = offset_perturbation(settings.num_gaussians, settings.voxel_size)
        self.register_buffer("offset_perturbation", perturbation)

    def decode(self, x: SparseTensor) -> list[Gaussians]:
        """Return the splats of each batch item."""
        h = self(x)
        side = self.config.resolution
        return [
            Gaussians.from_head(
                x.voxels.coords[rows, 1:],
                h.feats[rows].float(),
                self.offset_perturbation.float(),
                self.settings,
                side,
            )
            for rows in x.voxels.items()
        ]


class RadianceFieldDecoder(_HeadDecoder):
    """Rank-decomposed radiance field of each voxel."""

    def __init__(self, config: LatentDecoderConfig, rank: int = 16, dim: int = 8) -> None:
        super().__init__(config, rank * (3 * dim + 4))
        self.rank, self.dim = rank, dim

    def decode(self, x: SparseTensor) -> list[RadianceField]:
        """Return the field of each batch item."""
        h, side = self(x), self.config.resolution
        return [
            RadianceField.from_head(
                x.voxels.coords[rows, 1:], h.feats[rows].float(), self.rank, self.dim, side
            )
            for rows in x.voxels.items()
        ]


class SubdivideBlock(nn.Module):
    """Double the resolution: normalise, subdivide, convolve twice, with a 1x1x1 skip."""

    def __init__(self, in_channels: int, out_channels: int, groups: int = 32) -> None:
        super().__init__()
        self.act_layers = nn.Sequential(SparseGroupNorm(groups, in_channels))
        self.out_layers = nn.ModuleList(
            [
                SparseConv3d(in_channels, out_channels),
                SparseGroupNorm(groups, out_channels),
                nn.SiLU(),
                SparseConv3d(out_channels, out_channels),
            ]
        )
        same = in_channels == out_channels
        self.skip_connection = None if same else SparseConv3d(in_channels, out_channels, 1)

    def forward(self, x: SparseTensor) -> SparseTensor:
        """Map (N, C) to (8 N, C')."""
        children = subdivide_voxels(x.voxels)
        h = self.act_layers(x)
        h = subdivide(h.with_feats(F.silu(h.feats)), children)
        skip = subdivide(x, children)
        first, norm, activation, second = self.out_layers
        h = norm(first(h))
        h = second(h.with_feats(activation(h.feats)))
        if self.skip_connection is not None:
            skip = self.skip_connection(skip)
        out: SparseTensor = h.with_feats(h.feats + skip.feats)
        return out


class MeshDecoder(LatentTorso):
    """FlexiCubes features at four times the resolution; no norm before the head."""

    def __init__(self, config: LatentDecoderConfig) -> None:
        super().__init__(config)
        c = config.model_channels
        self.upsample = nn.ModuleList([SubdivideBlock(c, c // 4), SubdivideBlock(c // 4, c // 8)])
        self.out_layer = nn.Linear(c // 8, CUBE_CHANNELS)

    def forward(self, x: SparseTensor) -> SparseTensor:
        """Map the latent (N, 8) to cube features (64 N, 101)."""
        h = self.transform(x)
        for block in self.upsample:
            h = block(h)
        return h.with_feats(self.out_layer(h.feats.to(self.out_layer.weight.dtype)))
