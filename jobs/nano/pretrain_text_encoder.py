"""Teach the text encoder what its words look like before the denoiser learns to read it.

A denoiser as small as nano's learns slowly which of sixteen tokens says "orange". Here the encoder
alone learns, in seconds a thousand steps, to tell from the last token of a caption the category,
the colour and a 12 x 12 thumbnail of the picture, so that the token's state holds all of them.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F
from transformers import CLIPTextModel

from jobs.nano.catalogue import CATEGORIES, COLORS
from jobs.nano.dataset import load_shard

logger = logging.getLogger(__name__)

THUMBNAIL = 12
_THUMBNAIL_WEIGHT = 4.0
_BATCH = 128


@dataclass(frozen=True)
class Captions:
    """Captions with what they say.

    Attributes:
        texts: N captions.
        categories: (N,) int64 index into CATEGORIES; colors: (N,) int64 index into COLORS.
        thumbnails: (N, 3, T, T) float32 in [-1, 1].
    """

    texts: list[str]
    categories: Tensor
    colors: Tensor
    thumbnails: Tensor


def load_captions(data: Path) -> Captions:
    """Load captions and thumbnails of every shard in ``data``."""
    texts: list[str] = []
    categories: list[str] = []
    colors: list[str] = []
    thumbnails: list[Tensor] = []
    for path in sorted(data.glob("shard_????.npz")):
        shard = load_shard(path)
        texts += shard.captions
        categories += shard.categories
        colors += shard.color_names
        pictures = torch.from_numpy(shard.text_pictures[..., :3].copy()).permute(0, 3, 1, 2).float()
        thumbnails.append(F.interpolate(pictures, size=THUMBNAIL, mode="area") / 127.5 - 1.0)
    return Captions(
        texts,
        torch.tensor([list(CATEGORIES).index(name) for name in categories]),
        torch.tensor([list(COLORS).index(name) for name in colors]),
        torch.cat(thumbnails),
    )


class CaptionHeads(nn.Module):
    """Read category, colour and thumbnail off a token's state (B, W)."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.category = nn.Linear(width, len(CATEGORIES))
        self.color = nn.Linear(width, len(COLORS))
        self.thumbnail = nn.Linear(width, 3 * THUMBNAIL * THUMBNAIL)

    def forward(self, state: Tensor, captions: Captions, chosen: Tensor) -> Tensor:
        """Return the loss of the chosen captions (B,)."""
        thumbnails = captions.thumbnails[chosen].flatten(1)
        error: Tensor = F.mse_loss(self.thumbnail(state), thumbnails)
        category = F.cross_entropy(self.category(state), captions.categories[chosen])
        color = F.cross_entropy(self.color(state), captions.colors[chosen])
        return category + color + _THUMBNAIL_WEIGHT * error


def pretrain_text_encoder(
    encoder: CLIPTextModel,
    tokenize: Callable[[list[str]], dict[str, Tensor]],
    captions: Captions,
    *,
    steps: int = 1500,
    rate: float = 1e-3,
    seed: int = 0,
) -> float:
    """Train ``encoder`` in place and return the mean loss of the last 100 steps.

    Args:
        encoder: the text encoder; its last hidden state is what the denoiser reads.
        tokenize: captions to ``input_ids`` and ``attention_mask``, both (B, T).
        captions: what is learnt.
        steps: optimiser steps of 128 captions.
        rate: highest learning rate; falls to zero along a cosine.
        seed: of heads and order.
    """
    torch.manual_seed(seed)
    heads = CaptionHeads(encoder.config.hidden_size)
    parameters = [*encoder.parameters(), *heads.parameters()]
    optimizer = torch.optim.AdamW(parameters, lr=rate, weight_decay=0.05)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, steps)
    tokens = tokenize(captions.texts)
    ends = tokens["attention_mask"].sum(1) - 1
    rng = np.random.default_rng(seed)
    losses: list[float] = []
    encoder.train()
    for step in range(steps):
        chosen = torch.from_numpy(rng.integers(0, len(captions.texts), _BATCH))
        states = encoder(
            tokens["input_ids"][chosen], attention_mask=tokens["attention_mask"][chosen]
        ).last_hidden_state
        loss = heads(states[torch.arange(_BATCH), ends[chosen]], captions, chosen)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        schedule.step()
        losses.append(loss.item())
        if (step + 1) % 500 == 0:
            logger.info("text encoder step %d loss %.4f", step + 1, np.mean(losses[-100:]))
    return float(np.mean(losses[-100:]))
