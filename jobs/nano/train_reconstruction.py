"""Train TripoSR's architecture at nano size: picture → occupancy and colour."""

from __future__ import annotations

import logging
import math
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import cast

import numpy as np
import torch
from numpy.typing import NDArray
from safetensors.torch import load_file
from torch import Tensor, nn
from torch.nn import functional as F

from dream_cad.models.triposr.config import TripoSRConfig
from dream_cad.models.triposr.network import TripoSRNetwork
from jobs.nano.checkpoint import write_checkpoint
from jobs.nano.dataset import Shard, load_shard
from jobs.nano.optimizer import Optimizer, Schedule, WeightAverage
from jobs.nano.render import BACKGROUND

logger = logging.getLogger(__name__)

SOFTNESS = 0.015
"""Distance over which the target occupancy goes from 0.27 to 0.73: keeps the density smooth
enough for linear interpolation in ``exp`` space to give smooth surfaces."""

_COLOR_REACH = 0.06
_COLOR_WEIGHT = 2.0
_DICE_WEIGHT = 0.5
_GREY = BACKGROUND / 255.0


@dataclass
class Samples:
    """All samples in memory; grows while shards are still being made."""

    folder: Path
    held_back: int = 1

    def __post_init__(self) -> None:
        self._seen: set[Path] = set()
        self.pictures: list[NDArray[np.uint8]] = []
        self.points: list[NDArray[np.float16]] = []
        self.distances: list[NDArray[np.float16]] = []
        self.colors: list[NDArray[np.uint8]] = []
        self.grow()

    def grow(self) -> None:
        """Load the shards that have appeared since."""
        for path in sorted(set(self.folder.glob("shard_????.npz")) - self._seen):
            self._seen.add(path)
            self.keep(load_shard(path))

    def keep(self, shard: Shard) -> None:
        """Add the samples of one shard."""
        self.pictures.extend(shard.pictures)
        self.points.extend(shard.points)
        self.distances.extend(shard.distances)
        self.colors.extend(shard.colors)

    def __len__(self) -> int:
        return len(self.pictures)


def density_threshold_logit(config: TripoSRConfig) -> float:
    """Return the raw density whose activation equals the surface threshold."""
    return math.log(config.threshold) - config.density_bias


def batches(
    samples: Samples, batch_size: int, points: int, rng: np.random.Generator
) -> Iterator[tuple[Tensor, Tensor, Tensor, Tensor]]:
    """Yield (pictures (B,3,S,S), points (B,P,3), distances (B,P), colours (B,P,3)) for ever."""
    while True:
        order = rng.permutation(len(samples))
        for start in range(0, len(order) - batch_size + 1, batch_size):
            chosen = order[start : start + batch_size]
            total = len(samples.points[0])
            part = rng.integers(0, total - points + 1)
            window = slice(part, part + points)
            pictures = np.stack([samples.pictures[i][..., :3] for i in chosen])
            yield (
                augment(torch.from_numpy(pictures).permute(0, 3, 1, 2).float() / 255.0, rng),
                torch.from_numpy(np.stack([samples.points[i][window] for i in chosen])).float(),
                torch.from_numpy(np.stack([samples.distances[i][window] for i in chosen])).float(),
                torch.from_numpy(np.stack([samples.colors[i][window] for i in chosen])).float()
                / 255.0,
            )
        samples.grow()


def augment(
    pictures: Tensor, rng: np.random.Generator, *, least_sharpness: float = 1 / 3
) -> Tensor:
    """Blur, shift, scale and noise as the text stage and matting would.

    Args:
        pictures: (B, 3, S, S) colours on BACKGROUND, or with their mask (B, 4, S, S), in [0, 1].
        rng: source of the changes.
        least_sharpness: half of the batches are scaled to this share of their size and back.
    """
    size = pictures.shape[-1]
    if rng.random() < 0.5:
        small = int(rng.integers(int(size * least_sharpness), size))
        pictures = F.interpolate(pictures, size=(small, small), mode="bilinear", antialias=True)
        pictures = F.interpolate(pictures, size=(size, size), mode="bilinear")
    count, channels = pictures.shape[:2]
    zoom = torch.from_numpy(rng.uniform(0.94, 1.08, count)).float()
    shift = torch.from_numpy(rng.uniform(-0.05, 0.05, (count, 2))).float()
    theta = torch.zeros(count, 2, 3)
    theta[:, 0, 0] = theta[:, 1, 1] = zoom
    theta[:, :, 2] = shift
    grid = F.affine_grid(theta, list(pictures.shape), align_corners=False)
    empty = torch.tensor([_GREY, _GREY, _GREY, 0.0])[:channels].view(1, -1, 1, 1)
    moved = F.grid_sample(pictures - empty, grid, align_corners=False) + empty
    colors, mask = moved[:, :3], moved[:, 3:]
    gain = torch.from_numpy(rng.uniform(0.92, 1.08, (count, 1, 1, 1))).float()
    noise = torch.from_numpy(rng.normal(0, 0.015, colors.shape)).float()
    return torch.cat([colors * gain + noise, mask], dim=1).clamp(0.0, 1.0)


