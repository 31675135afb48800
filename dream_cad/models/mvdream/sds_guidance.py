"""Score distillation: how far views are from what MVDream would draw, and in which direction."""

from __future__ import annotations

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from dream_cad.exceptions import GenerationError
from dream_cad.models.mvdream.cameras import normalize_cameras
from dream_cad.models.mvdream.network import MVDreamNetwork
from dream_cad.models.mvdream.sampler import create_scheduler
from dream_cad.models.mvdream.sds_cameras import N_VIEW
from dream_cad.models.mvdream.unet import MultiViewUNet

_TINY = 1e-8


@dataclass(frozen=True)
class SDSLoss:
    """What the loss is made of; the defaults are the published ones.

    Attributes:
        guidance_scale: classifier-free guidance.
        by_reconstruction: compare latents with the denoised ones; else the classic gradient.
        std_rescale: how far the guided image takes the contrast of the unguided one.
    """

    guidance_scale: float = 50.0
    by_reconstruction: bool = True
    std_rescale: float = 0.5


def distillation_loss(
    unet: MultiViewUNet,
    latents: Tensor,
    noise: Tensor,
    timestep: int,
    text: Tensor,
    cameras: Tensor,
    settings: SDSLoss,
) -> Tensor:
    """Return the loss (), differentiable in the latents alone.

    Args:
        unet: frozen; it runs without gradients.
        latents: (B, 4, h, w) of views in groups of four.
        noise: standard normal of that shape.
        timestep: noise level of the whole batch.
        text: (2 * B, 77, C), the prompt's rows first, then the negative prompt's.
        cameras: (B, 4, 4) camera-to-world, z up; normalised here.
        settings: of the loss.

    Raises:
        GenerationError: the network gave NaN or infinity.
    """
    alpha_bar = create_scheduler("ddim").alphas_cumprod[timestep].to(latents.device)
    signal, amount = alpha_bar.sqrt(), (1 - alpha_bar).sqrt()
    with torch.no_grad():
        noisy = signal * latents + amount * noise
        steps = torch.full((2 * len(latents),), timestep, device=latents.device)
        flat = normalize_cameras(cameras).repeat(2, 1).to(latents.device)
        predicted = unet(noisy.repeat(2, 1, 1, 1), steps, text, flat, N_VIEW).float()
        cond, uncond = predicted.chunk(2)
        guided = uncond + settings.guidance_scale * (cond - uncond)
        if not torch.isfinite(guided).all():
            raise GenerationError(
                "The guidance gave NaN or infinity.",
                hint="Where half precision overflowed, precision 'bf16' or 'fp32' helps.",
            )
        if settings.by_reconstruction:
            target = (noisy - amount * guided) / signal
            plain = (noisy - amount * cond) / signal
            target = _rescaled(target, plain, settings.std_rescale)
        else:
            target = latents - (1 - alpha_bar) * (guided - noise)
    return 0.5 * F.mse_loss(latents, target, reduction="sum") / len(latents)


def _rescaled(guided: Tensor, plain: Tensor, share: float) -> Tensor:
    """Pull the contrast of each object's views towards that of the unguided ones."""
    if share == 0:
        return guided

    def contrast(views: Tensor) -> Tensor:
        return views.reshape(-1, views.numel() // (len(views) // N_VIEW)).std(dim=1) + _TINY

    factor = (contrast(plain) / contrast(guided)).repeat_interleave(N_VIEW).view(-1, 1, 1, 1)
    return share * factor * guided + (1 - share) * guided


def encode_views(network: MVDreamNetwork, views: Tensor, image_size: int, noise: Tensor) -> Tensor:
    """Resize rendered views (B, H, W, 3) in [0, 1] and encode them to latents; differentiable."""
    pictures = F.interpolate(
        views.permute(0, 3, 1, 2),
        size=(image_size, image_size),
        mode="bilinear",
        align_corners=False,
    )
    return network.encode(pictures, noise)
