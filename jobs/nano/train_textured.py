"""Train Stable Fast 3D's architecture at nano size: picture → shape, colour, normals.

The material estimator shares nothing with the rest; ``train_material`` teaches it.
"""

from __future__ import annotations

import logging
import math
from collections.abc import Iterator
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import NamedTuple, cast

import numpy as np
import torch
from numpy.typing import NDArray
from safetensors.torch import load_file
from torch import Tensor, nn
from torch.nn import functional as F

from dream_cad.models.stable_fast_3d.config import StableFast3DConfig
from dream_cad.models.stable_fast_3d.config_file import write_config
from dream_cad.models.stable_fast_3d.network import StableFast3DNetwork
from jobs.nano.checkpoint import write_checkpoint
from jobs.nano.dataset import BOX, Shard
from jobs.nano.material_data import LOOKS, looks_of, material_path
from jobs.nano.normals import shard_normals
from jobs.nano.optimizer import Optimizer, Schedule, WeightAverage
from jobs.nano.train_reconstruction import SOFTNESS, Samples, augment

logger = logging.getLogger(__name__)

_REACH = 0.06
"""Colours and normals are learnt within so far of the surface."""

_WEIGHTS = {"dice": 0.5, "color": 2.0, "normal": 0.1}
_RIM_SHARE = 16


@dataclass
class TexturedSamples(Samples):
    """Samples with normals, which are computed once beside the shards.

    Attributes:
        looks: (LOOKS, S, S, 4) uint8 of each item whose material samples lie in ``materials``.
    """

    normals: list[NDArray[np.int8]] = field(default_factory=list)
    looks: list[NDArray[np.uint8]] = field(default_factory=list)

    def keep(self, shard: Shard) -> None:
        """Add the samples of one shard."""
        super().keep(shard)
        self.normals.extend(shard_normals(shard, self.folder / "normals"))
        path = material_path(self.folder / "materials", shard.seeds[0])
        if path.exists():
            self.looks.extend(looks_of(path))


class Batch(NamedTuple):
    """Pictures (B, 3, S, S), points (B, P, 3), and what is true there."""

    pictures: Tensor
    points: Tensor
    distances: Tensor
    colors: Tensor
    normals: Tensor


