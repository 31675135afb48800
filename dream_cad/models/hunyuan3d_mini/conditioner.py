"""Picture to condition tokens: DINOv2, and a mark for each of several views (spec section 3)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from dream_cad.nn.dinov2 import Dinov2, Dinov2Config

_MEAN = (0.485, 0.456, 0.406)
_STD = (0.229, 0.224, 0.225)
_VIEW_PERIOD = 10000.0


@dataclass(frozen=True)
class ConditionerConfig:
    """The image encoder.

    Attributes:
        dinov2: sizes of the encoder.
        image_size: side in pixels of the picture it sees.
        use_cls_token: whether the CLS token is part of the condition.
    """

    dinov2: Dinov2Config = field(default_factory=Dinov2Config)
    image_size: int = 518
    use_cls_token: bool = True


def view_embedding(index: int, width: int) -> Tensor:
    """Return the fixed vector (width,) float32 that marks the tokens of a view.

    Views are numbered front 0, left 1, back 2, right 3.
    """
    half = width // 2
    omega = _VIEW_PERIOD ** (-torch.arange(half, dtype=torch.float64) / half)
    angles = index * omega
    return torch.cat((angles.sin(), angles.cos())).float()


class _MainEncoder(nn.Module):
    def __init__(self, config: Dinov2Config) -> None:
        super().__init__()
        self.model = Dinov2(config)


class Conditioner(nn.Module):
    """Pictures in [-1, 1] to condition tokens."""

    def __init__(self, config: ConditionerConfig) -> None:
        super().__init__()
        self.config = config
        self.main_image_encoder = _MainEncoder(config.dinov2)

    def forward(self, images: Tensor) -> Tensor:
        """Map pictures (B, 3, H, W) in [-1, 1] to tokens (B, M, C)."""
        model = self.main_image_encoder.model
        pixels = self.prepare(images).to(model.embeddings.cls_token.dtype)
        tokens: Tensor = model(pixels)
        kept: Tensor = tokens if self.config.use_cls_token else tokens[:, 1:]
        return kept

    def views(self, images: Tensor, indices: Sequence[int]) -> Tensor:
        """Map views (1, V, 3, H, W) with their numbers to tokens (1, V * M, C)."""
        tokens = self.forward(images[0])
        marks = torch.stack([view_embedding(index, tokens.shape[-1]) for index in indices])
        marked: Tensor = tokens + marks.to(tokens)[:, None]
        return marked.flatten(0, 1)[None]

    def prepare(self, images: Tensor) -> Tensor:
        """Resize the short side, crop the centre, and normalise; (B, 3, S, S) float32."""
        size = self.config.image_size
        pixels = (images.float() + 1.0) / 2.0
        height, width = pixels.shape[-2:]
        short = min(height, width)
        if short != size:
            shape = (int(size * height / short), int(size * width / short))
            pixels = F.interpolate(
                pixels, size=shape, mode="bilinear", align_corners=False, antialias=True
            )
        # Half a pixel is rounded to even, as the published preparation does.
        top, left = (round((side - size) / 2) for side in pixels.shape[-2:])
        pixels = pixels[..., top : top + size, left : left + size]
        mean, std = (torch.tensor(v, device=pixels.device).view(3, 1, 1) for v in (_MEAN, _STD))
        return (pixels - mean) / std


def unconditional(condition: Tensor) -> Tensor:
    """Return the condition that says nothing: zeros of the same shape and dtype."""
    return torch.zeros_like(condition)
