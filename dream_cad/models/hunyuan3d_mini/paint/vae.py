"""Pictures and maps to latents and back, one picture at a time (spec section 9)."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
from diffusers import AutoencoderKL
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor, nn

from dream_cad.exceptions import GenerationError
from dream_cad.models.hunyuan3d_mini.paint.samplers import NoiseSource

_REFERENCE_BACKDROP = 127
_MAP_BACKDROP = 255

Pictures = NDArray[np.uint8]


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
        """Unscaled posterior means (F, 4, h, w) of pictures (F, 3, H, W) in [-1, 1].

        Raises:
            GenerationError: they became NaN or infinite; so do the other two.
        """
        return _finite(torch.cat([self._posterior(picture).mean for picture in pictures]), "encode")

    def sample(self, pictures: Tensor, noise: NoiseSource) -> Tensor:
        """Scaled posterior samples (F, 4, h, w) of pictures (F, 3, H, W) in [-1, 1], one draw."""
        posteriors = [self._posterior(picture) for picture in pictures]
        mean = _finite(torch.cat([posterior.mean for posterior in posteriors]), "encode")
        std = torch.cat([posterior.std for posterior in posteriors])
        drawn = noise(tuple(mean.shape)).to(mean)
        return (mean + std * drawn) * self.scaling

    def decode(self, latents: Tensor) -> Tensor:
        """Decode scaled latents (F, 4, h, w) to pictures (F, H, W, 3) float32 in [0, 1]."""
        scaled = latents.to(self.vae.dtype) / self.scaling
        views = [self.vae.decode(view[None], return_dict=False)[0] for view in scaled]
        pictures = _finite(torch.cat(views), "decode").float() / 2 + 0.5
        return pictures.clamp(0, 1).permute(0, 2, 3, 1)

    def _posterior(self, picture: Tensor) -> Any:
        own = next(self.vae.parameters())
        return self.vae.encode(picture[None].to(own), return_dict=False)[0]


def to_uint8(pictures: Tensor) -> Pictures:
    """Round pictures in [0, 1] to uint8 of the same shape."""
    rounded: Pictures = (pictures * 255).round().to(torch.uint8).cpu().numpy()
    return rounded


def _finite(values: Tensor, step: str) -> Tensor:
    if not torch.isfinite(values).all():
        raise GenerationError(
            f"The autoencoder gave NaN or infinite numbers at the step {step!r}.",
            hint="Where half precision overflowed, precision 'bf16' or 'fp32' helps.",
        )
    return values


def reference_tensor(pictures: Pictures) -> Tensor:
    """Pictures (F, H, W, 3 or 4) as (F, 3, H, W) float32 in [-1, 1]; alpha on grey 127."""
    return 2 * _to_channels_first(pictures, _REFERENCE_BACKDROP) - 1


def map_tensor(maps: Pictures) -> Tensor:
    """Maps (F, H, W, 3 or 4) as (F, 3, H, W) float16 in [-1, 1]; alpha on white.

    The arithmetic is in float16 as in the published pipeline, whatever the networks are in.
    """
    return (_to_channels_first(maps, _MAP_BACKDROP).half() - 0.5) * 2


def _to_channels_first(pictures: Pictures, backdrop: int) -> Tensor:
    """Pictures as (F, 3, H, W) float32 in [0, 1], those with alpha on a grey backdrop."""
    opaque = [_on_backdrop(picture, backdrop) for picture in pictures]
    values = np.stack(opaque).astype(np.float32) / np.float32(255)
    return torch.from_numpy(values).permute(0, 3, 1, 2).contiguous()


def _on_backdrop(picture: Pictures, backdrop: int) -> Pictures:
    """Blend (H, W, 4) in uint8, as PIL does and published runs did; (H, W, 3) stays as it is."""
    if picture.shape[-1] == 3:
        return picture
    image = Image.fromarray(picture)
    canvas = Image.new("RGB", image.size, (backdrop,) * 3)
    canvas.paste(image, mask=image.getchannel("A"))
    return np.asarray(canvas)
