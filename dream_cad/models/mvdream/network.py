"""The networks that make views from text: text encoder, multi-view UNet, autoencoder."""

from __future__ import annotations

from typing import Any

import torch
from diffusers import AutoencoderKL
from torch import Tensor, nn

from dream_cad.models.mvdream.config import MVDreamConfig, VAEConfig
from dream_cad.models.mvdream.unet import MultiViewUNet
from dream_cad.nn.clip_text import TextEncoder


def make_vae(config: VAEConfig) -> Any:
    """Return an empty autoencoder: Stable Diffusion's own, from diffusers."""
    levels = len(config.block_out_channels)
    vae_class: Any = AutoencoderKL  # diffusers has no types
    return vae_class(
        in_channels=config.in_channels,
        out_channels=config.out_channels,
        latent_channels=config.latent_channels,
        down_block_types=("DownEncoderBlock2D",) * levels,
        up_block_types=("UpDecoderBlock2D",) * levels,
        block_out_channels=config.block_out_channels,
        layers_per_block=config.layers_per_block,
        norm_num_groups=config.norm_num_groups,
        sample_size=config.sample_size,
        scaling_factor=config.scaling_factor,
    )


class MVDreamNetwork(nn.Module):
    """Text encoder, UNet and autoencoder of one checkpoint.

    Args:
        config: sizes.
    """

    def __init__(self, config: MVDreamConfig) -> None:
        super().__init__()
        self.config = config
        self.text_encoder = TextEncoder(config.text)
        self.unet = MultiViewUNet(config.unet)
        self.vae = make_vae(config.vae)

    @property
    def device(self) -> torch.device:
        """Where the networks live."""
        return self.unet.device

    @torch.no_grad()
    def decode(self, latents: Tensor) -> Tensor:
        """Decode latents (F, 4, h, w) to pictures (F, H, W, 3) float32 in [0, 1].

        One view at a time, so that memory does not grow with their number.
        """
        scaled = latents.to(self.unet.dtype) / self.config.vae.scaling_factor
        views = [self.vae.decode(view[None]).sample for view in scaled]
        pictures = torch.cat(views).float() / 2 + 0.5
        return pictures.clamp(0, 1).permute(0, 2, 3, 1)

    def encode(self, pictures: Tensor, noise: Tensor | None = None) -> Tensor:
        """Encode pictures (F, 3, H, W) in [0, 1] to scaled latents (F, 4, h, w); differentiable.

        Args:
            pictures: the views.
            noise: standard normal, of the latents' shape; None takes the posterior's mean.
        """
        posterior = self.vae.encode(2 * pictures.to(self.unet.dtype) - 1).latent_dist
        latents: Tensor = posterior.mean.float()
        if noise is not None:
            latents = latents + posterior.std.float() * noise
        return latents * self.config.vae.scaling_factor
