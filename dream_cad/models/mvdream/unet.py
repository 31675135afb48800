"""MVDream's UNet: Stable Diffusion 2.1's, looking at all views of an object at once."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from dream_cad.models.mvdream.config import UNetConfig
from dream_cad.models.mvdream.image_prompt import Resampler
from dream_cad.models.mvdream.unet_blocks import (
    Downsample,
    ResBlock,
    SpatialTransformer3D,
    Upsample,
    timestep_embedding,
)


@dataclass(frozen=True)
class ImagePrompt:
    """An image to make the views like (ImageDream weights only).

    Attributes:
        features: (b*f, N, 1280) penultimate features of CLIP ViT-H, one row a view.
        latent: (b, 4, h, w) latents of the picture, which stand in for the last view.
    """

    features: Tensor
    latent: Tensor


class MultiViewUNet(nn.Module):
    """Predicts the noise in the latents of all views of one or more objects.

    Args:
        config: sizes.
    """

    def __init__(self, config: UNetConfig) -> None:
        super().__init__()
        self.config = config
        width = config.model_channels
        emb = 4 * width
        self.time_embed = nn.Sequential(nn.Linear(width, emb), nn.SiLU(), nn.Linear(emb, emb))
        self.camera_embed = nn.Sequential(
            nn.Linear(config.camera_dim, emb), nn.SiLU(), nn.Linear(emb, emb)
        )
        if config.ip_dim:
            self.image_embed = Resampler(config.context_dim, config.ip_dim)
        self.input_blocks, skips = self._make_input()
        channels = skips[-1]
        self.middle_block = nn.ModuleList(
            [
                ResBlock(channels, emb, channels),
                self._attend(channels),
                ResBlock(channels, emb, channels),
            ]
        )
        self.output_blocks = self._make_output(skips)
        self.out = nn.Sequential(
            nn.GroupNorm(32, width, eps=1e-5),
            nn.SiLU(),
            nn.Conv2d(width, config.out_channels, 3, padding=1),
        )

    def _attend(self, channels: int) -> SpatialTransformer3D:
        config = self.config
        return SpatialTransformer3D(
            channels,
            channels // config.num_head_channels,
            config.num_head_channels,
            config.context_dim,
            config.transformer_depth,
            config.ip_dim,
            config.ip_weight,
        )

    def _make_input(self) -> tuple[nn.ModuleList, list[int]]:
        """Return the way down, and the channels that each of its blocks leaves for the way up."""
        config = self.config
        channels, factor = config.model_channels, 1
        blocks = [nn.ModuleList([nn.Conv2d(config.in_channels, channels, 3, padding=1)])]
        skips = [channels]
        for level, multiple in enumerate(config.channel_mult):
            for _ in range(config.num_res_blocks):
                width = multiple * config.model_channels
                layers: list[nn.Module] = [ResBlock(channels, 4 * config.model_channels, width)]
                if factor in config.attention_resolutions:
                    layers.append(self._attend(width))
                blocks.append(nn.ModuleList(layers))
                skips.append(channels := width)
            if level < len(config.channel_mult) - 1:
                blocks.append(nn.ModuleList([Downsample(channels)]))
                skips.append(channels)
                factor *= 2
        return nn.ModuleList(blocks), skips

    def _make_output(self, skips: list[int]) -> nn.ModuleList:
        config, skips = self.config, list(skips)
        channels, blocks = skips[-1], []
        for level in reversed(range(len(config.channel_mult))):
            for index in range(config.num_res_blocks + 1):
                width = config.channel_mult[level] * config.model_channels
                layers: list[nn.Module] = [
                    ResBlock(channels + skips.pop(), 4 * config.model_channels, width)
                ]
                channels = width
                if 2**level in config.attention_resolutions:
                    layers.append(self._attend(width))
                if level and index == config.num_res_blocks:
                    layers.append(Upsample(width))
                blocks.append(nn.ModuleList(layers))
        return nn.ModuleList(blocks)

    @property
    def device(self) -> torch.device:
        """Where the network lives."""
        return next(self.parameters()).device

    @property
    def dtype(self) -> torch.dtype:
        """Of the weights."""
        return next(self.parameters()).dtype

    def forward(
        self,
        x: Tensor,
        timesteps: Tensor,
        context: Tensor,
        camera: Tensor | None = None,
        num_frames: int = 1,
        image_prompt: ImagePrompt | None = None,
    ) -> Tensor:
        """Predict the noise.

        Args:
            x: (b*f, 4, h, w) latents, the views of an object next to each other.
            timesteps: (b*f,).
            context: (b*f, 77, C) text embedding of each view.
            camera: (b*f, 16) camera-to-world matrices; None for pictures without a camera.
            num_frames: f, views that attend to each other.
            image_prompt: only for weights that have ``image_embed``.

        Returns:
            (b*f, 4, h, w) in the dtype of the weights.
        """
        dtype = self.dtype
        emb = self.time_embed(timestep_embedding(timesteps, self.config.model_channels).to(dtype))
        if camera is not None:
            emb = emb + self.camera_embed(camera.to(dtype))
        hidden, context = x.to(dtype), context.to(dtype)
        if image_prompt is not None:
            hidden, context = self._show(hidden, context, num_frames, image_prompt)
        skips: list[Tensor] = []
        for block in self.input_blocks:
            hidden = _run(block, hidden, emb, context, num_frames)
            skips.append(hidden)
        hidden = _run(self.middle_block, hidden, emb, context, num_frames)
        for block in self.output_blocks:
            joined = torch.cat([hidden, skips.pop()], dim=1)
            hidden = _run(block, joined, emb, context, num_frames)
        out: Tensor = self.out(hidden)
        return out

    def _show(
        self, x: Tensor, context: Tensor, num_frames: int, prompt: ImagePrompt
    ) -> tuple[Tensor, Tensor]:
        """Append the picture's tokens to the context and its latent as the last view."""
        tokens = self.image_embed(prompt.features.to(x.dtype))
        views = x.reshape(-1, num_frames, *x.shape[1:]).clone()
        views[:, -1] = prompt.latent.to(x.dtype)
        return views.reshape(x.shape), torch.cat([context, tokens], dim=1)


def _run(block: nn.Module, x: Tensor, emb: Tensor, context: Tensor, num_frames: int) -> Tensor:
    for layer in block.children():
        if isinstance(layer, ResBlock):
            x = layer(x, emb)
        elif isinstance(layer, SpatialTransformer3D):
            x = layer(x, context, num_frames)
        else:
            x = layer(x)
    return x
