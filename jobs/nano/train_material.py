"""Train the material estimator of a nano Stable Fast 3D: picture → roughness and metallic."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from functools import partial
from pathlib import Path

import numpy as np
import torch
from safetensors.torch import load_file
from torch import Tensor, nn
from torch.nn import functional as F

from dream_cad.models.stable_fast_3d.config import StableFast3DConfig
from dream_cad.models.stable_fast_3d.config_file import write_config
from dream_cad.models.stable_fast_3d.estimators import ImageEstimator
from jobs.nano.checkpoint import write_checkpoint
from jobs.nano.material_data import (
    MATERIAL_ITEMS,
    MaterialSamples,
    load_material_data,
    make_material_data,
)
from jobs.nano.optimizer import Optimizer, Schedule, WeightAverage
from jobs.nano.train_reconstruction import augment

logger = logging.getLogger(__name__)

_MARGIN = 0.01
"""The Beta distributions' parameters are kept so far above 1, where their mode is smooth."""

_ERROR_WEIGHT = 2.0
_LEAST_SHARPNESS = 0.75
"""More blur than scaling to this share and back would hide how sharp a mirror is."""


def initialize_estimator(estimator: ImageEstimator, seed: int) -> None:
    """Give the layers random weights and the two parameters of each head the same output."""
    torch.manual_seed(seed)
    visual = estimator.model.visual
    with torch.no_grad():
        for name, parameter in estimator.named_parameters():
            if parameter.ndim == 1:
                parameter.fill_(1.0 if name.endswith("weight") else 0.0)
            elif name.startswith("heads."):
                nn.init.kaiming_normal_(parameter)
            else:
                nn.init.normal_(parameter, std=parameter.shape[-1] ** -0.5)
        nn.init.kaiming_normal_(visual.conv1.weight)
        nn.init.normal_(visual.positional_embedding, std=0.3)


def material_modes(estimator: ImageEstimator, pictures: Tensor) -> tuple[Tensor, Tensor]:
    """Return smooth modes (B, 2) in (0, 1) and how far parameters fell below 1, a scalar penalty.

    Where both parameters are above 1 these are the published modes. Below, the published mode is
    1, whatever the picture; the likelihood's two peaks would lead there.
    """
    found = estimator.distributions(estimator.features(pictures[:, :3] * pictures[:, 3:]))
    modes, low = [], torch.zeros((), device=pictures.device)
    for name in ("roughness", "metallic"):
        alpha, beta = found[name]
        above, below = (alpha - 1).clamp(min=_MARGIN), (beta - 1).clamp(min=_MARGIN)
        modes.append(above / (above + below))
        low = low + (F.relu(1 + _MARGIN - alpha) + F.relu(1 + _MARGIN - beta)).mean()
    return torch.stack(modes, dim=1), low


def material_loss(estimator: ImageEstimator, pictures: Tensor, materials: Tensor) -> Tensor:
    """Return cross entropy and absolute error of modes and materials (B, 2), and the penalty.

    Cross entropy learns fast; the absolute error makes unsure answers those of the likelier side,
    where means would be half metal.
    """
    modes, low = material_modes(estimator, pictures)
    error = F.l1_loss(modes, materials)
    return F.binary_cross_entropy(modes, materials) + _ERROR_WEIGHT * error + low


def material_batches(
    samples: MaterialSamples, batch_size: int, rng: np.random.Generator
) -> Iterator[tuple[Tensor, Tensor]]:
    """Yield (pictures (B, 4, S, S), materials (B, 2)) for ever, half of the pictures mirrored."""
    while True:
        order = rng.permutation(len(samples.pictures))
        for start in range(0, len(order) - batch_size + 1, batch_size):
            chosen = order[start : start + batch_size]
            pictures = torch.from_numpy(samples.pictures[chosen]).permute(0, 3, 1, 2) / 255.0
            turn = torch.from_numpy(rng.random(batch_size) < 0.5).view(-1, 1, 1, 1)
            pictures = torch.where(turn, pictures.flip(-1), pictures)
            pictures = augment(pictures, rng, least_sharpness=_LEAST_SHARPNESS)
            yield pictures, torch.from_numpy(samples.materials[chosen])


def hidden_matrices(estimator: ImageEstimator) -> list[nn.Parameter]:
    """Return the weights of the transformer's layers, which Muon updates."""
    named = estimator.named_parameters()
    return [parameter for name, parameter in named if parameter.ndim == 2 and "resblocks." in name]


def train_material(
    data: Path,
    folder: Path,
    *,
    schedule: Schedule,
    items: int = MATERIAL_ITEMS,
    batch_size: int = 128,
    rate: float = 3e-3,
    seed: int = 0,
) -> None:
    """Learn the estimator of a checkpoint anew, on the CPU; the other weights stay as they are.

    Args:
        data: folder of the samples, which are made where they are missing.
        folder: checkpoint of ``train_textured``, which is written anew.
        schedule: steps, time and learning-rate factor, counted once the samples are there.
        items: objects to learn from.
        batch_size: pictures a step.
        rate: highest learning rate.
        seed: of weights, order and augmentation.
    """
    config = StableFast3DConfig.nano()
    estimator = ImageEstimator(config.estimators)
    initialize_estimator(estimator, seed)
    samples = load_material_data(list(make_material_data(data / "materials", items)))
    optimizer = Optimizer(estimator, hidden_matrices(estimator), rate)
    average = WeightAverage(estimator)
    source = material_batches(samples, batch_size, np.random.default_rng(seed))
    running, step = 0.0, 0
    schedule.start()
    while schedule.progress(step) < 1.0:
        loss = material_loss(estimator, *next(source))
        optimizer.step(loss, schedule.factor(step))
        average.update(estimator)
        step += 1
        running += loss.item()
        if step % 200 == 0:
            done = 100 * schedule.progress(step)
            logger.info("material step %d (%.1f %%) loss %.4f", step, done, running / 200)
            running = 0.0
    trained = load_file(folder / "model.safetensors")
    kept = {key: value for key, value in trained.items() if "image_estimator" not in key}
    named = {f"image_estimator.{key}": value for key, value in average.state.items()}
    write_checkpoint(partial(write_config, config), kept | named, folder)
