"""Stage 2: flow of the structured latent on the occupied voxels (spec, section 10)."""

from __future__ import annotations

from typing import cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from dream_cad.exceptions import InvalidConfigError
from dream_cad.models.trellis.blocks import (
    FloatLayerNorm,
    FlowBlock,
    TimeEmbedder,
    position_embedding,
    torso_dtype,
)
from dream_cad.models.trellis.config import LatentFlowConfig
from dream_cad.nn.sparse.conv import SparseConv3d
from dream_cad.nn.sparse.resample import Halving
from dream_cad.nn.sparse.tensor import SparseTensor


class SparseResBlock(nn.Module):
    """Time-modulated pair of submanifold convolutions with a skip.

    The caller resamples: downsampling and upsampling blocks get the resampled tensor, as
    resampling is the first thing that they do.
    """

    def __init__(self, in_channels: int, out_channels: int, time_channels: int) -> None:
        super().__init__()
        self.norm1 = FloatLayerNorm(in_channels, eps=1e-6)
        self.norm2 = FloatLayerNorm(out_channels, eps=1e-6, elementwise_affine=False)
        self.conv1 = SparseConv3d(in_channels, out_channels)
        self.conv2 = SparseConv3d(out_channels, out_channels)
        self.emb_layers = nn.Sequential(nn.SiLU(), nn.Linear(time_channels, 2 * out_channels))
        same = in_channels == out_channels
        self.skip_connection = nn.Identity() if same else nn.Linear(in_channels, out_channels)

    def forward(self, x: SparseTensor, time: Tensor) -> SparseTensor:
        """Map (N, C) with time (B, T) to (N, C')."""
        scale, shift = self.emb_layers(time)[x.voxels.batch].chunk(2, dim=-1)
        h = self.conv1(x.with_feats(F.silu(self.norm1(x.feats))))
        feats = self.norm2(h.feats) * (1 + scale) + shift
        h = self.conv2(x.with_feats(F.silu(feats)))
        return x.with_feats(h.feats + self.skip_connection(x.feats))


class StructuredLatentFlow(nn.Module):
    """Velocity of the structured latent; convolutions at full, attention at half resolution.

    Raises:
        InvalidConfigError: for another patch size than 2, or more than one resolution level.
    """

    def __init__(self, config: LatentFlowConfig) -> None:
        super().__init__()
        if config.patch_size != 2 or len(config.io_block_channels) != 1:
            raise InvalidConfigError(
                f"patch_size {config.patch_size} with io_block_channels "
                f"{config.io_block_channels}; expected 2 and one width"
            )
        self.config = config
        c, io = config.model_channels, config.io_block_channels[0]
        plain = config.num_io_res_blocks - 1
        self.t_embedder = TimeEmbedder(c)
        self.input_layer = nn.Linear(config.in_channels, io)
        self.input_blocks = nn.ModuleList(SparseResBlock(io, io, c) for _ in range(plain))
        self.input_blocks.append(SparseResBlock(io, c, c))
        self.blocks = nn.ModuleList(
            FlowBlock(
                c,
                config.cond_channels,
                config.num_heads,
                config.mlp_ratio,
                qk_norm=config.qk_rms_norm,
                qk_norm_cross=config.qk_rms_norm_cross,
            )
            for _ in range(config.num_blocks)
        )
        self.out_blocks = nn.ModuleList([SparseResBlock(2 * c, io, c)])
        self.out_blocks.extend(SparseResBlock(2 * io, io, c) for _ in range(plain))
        self.out_layer = nn.Linear(io, config.out_channels)

    def forward(
        self, x: SparseTensor, t: Tensor, cond: Tensor, halving: Halving | None = None
    ) -> SparseTensor:
        """Map a latent (N, C) at 1000 t (B,) with condition (B, M, C') to its velocity.

        ``halving`` of the voxels may be computed once and passed to every step.
        """
        halving = Halving.of(x.voxels) if halving is None else halving
        dtype = torso_dtype(self.blocks)
        cond = cond.to(dtype)
        time = self.t_embedder(t).to(dtype)
        h = x.with_feats(self.input_layer(x.feats.to(self.input_layer.weight.dtype)).to(dtype))
        skips: list[SparseTensor] = []
        for index, block in enumerate(self.input_blocks):
            last = index == len(self.input_blocks) - 1
            h = block(halving.down(h) if last else h, time)
            skips.append(h)
        h = self._transform(h, time, cond)
        for index, block in enumerate(self.out_blocks):
            joined = h.with_feats(torch.cat((h.feats, skips.pop().feats), dim=-1))
            h = block(halving.up(joined) if index == 0 else joined, time)
        feats = F.layer_norm(h.feats.float(), h.feats.shape[-1:]).to(dtype)
        return x.with_feats(self.out_layer(feats.to(self.out_layer.weight.dtype)))

    def _transform(self, h: SparseTensor, time: Tensor, cond: Tensor) -> SparseTensor:
        places = position_embedding(h.voxels.coords[:, 1:], self.config.model_channels)
        feats = h.feats + places.to(h.feats.dtype)
        for block in self.blocks:
            feats = cast(FlowBlock, block).sparse(feats, h.voxels, time, cond)
        return h.with_feats(feats)
