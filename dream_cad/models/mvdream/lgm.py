"""LGM: four views to Gaussians in one forward pass; attribute names equal the published keys."""

from __future__ import annotations

from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from dream_cad.models.mvdream.config import LGMConfig

SKIP_SCALE = 0.5**0.5
_GROUPS = 32
_EPS = 1e-5


def _norm(channels: int) -> nn.GroupNorm:
    return nn.GroupNorm(_GROUPS, channels, eps=_EPS)


class ResNet(nn.Module):
    """Two normalised convolutions and a shortcut, scaled to keep the variance.

    Args:
        channels: channels in.
        out_channels: channels out; the shortcut is a 1x1 convolution if they differ.
        resample: ``"up"`` repeats pixels, ``"down"`` averages 2x2, before the first convolution.
    """

    def __init__(
        self,
        channels: int,
        out_channels: int,
        resample: Literal["default", "up", "down"] = "default",
    ) -> None:
        super().__init__()
        self.resample = resample
        self.norm1 = _norm(channels)
        self.conv1 = nn.Conv2d(channels, out_channels, 3, padding=1)
        self.norm2 = _norm(out_channels)
        self.conv2 = nn.Conv2d(out_channels, out_channels, 3, padding=1)
        self.shortcut: nn.Module = nn.Identity()
        if channels != out_channels:
            self.shortcut = nn.Conv2d(channels, out_channels, 1)

    def _resize(self, x: Tensor) -> Tensor:
        if self.resample == "up":
            return F.interpolate(x, scale_factor=2.0, mode="nearest")
        return F.avg_pool2d(x, 2) if self.resample == "down" else x

    def forward(self, x: Tensor) -> Tensor:
        """Map (B, C, H, W) to (B, C', H', W')."""
        hidden = self.conv1(self._resize(F.silu(self.norm1(x))))
        hidden = self.conv2(F.silu(self.norm2(hidden)))
        out: Tensor = (hidden + self.shortcut(self._resize(x))) * SKIP_SCALE
        return out


