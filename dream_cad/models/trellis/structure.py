"""Stage 1: flow of the sparse structure and its occupancy decoder (spec, sections 6 and 8)."""

from __future__ import annotations

from itertools import pairwise

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from dream_cad.models.trellis.blocks import (
    FlowBlock,
    TimeEmbedder,
    position_embedding,
    torso_dtype,
)
from dream_cad.models.trellis.config import StructureDecoderConfig, StructureFlowConfig


def patchify(x: Tensor, patch: int) -> Tensor:
    """Rearrange (B, C, R, R, R) to tokens (B, (R/p)^3, C p^3), x slowest."""
    batch, channels, side = x.shape[:3]
    count = side // patch
    x = x.view(batch, channels, count, patch, count, patch, count, patch)
    return x.permute(0, 2, 4, 6, 1, 3, 5, 7).reshape(batch, count**3, -1)


def unpatchify(tokens: Tensor, patch: int) -> Tensor:
    """Inverse of patchify."""
    batch, count = tokens.shape[0], round(tokens.shape[1] ** (1 / 3))
    x = tokens.view(batch, count, count, count, -1, patch, patch, patch)
    side = count * patch
    return x.permute(0, 4, 1, 5, 2, 6, 3, 7).reshape(batch, -1, side, side, side)


class SparseStructureFlow(nn.Module):
    """Velocity of the structure latent on a dense grid; keys as published."""

    pos_emb: Tensor

    def __init__(self, config: StructureFlowConfig) -> None:
        super().__init__()
        self.config = config
        c, patch = config.model_channels, config.patch_size
        axis = torch.arange(config.resolution // patch)
        self.t_embedder = TimeEmbedder(c)
        self.register_buffer(
            "pos_emb", position_embedding(torch.cartesian_prod(axis, axis, axis), c)
        )
        self.input_layer = nn.Linear(config.in_channels * patch**3, c)
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
        self.out_layer = nn.Linear(c, config.out_channels * patch**3)

    def forward(self, x: Tensor, t: Tensor, cond: Tensor) -> Tensor:
        """Map a latent (B, C, R, R, R) at 1000 t (B,) with condition (B, M, C') to its velocity."""
        dtype = torso_dtype(self.blocks)
        tokens = patchify(x, self.config.patch_size).to(self.input_layer.weight.dtype)
        h = (self.input_layer(tokens) + self.pos_emb).to(dtype)
        time = self.t_embedder(t).to(dtype)
        for block in self.blocks:
            h = block(h, time, cond.to(dtype))
        h = F.layer_norm(h.float(), h.shape[-1:]).to(self.out_layer.weight.dtype)
        return unpatchify(self.out_layer(h), self.config.patch_size)


class ChannelNorm(nn.LayerNorm):
    """Layer norm over the channels of (B, C, D, H, W) with float32 statistics."""

    def forward(self, x: Tensor) -> Tensor:
        """Normalise each voxel's channels."""
        moved = x.movedim(1, -1).float()
        weight, bias = self.weight.float(), self.bias.float()
        out = F.layer_norm(moved, self.normalized_shape, weight, bias, self.eps)
        return out.movedim(-1, 1).to(x.dtype)


class ResBlock(nn.Module):
    """Two normalised 3x3x3 convolutions with a skip."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.norm1 = ChannelNorm(channels)
        self.norm2 = ChannelNorm(channels)
        self.conv1 = nn.Conv3d(channels, channels, 3, padding=1)
        self.conv2 = nn.Conv3d(channels, channels, 3, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        """Map (B, C, D, H, W) to the same shape."""
        h = self.conv1(F.silu(self.norm1(x)))
        out: Tensor = x + self.conv2(F.silu(self.norm2(h)))
        return out


class UpsampleBlock(nn.Module):
    """Convolve to 8 C' channels and shuffle them into twice the resolution."""

    def __init__(self, in_channels: int, out_channels: int) -> None:
        super().__init__()
        self.conv = nn.Conv3d(in_channels, 8 * out_channels, 3, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        """Map (B, C, D, H, W) to (B, C', 2D, 2H, 2W)."""
        h = self.conv(x)
        batch, channels, *sides = h.shape
        h = h.view(batch, channels // 8, 2, 2, 2, *sides).permute(0, 1, 5, 2, 6, 3, 7, 4)
        out: Tensor = h.reshape(batch, channels // 8, *(2 * side for side in sides))
        return out


class SparseStructureDecoder(nn.Module):
    """Occupancy logits of a structure latent; 4 times its resolution with three levels."""

    def __init__(self, config: StructureDecoderConfig) -> None:
        super().__init__()
        levels = config.channels
        first = nn.Conv3d(config.latent_channels, levels[0], 3, padding=1)
        self.input_layer = first
        self.middle_block = nn.Sequential(
            *(ResBlock(levels[0]) for _ in range(config.num_res_blocks_middle))
        )
        blocks: list[nn.Module] = [ResBlock(levels[0]) for _ in range(config.num_res_blocks)]
        for upper, lower in pairwise(levels):
            blocks.append(UpsampleBlock(upper, lower))
            blocks += [ResBlock(lower) for _ in range(config.num_res_blocks)]
        self.blocks = nn.ModuleList(blocks)
        self.out_layer = nn.Sequential(
            ChannelNorm(levels[-1]),
            nn.SiLU(),
            nn.Conv3d(levels[-1], config.out_channels, 3, padding=1),
        )

    def forward(self, z: Tensor) -> Tensor:
        """Map (B, C, R, R, R) to logits (B, 1, 4R, 4R, 4R); positive means occupied."""
        torso = torso_dtype(self.blocks)
        h = self.input_layer(z.to(self.input_layer.weight.dtype)).to(torso)
        h = self.middle_block(h)
        for block in self.blocks:
            h = block(h)
        out: Tensor = self.out_layer(h.to(self.input_layer.weight.dtype))
        return out


class DownsampleBlock(nn.Module):
    """Strided 2x2x2 convolution."""

    def __init__(self, in_channels: int, out_channels: int) -> None:
        super().__init__()
        self.conv = nn.Conv3d(in_channels, out_channels, 2, stride=2)

    def forward(self, x: Tensor) -> Tensor:
        """Map (B, C, 2D, 2H, 2W) to (B, C', D, H, W)."""
        out: Tensor = self.conv(x)
        return out


class SparseStructureEncoder(nn.Module):
    """Occupancy to the mean and log variance of a structure latent; generation does not use it."""

    def __init__(self, config: StructureDecoderConfig, in_channels: int = 1) -> None:
        super().__init__()
        levels = config.channels
        self.input_layer = nn.Conv3d(in_channels, levels[0], 3, padding=1)
        blocks: list[nn.Module] = [ResBlock(levels[0]) for _ in range(config.num_res_blocks)]
        for upper, lower in pairwise(levels):
            blocks.append(DownsampleBlock(upper, lower))
            blocks += [ResBlock(lower) for _ in range(config.num_res_blocks)]
        self.blocks = nn.ModuleList(blocks)
        self.middle_block = nn.Sequential(
            *(ResBlock(levels[-1]) for _ in range(config.num_res_blocks_middle))
        )
        self.out_layer = nn.Sequential(
            ChannelNorm(levels[-1]),
            nn.SiLU(),
            nn.Conv3d(levels[-1], 2 * config.latent_channels, 3, padding=1),
        )

    def forward(self, occupancy: Tensor) -> tuple[Tensor, Tensor]:
        """Map (B, 1, 4R, 4R, 4R) of 0 and 1 to mean and log variance (B, C, R, R, R)."""
        h = self.input_layer(occupancy.to(self.input_layer.weight.dtype))
        h = h.to(torso_dtype(self.blocks))
        for block in self.blocks:
            h = block(h)
        h = self.out_layer(self.middle_block(h).to(self.input_layer.weight.dtype))
        mean, logvar = h.chunk(2, dim=1)
        return mean, logvar


def occupied_coords(logits: Tensor) -> Tensor:
    """Coordinates (N, 4) of (batch, x, y, z) with a positive logit (B, 1, R, R, R), sorted."""
    return (logits[:, 0] > 0).nonzero()
