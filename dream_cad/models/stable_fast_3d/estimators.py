"""Roughness and metallic from the picture, illumination from the planes (spec section 11)."""

from __future__ import annotations

import itertools

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from dream_cad.models.stable_fast_3d.config import EstimatorConfig
from dream_cad.nn.clip import Clip

CLIP_MEAN = (0.48145466, 0.4578275, 0.40821073)
CLIP_STD = (0.26862954, 0.26130258, 0.27577711)
_OUTPUT_BIAS = 1.0


class ImageEstimator(nn.Module):
    """A Beta distribution for each material value, from CLIP's feature of the picture."""

    def __init__(self, config: EstimatorConfig, *, with_text: bool = False) -> None:
        super().__init__()
        self.model = Clip(config.clip, with_text=with_text)
        self.heads = nn.ModuleDict({name: _beta_head(config) for name in config.material_heads})

    def features(self, images: Tensor) -> Tensor:
        """Map pictures (B, 3, H, W) in [0, 1] on black to features (B, C)."""
        clip = self.model
        size = (clip.config.image_size,) * 2
        small = F.interpolate(images, size, mode="bilinear", align_corners=False)
        mean, std = (
            torch.tensor(values, device=images.device).view(1, 3, 1, 1)
            for values in (CLIP_MEAN, CLIP_STD)
        )
        out: Tensor = clip.visual(((small - mean) / std).to(clip.visual.proj.dtype))
        return out

    def distributions(self, features: Tensor) -> dict[str, tuple[Tensor, Tensor]]:
        """Return alpha and beta (B,) by the heads' names, from features (B, C)."""
        found = {}
        for name, head in self.heads.items():
            shared, first, second = head.children()
            hidden = shared(features)
            raw = (part(hidden)[:, 0].float() for part in (first, second))
            alpha, beta = (F.softplus(value + _OUTPUT_BIAS) for value in raw)
            found[name] = (alpha, beta)
        return found

    def forward(self, images: Tensor) -> dict[str, Tensor]:
        """Map pictures (B, 3, H, W) in [0, 1] on black to material values (B,) in [0, 1]."""
        found = self.distributions(self.features(images))
        return {name: beta_mode(*parameters) for name, parameters in found.items()}


def _beta_head(config: EstimatorConfig) -> nn.Module:
    width = config.hidden_features
    widths = [config.clip.embed_dim, width, width, width]
    shared = [
        layer
        for width_in, width_out in itertools.pairwise(widths)
        for layer in (nn.Linear(width_in, width_out), nn.ReLU())
    ]
    ends = (
        nn.Sequential(nn.Linear(width, width), nn.ReLU(), nn.Linear(width, 1)) for _ in range(2)
    )
    return nn.ModuleList([nn.Sequential(*shared), *ends])


def beta_mode(alpha: Tensor, beta: Tensor) -> Tensor:
    """Return the mode of Beta distributions, 1 where both parameters are below 1.

    At alpha = beta = 1 every value is as likely; there it is 1/2, where upstream gives NaN.
    """
    above, below = (alpha - 1).clamp(min=0), (beta - 1).clamp(min=0)
    total = above + below
    mode = torch.where(total > 0, above / torch.where(total > 0, total, 1), 0.5)
    return torch.where((alpha < 1) & (beta < 1), 1.0, mode)


class GlobalEstimator(nn.Module):
    """Amplitudes of the spherical gaussians that light the picture."""

    def __init__(self, config: EstimatorConfig, triplane_channels: int) -> None:
        super().__init__()
        width = config.illumination_features
        widths = [3 * triplane_channels] + [width] * config.illumination_layers
        layers: list[nn.Module] = []
        for width_in, width_out in itertools.pairwise(widths):
            layers += [nn.Conv2d(width_in, width_out, 3, stride=2), nn.ReLU()]
        self.layers = nn.Sequential(*layers)
        hidden = [layer for _ in range(3) for layer in (nn.Linear(width, width), nn.ReLU())]
        head = nn.Sequential(*hidden, nn.Linear(width, config.amplitudes))
        self.heads = nn.ModuleDict({"sg_amplitudes": head})

    def forward(self, planes: Tensor) -> Tensor:
        """Map token planes (B, 3, C, p, p) to amplitudes (B, 24, 1)."""
        pooled = self.layers(planes.flatten(1, 2)).amax(dim=(2, 3))
        raw = self.heads["sg_amplitudes"](pooled).float()
        return F.softplus(raw + _OUTPUT_BIAS).unsqueeze(-1)