class _JointAttention(nn.Module):
    """Self-attention with one projection for queries, keys and values."""

    def __init__(self, dim: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.qkv = nn.Linear(dim, 3 * dim, bias=False)
        self.proj = nn.Linear(dim, dim)

    def forward(self, x: Tensor) -> Tensor:
        batch, tokens, dim = x.shape
        qkv = self.qkv(x).reshape(batch, tokens, 3, self.heads, dim // self.heads)
        q, k, v = qkv.permute(2, 0, 3, 1, 4)
        out: Tensor = F.scaled_dot_product_attention(q, k, v)
        projected: Tensor = self.proj(out.transpose(1, 2).reshape(batch, tokens, dim))
        return projected


class ViewAttention(nn.Module):
    """Attention between the pixels of all views.

    Args:
        dim: channels.
        heads: attention heads.
        num_frames: views.
    """

    def __init__(self, dim: int, heads: int, num_frames: int = 4) -> None:
        super().__init__()
        self.num_frames = num_frames
        self.norm = _norm(dim)
        self.attn = _JointAttention(dim, heads)

    def forward(self, x: Tensor) -> Tensor:
        """Map (b*f, C, H, W), views fastest, to the same shape."""
        views, channels, height, width = x.shape
        grouped = self.norm(x).reshape(-1, self.num_frames, channels, height * width)
        tokens = grouped.transpose(2, 3).reshape(len(grouped), -1, channels)
        seen = self.attn(tokens).reshape(views, height * width, channels)
        out: Tensor = (seen.transpose(1, 2).reshape(x.shape) + x) * SKIP_SCALE
        return out


class _Block(nn.Module):
    """ResNets, each followed by attention where the level has it."""

    def __init__(self, widths: list[tuple[int, int]], heads: int, attends: bool) -> None:
        super().__init__()
        self.nets = nn.ModuleList(ResNet(*pair) for pair in widths)
        if attends:
            self.attns = nn.ModuleList(ViewAttention(out, heads) for _, out in widths)
        self._attends = attends

    def run(self, index: int, x: Tensor) -> Tensor:
        x = self.nets[index](x)
        return self.attns[index](x) if self._attends else x


class _DownBlock(_Block):
    def __init__(
        self, channels: int, out: int, layers: int, heads: int, attends: bool, is_last: bool
    ) -> None:
        super().__init__([(channels, out)] + [(out, out)] * (layers - 1), heads, attends)
        self.downsample = None if is_last else nn.Conv2d(out, out, 3, stride=2, padding=1)

    def forward(self, x: Tensor, skips: list[Tensor]) -> Tensor:
        for index in range(len(self.nets)):
            x = self.run(index, x)
            skips.append(x)
        if self.downsample is not None:
            x = self.downsample(x)
            skips.append(x)
        return x


class _MidBlock(nn.Module):
    def __init__(self, channels: int, heads: int, attends: bool) -> None:
        super().__init__()
        self.nets = nn.ModuleList([ResNet(channels, channels) for _ in range(2)])
        self.attns = nn.ModuleList([ViewAttention(channels, heads)] if attends else [])

    def forward(self, x: Tensor) -> Tensor:
        x = self.nets[0](x)
        for attention in self.attns:
            x = attention(x)
        out: Tensor = self.nets[1](x)
        return out


class _UpBlock(_Block):
    def __init__(self, widths: list[tuple[int, int]], heads: int, attends: bool, is_last: bool):
        super().__init__(widths, heads, attends)
        out = widths[-1][1]
        self.upsample = None if is_last else nn.Conv2d(out, out, 3, padding=1)

    def forward(self, x: Tensor, skips: list[Tensor]) -> Tensor:
        for index in range(len(self.nets)):
            x = self.run(index, torch.cat([x, skips.pop()], dim=1))
        if self.upsample is not None:
            x = self.upsample(F.interpolate(x, scale_factor=2.0, mode="nearest"))
        return x


class LGMUNet(nn.Module):
    """The asymmetric U-Net: it ends at ``splat_size``, below the input's size."""

    def __init__(self, config: LGMConfig) -> None:
        super().__init__()
        layers, heads = config.layers_per_block, config.attention_heads
        down = config.down_channels
        self.conv_in = nn.Conv2d(config.in_channels, down[0], 3, padding=1)
        skips = [down[0]]
        blocks: list[nn.Module] = []
        for level, (out, attends) in enumerate(zip(down, config.down_attention, strict=True)):
            is_last = level == len(down) - 1
            channels = down[max(level - 1, 0)]
            blocks.append(_DownBlock(channels, out, layers, heads, attends, is_last))
            skips += [out] * (layers + (not is_last))
        self.down_blocks = nn.ModuleList(blocks)
        self.mid_block = _MidBlock(down[-1], heads, config.mid_attention)
        self.up_blocks = nn.ModuleList(_make_up(config, down[-1], skips))
        self.norm_out = _norm(config.up_channels[-1])
        self.conv_out = nn.Conv2d(config.up_channels[-1], config.out_channels, 3, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        """Map (b*4, 9, S, S) to (b*4, 14, splat, splat)."""
        x = self.conv_in(x)
        skips = [x]
        for down in self.down_blocks:
            x = down(x, skips)
        x = self.mid_block(x)
        for up in self.up_blocks:
            x = up(x, skips)
        out: Tensor = self.conv_out(F.silu(self.norm_out(x)))
        return out


def _make_up(config: LGMConfig, channels: int, skips: list[int]) -> list[_UpBlock]:
    blocks = []
    skips = list(skips)
    for level, (out, attends) in enumerate(
        zip(config.up_channels, config.up_attention, strict=True)
    ):
        widths = []
        for _ in range(config.layers_per_block + 1):
            widths.append((channels + skips.pop(), out))
            channels = out
        is_last = level == len(config.up_channels) - 1
        blocks.append(_UpBlock(widths, config.attention_heads, attends, is_last))
    return blocks


class LGM(nn.Module):
    """Views with their rays to Gaussians.

    Args:
        config: sizes.
    """

    def __init__(self, config: LGMConfig) -> None:
        super().__init__()
        self.config = config
        self.unet = LGMUNet(config)
        self.conv = nn.Conv2d(config.out_channels, config.out_channels, 1)

    def forward(self, x: Tensor) -> Tensor:
        """Map views (B, 4, 9, S, S) to activated Gaussians (B, 4 * splat * splat, 14) float32.

        Columns: position 3, opacity 1, scale 3, quaternion w x y z 4, colour 3; OpenGL frame
        (y up, front +z). Row ``(view * splat + row) * splat + column``.
        """
        batch, views = x.shape[:2]
        raw = self.conv(self.unet(x.flatten(0, 1).to(self.conv.weight.dtype)))
        raw = raw.reshape(batch, views, raw.shape[1], -1).transpose(2, 3)
        return activate_gaussians(raw.reshape(batch, -1, raw.shape[3]).float())


def activate_gaussians(raw: Tensor) -> Tensor:
    """Turn the network's numbers (..., 14) into positions, opacities, scales, rotations, colours.

    In float32: half precision would round small scales to nothing.
    """
    return torch.cat(
        [
            raw[..., :3].clamp(-1, 1),
            raw[..., 3:4].sigmoid(),
            0.1 * F.softplus(raw[..., 4:7]),
            F.normalize(raw[..., 7:11], dim=-1),
            0.5 * raw[..., 11:14].tanh() + 0.5,
        ],
        dim=-1,
    )
