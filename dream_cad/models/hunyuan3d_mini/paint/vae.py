"""Pictures and maps to latents and back, one picture at a time (spec section 9)."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
from diffusers import AutoencoderKL
from numpy.typing import NDArray
from torch import Tensor, nn

from dream_cad.models.hunyuan3d_mini.paint.samplers import NoiseSource

_REFERENCE_BACKDROP = 127.0
_MAP_BACKDROP = 255.0


def create_vae(config: Mapping[str, Any]) -> nn.Module:
    """Return an empty autoencoder of a published ``vae/config.json``: Stable Diffusion's own."""
    vae_class: Any = AutoencoderKL  # diffusers has no types
    vae: nn.Module = vae_class.from_config(dict(config))
    return vae


class LatentCodec:
    """An autoencoder with its scaling; one picture at a time, so that memory stays small.

    Args:
        vae: diffusers' AutoencoderKL.
    """

    def __init__(self, vae: Any) -> None:
        self.vae = vae
        self.scaling = float(vae.config.scaling_factor)
        self.downsampling = 2 ** (len(vae.config.block_out_channels) - 1)

    def mean(self, pictures: Tensor) -> Tensor:
        """Unscaled posterior means (F, 4, h, w) of pictures (F, 3, H, W) in [-1, 1]."""
        return torch.cat([self._posterior(picture).mean for picture in pictures])

    def sample(self, pictures: Tensor, noise: NoiseSource) -> Tensor:
        """Scaled posterior samples (F, 4, h, w) of pictures (F, 3, H, W) in [-1, 1], one draw."""
        posteriors = [self._posterior(picture) for picture in pictures]
        mean = torch.cat([posterior.mean for posterior in posteriors])
        std = torch.cat([posterior.std for posterior in posteriors])
        drawn = noise(tuple(mean.shape)).to(mean)
        return (mean + std * drawn) * self.scaling

    def decode(self, latents: Tensor) -> NDArray[np.uint8]:
        """Decode scaled latents (F, 4, h, w) to pictures (F, H, W, 3), rounded to uint8."""
        scaled = latents.to(self.vae.dtype) / self.scaling
        views = [self.vae.decode(view[None], return_dict=False)[0] for view in scaled]
        pictures = (torch.cat(views).float() / 2 + 0.5).clamp(0, 1).permute(0, 2, 3, 1)
        rounded: NDArray[np.uint8] = (pictures * 255).round().to(torch.uint8).cpu().numpy()
        return rounded

    def _posterior(self, picture: Tensor) -> Any:
        own = next(self.vae.parameters())
        return self.vae.encode(picture[None].to(own), return_dict=False)[0]


def reference_tensor(pictures: NDArray[np.uint8]) -> Tensor:
    """Pictures (F, H, W, 3 or 4) as (F, 3, H, W) float32 in [-1, 1]; alpha on grey 127."""
    return 2 * _to_channels_first(_on_backdrop(pictures, _REFERENCE_BACKDROP)) - 1


def map_tensor(maps: NDArray[np.uint8]) -> Tensor:
    """Maps (F, H, W, 3 or 4) as (F, 3, H, W) float16 in [-1, 1]; alpha on white.

    The arithmetic is in float16 as in the published pipeline, whatever the networks are in.
    """
    return (_to_channels_first(_on_backdrop(maps, _MAP_BACKDROP)).half() - 0.5) * 2


def _on_backdrop(pictures: NDArray[np.uint8], backdrop: float) -> NDArray[np.float32]:
    values = pictures.astype(np.float32)
    if pictures.shape[-1] == 3:
        return values
    alpha = values[..., 3:] / np.float32(255)
    blended: NDArray[np.float32] = values[..., :3] * alpha + np.float32(backdrop) * (1 - alpha)
    return blended


def _to_channels_first(values: NDArray[np.float32]) -> Tensor:
    return torch.from_numpy(values / np.float32(255)).permute(0, 3, 1, 2).contiguous()