def batches(
    samples: TexturedSamples, batch_size: int, points: int, rng: np.random.Generator
) -> Iterator[Batch]:
    """Yield batches for ever."""

    def stack(arrays: list[NDArray[np.generic]], chosen: NDArray[np.intp], window: slice) -> Tensor:
        return torch.from_numpy(np.stack([arrays[i][window] for i in chosen])).float()

    while True:
        order = rng.permutation(len(samples))
        for start in range(0, len(order) - batch_size + 1, batch_size):
            chosen = order[start : start + batch_size]
            first = rng.integers(0, len(samples.points[0]) - points + 1)
            window = slice(first, first + points)
            pictures = stack(samples.pictures, chosen, slice(None))[..., :3]  # type: ignore[arg-type]
            pictures = pictures.permute(0, 3, 1, 2)
            show_materials(pictures, samples, chosen, rng)
            positions = stack(samples.points, chosen, window)  # type: ignore[arg-type]
            distances = stack(samples.distances, chosen, window)  # type: ignore[arg-type]
            rim = torch.from_numpy(rim_points(batch_size, points // _RIM_SHARE, rng))
            positions[:, : rim.shape[1]] = rim
            distances[:, : rim.shape[1]] = rim.abs().amax(dim=-1) - 0.5
            yield Batch(
                augment(pictures / 255.0, rng),
                positions,
                distances,
                stack(samples.colors, chosen, window) / 255.0,  # type: ignore[arg-type]
                stack(samples.normals, chosen, window) / 127.0,  # type: ignore[arg-type]
            )
        samples.grow()


def show_materials(
    pictures: Tensor, samples: TexturedSamples, chosen: NDArray[np.intp], rng: np.random.Generator
) -> None:
    """Exchange half of the pictures (B, 3, S, S) for looks of the same view, where there are any.

    Without them a mirror's reflections became colours and bumps of its surface.
    """
    for row in np.flatnonzero((rng.random(len(chosen)) < 0.5) & (chosen < len(samples.looks))):
        look = samples.looks[chosen[row]][rng.integers(LOOKS)]
        small = torch.from_numpy(look[..., :3]).permute(2, 0, 1)[None].float()
        pictures[row] = F.interpolate(small, size=pictures.shape[-2:], mode="bilinear")[0]


def rim_points(batch_size: int, count: int, rng: np.random.Generator) -> NDArray[np.float32]:
    """Draw (batch_size, count, 3) points between the samples' box and the field's border.

    Objects end at 0.5, so it is empty there; without being told, the field has shapes there.
    """
    radius = StableFast3DConfig.nano().radius
    points = rng.uniform(-radius, radius, (batch_size, count, 3))
    side = rng.integers(0, 3, (batch_size, count, 1))
    sign = rng.choice([-1.0, 1.0], (batch_size, count, 1))
    np.put_along_axis(points, side, sign * rng.uniform(BOX, radius, side.shape), axis=2)
    return points.astype(np.float32)


def reconstruction_loss(network: StableFast3DNetwork, batch: Batch) -> tuple[Tensor, Tensor]:
    """Return the loss and the occupancy IoU of the points.

    Occupancy and colour as in ``train_reconstruction``, and one minus the cosine of the normals.
    """
    pictures, points, distances, colors, normals = batch
    planes = network.scene_codes(network.direct_codes(pictures))
    features = network.features(planes, points)
    logit = network.decoder.raw("density", features)[..., 0] - network.config.threshold_logit
    target = torch.sigmoid(-distances / SOFTNESS)
    loss = F.binary_cross_entropy_with_logits(logit, target)
    filled = torch.sigmoid(logit)
    overlap = 2.0 * (filled * target).sum(1) + 1.0
    dice = 1.0 - overlap / (filled.square().sum(1) + target.square().sum(1) + 1.0)
    near = (distances.abs() < _REACH).float()
    seen = network.decoder(features, "features", "perturb_normal")
    color_error = (seen["features"] - colors).square().sum(-1)
    normal_error = 1.0 - (seen["perturb_normal"] * F.normalize(normals, dim=-1)).sum(-1)
    count = near.sum().clamp(min=1.0)
    loss = loss + _WEIGHTS["dice"] * dice.mean()
    loss = loss + _WEIGHTS["color"] * (color_error * near).sum() / count
    loss = loss + _WEIGHTS["normal"] * (normal_error * near).sum() / count
    inside, truth = logit > 0, distances < 0
    iou = (inside & truth).sum() / (inside | truth).sum().clamp(min=1)
    return loss, iou.detach()


def hidden_matrices(network: nn.Module) -> list[nn.Parameter]:
    """Return the weights of the transformer layers, which Muon updates."""
    named = network.named_parameters()
    return [
        parameter for name, parameter in named if parameter.ndim == 2 and "main_blocks." in name
    ]


_ENCODER_NAMES = {
    "attention.attention.": "attention.attention.",
    "attention.output.": "attention.output.",
    "intermediate.dense.": "mlp.fc1.",
    "output.dense.": "mlp.fc2.",
    "layernorm_before.": "norm1.",
    "layernorm_after.": "norm2.",
}


def adopt_encoder(network: StableFast3DNetwork, triposr: Path) -> None:
    """Take the image encoder of nano TripoSR, whose layers are DINOv2's without modulation.

    It has learnt to read the same pictures; it stays as it is, which halves a step's cost.
    """
    prefix = "image_tokenizer.model."
    encoder = network.image_tokenizer.model
    state = {
        key: torch.zeros_like(value) if "modulation" in key else value
        for key, value in encoder.state_dict().items()
    }
    for key, value in load_file(triposr / "model.safetensors").items():
        if key.startswith(prefix) and ".pooler." not in key:
            state[_dinov2_name(key.removeprefix(prefix))] = value.float()
    encoder.load_state_dict(state)
    encoder.requires_grad_(False)
    network.camera_embedder.requires_grad_(False)


def _dinov2_name(key: str) -> str:
    if not key.startswith("encoder.layer."):
        return key
    number, _, rest = key.removeprefix("encoder.layer.").partition(".")
    old = next(name for name in _ENCODER_NAMES if rest.startswith(name))
    return f"encoder.layer.{number}.{_ENCODER_NAMES[old]}{rest.removeprefix(old)}"


def initialize(network: StableFast3DNetwork, seed: int) -> None:
    """Give the layers small random weights, the density its surface level, the offsets zero."""
    torch.manual_seed(seed)
    with torch.no_grad():
        for name, parameter in network.named_parameters():
            if parameter.ndim == 1:
                parameter.fill_(1.0 if name.endswith(("weight", "lambda1")) else 0.0)
            elif name.startswith(("decoder.", "post_processor.", "image_estimator.heads.")):
                nn.init.kaiming_normal_(parameter)
            else:
                parameter.normal_(0.0, min(0.03, 1.0 / math.sqrt(parameter[0].numel())))
        network.tokenizer.embeddings.normal_(0.0, 0.5)
        nn.init.normal_(network.backbone.latent_init, std=0.5)
        nn.init.normal_(network.image_estimator.model.visual.proj, std=0.1)
        density = _last(network, "density")
        density.weight.mul_(0.3)
        density.bias.fill_(network.config.threshold_logit - 1.0)
        # Linear interpolation finds the surface of a smooth density; offsets are left at zero.
        _last(network, "vertex_offset").weight.zero_()


def _last(network: StableFast3DNetwork, head: str) -> nn.Linear:
    return cast(nn.Linear, cast(nn.Sequential, network.decoder.heads[head])[-1])


def train_textured(
    data: Path,
    folder: Path,
    *,
    encoder_from: Path,
    schedule: Schedule,
    batch_size: int = 32,
    points: int = 768,
    rate: float = 2e-3,
    seed: int = 0,
    device: str = "cpu",
    start_from: Path | None = None,
) -> None:
    """Train on the shards in ``data`` and write the averaged weights to ``folder``.

    Args:
        data: folder of the shards.
        folder: gets the checkpoint, every 100 steps and at the end.
        encoder_from: folder of a nano TripoSR.
        schedule: steps, time and learning-rate factor.
        batch_size: objects a step.
        points: field queries an object.
        rate: highest learning rate.
        seed: of weights, order and augmentation.
        device: torch device.
        start_from: a folder written before, whose weights are trained on.
    """
    config = StableFast3DConfig.nano()
    network = StableFast3DNetwork(config)
    initialize(network, seed)
    adopt_encoder(network, encoder_from)
    if start_from is not None:
        weights = load_file(start_from / "model.safetensors")
        network.load_state_dict({key: value.float() for key, value in weights.items()})
    network.image_estimator.requires_grad_(False)
    network.to(device).train()
    optimizer = Optimizer(network, hidden_matrices(network), rate)
    average = WeightAverage(network)
    source = batches(TexturedSamples(data), batch_size, points, np.random.default_rng(seed))
    running = np.zeros(2)
    step = 0
    while schedule.progress(step) < 1.0:
        batch = Batch(*(tensor.to(device) for tensor in next(source)))
        loss, iou = reconstruction_loss(network, batch)
        optimizer.step(loss, schedule.factor(step))
        average.update(network)
        step += 1
        running += (loss.item(), iou.item())
        if step % 50 == 0:
            done = 100 * schedule.progress(step)
            logger.info("step %d (%.1f %%) loss %.4f iou %.3f", step, done, *(running / 50))
            running[:] = 0
        if step % 100 == 0:
            write_checkpoint(partial(write_config, config), average.state, folder)
    write_checkpoint(partial(write_config, config), average.state, folder)