def reconstruction_loss(
    network: TripoSRNetwork, batch: tuple[Tensor, Tensor, Tensor, Tensor]
) -> tuple[Tensor, Tensor]:
    """Return the loss and the occupancy IoU of the points.

    The loss is the cross entropy of occupancy, its soft Dice loss for each object (Milletari et al.
    2016, equation 3), which weighs the thin plates of a table as much as the bulk of a sofa, and
    the colour error near the surface.
    """
    pictures, points, distances, colors = batch
    raw, color = network.query(network.scene_codes(pictures), points)
    logit = raw - density_threshold_logit(network.config)
    target = torch.sigmoid(-distances / SOFTNESS)
    occupancy = F.binary_cross_entropy_with_logits(logit, target)
    filled = torch.sigmoid(logit)
    overlap = 2.0 * (filled * target).sum(1) + 1.0
    dice = 1.0 - overlap / (filled.square().sum(1) + target.square().sum(1) + 1.0)
    near = (distances.abs() < _COLOR_REACH).float()
    squared = (color - colors).square().sum(-1) * near
    color_loss = squared.sum() / near.sum().clamp(min=1.0)
    inside, truth = logit > 0, distances < 0
    iou = (inside & truth).sum() / (inside | truth).sum().clamp(min=1)
    loss = occupancy + _DICE_WEIGHT * dice.mean() + _COLOR_WEIGHT * color_loss
    return loss, iou.detach()


def hidden_matrices(network: nn.Module) -> list[nn.Parameter]:
    """Return the weights of the transformer layers, which Muon updates."""
    return [
        parameter
        for name, parameter in network.named_parameters()
        if parameter.ndim == 2 and ("transformer_blocks." in name or "encoder.layer." in name)
    ]


def initialize(network: TripoSRNetwork, seed: int) -> None:
    """Give the layers small random weights, and the density its surface level as bias."""
    torch.manual_seed(seed)
    for name, parameter in network.named_parameters():
        with torch.no_grad():
            if parameter.ndim == 1:
                parameter.fill_(1.0 if name.endswith("weight") else 0.0)
            elif name.startswith("decoder."):
                nn.init.kaiming_normal_(parameter)
            else:
                parameter.normal_(0.0, min(0.03, 1.0 / math.sqrt(parameter[0].numel())))
    with torch.no_grad():
        network.tokenizer.embeddings.normal_(0.0, 0.5)
        last = cast(nn.Linear, network.decoder.layers[-1])
        last.weight.mul_(0.3)
        last.bias[0] = density_threshold_logit(network.config) - 1.0


def train_reconstruction(
    data: Path,
    folder: Path,
    *,
    schedule: Schedule,
    batch_size: int = 32,
    points: int = 512,
    rate: float = 2e-3,
    seed: int = 0,
    device: str = "cpu",
    start_from: Path | None = None,
) -> None:
    """Train on the shards in ``data`` and write the averaged weights to ``folder``.

    Args:
        data: folder of the shards.
        folder: gets the checkpoint, every 500 steps and at the end.
        schedule: steps, time and learning-rate factor.
        batch_size: objects a step.
        points: field queries an object.
        rate: highest learning rate.
        seed: of weights, order and augmentation.
        device: torch device.
        start_from: a folder written before, whose weights are trained on.
    """
    config = TripoSRConfig.nano()
    network = TripoSRNetwork(config)
    initialize(network, seed)
    if start_from is not None:
        weights = load_file(start_from / "model.safetensors")
        network.load_state_dict({key: value.float() for key, value in weights.items()})
    network.to(device).train()
    optimizer = Optimizer(network, hidden_matrices(network), rate)
    average = WeightAverage(network)
    source = batches(Samples(data), batch_size, points, np.random.default_rng(seed))
    running = np.zeros(2)
    step = 0
    while schedule.progress(step) < 1.0:
        batch = tuple(tensor.to(device) for tensor in next(source))
        loss, iou = reconstruction_loss(network, batch)  # type: ignore[arg-type]
        optimizer.step(loss, schedule.factor(step))
        average.update(network)
        step += 1
        running += (loss.item(), iou.item())
        if step % 50 == 0:
            logger.info(
                "step %d (%.1f %%) loss %.4f iou %.3f",
                step,
                100 * schedule.progress(step),
                *(running / 50),
            )
            running[:] = 0
        if step % 500 == 0:
            write_checkpoint(config.to_yaml, average.state, folder)
    write_checkpoint(config.to_yaml, average.state, folder)
