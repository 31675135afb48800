"""The kind of GPU that a model is put on, and its share of one."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from dream_cad.checkpoints import nano_folder
from dream_cad.exceptions import InvalidConfigError
from dream_cad.models.availability import ModelAvailability, get_availability
from dream_cad.models.registry import ModelRegistry
from dream_cad.placement.gpus import GpuGroup, largest_gb, smallest_gb

SPREAD = "spread"
PACK = "pack"
STRATEGIES = (SPREAD, PACK)
NANO_VRAM_GB = 1.0


@dataclass(frozen=True)
class Seat:
    """What each replica of a model gets.

    Attributes:
        share: GPUs; 0 on CPUs.
        gpus: names of the kinds that it may be on.
        accelerators: Ray's labels of these kinds; none where any GPU of the cluster will do.
    """

    share: float = 0.0
    gpus: tuple[str, ...] = ()
    accelerators: tuple[str, ...] = ()


@dataclass(frozen=True)
class Site:
    """Whether and how a model runs on a cluster.

    Attributes:
        found: available or not, with which weights, and why.
        seat: of each replica; None if it does not run.
    """

    found: ModelAvailability
    seat: Seat | None


def gpu_share(needs_gb: float, gpu_gb: float) -> float:
    """Return the share of a GPU that holds ``needs_gb``, rounded up to 1/100.

    More than one GPU's memory gives whole GPUs.
    """
    share = math.ceil(100 * needs_gb / gpu_gb - 1e-9) / 100
    return share if share <= 1 else float(math.ceil(share))


def site_model(
    name: str,
    groups: Sequence[GpuGroup],
    *,
    checkpoint: str | None = None,
    strategy: str = SPREAD,
    accelerator: str | None = None,
    num_gpus: float | None = None,
) -> Site:
    """Decide whether a model runs on a cluster, with which weights, and on what.

    Args:
        name: a registered model.
        groups: the cluster's GPUs; none for a cluster of CPUs.
        checkpoint: as configured; None for the setting.
        strategy: see ``choose_seat``.
        accelerator: the kind it must be on, by name or label; None for any.
        num_gpus: its share as configured; None to derive it from memory.

    Raises:
        ModelNotFoundError: no model of that name is registered.
        InvalidConfigError: the cluster has no such accelerator.
    """
    allowed = _of_kind(groups, accelerator) if groups else []
    found = _availability(name, checkpoint, largest_gb(allowed))
    if not found.available:
        return Site(found, None)
    needs_gb = (
        NANO_VRAM_GB
        if found.checkpoint == "nano"
        else ModelRegistry().require_capabilities(name).min_vram_gb
    )
    return Site(found, choose_seat(needs_gb, groups, strategy, accelerator, num_gpus))


def _availability(name: str, choice: str | None, gpu_gb: float) -> ModelAvailability:
    found = get_availability(name, vram_gb=gpu_gb)
    if choice in (None, "auto") or not ModelRegistry().get_entry(name).is_implemented:
        return found
    if choice == "nano" and nano_folder(name) is None:
        return ModelAvailability(False, None, "no nano checkpoint is shipped for it", None)
    return ModelAvailability(True, choice, f"checkpoint {choice}, as configured", None)


def choose_seat(
    needs_gb: float,
    groups: Sequence[GpuGroup],
    strategy: str = SPREAD,
    accelerator: str | None = None,
    num_gpus: float | None = None,
) -> Seat:
    """Choose the kinds of GPU for something that needs ``needs_gb``, and its share.

    ``spread`` allows every kind whose memory holds it; the share is that of the smallest of
    them, since one deployment has one share. ``pack`` allows the smallest kind only, so that
    large GPUs stay free for what fits nowhere else.

    Raises:
        InvalidConfigError: there is no such accelerator, or nodes lack the labels to choose by.
    """
    if not groups:
        return Seat(num_gpus or 0.0)
    allowed = _of_kind(groups, accelerator)
    holding = [group for group in allowed if group.memory_gb >= needs_gb]
    if not holding:  # several whole GPUs together
        holding = [group for group in allowed if group.memory_gb == largest_gb(allowed)]
    least_gb = smallest_gb(holding)
    if strategy == PACK:
        holding = [group for group in holding if group.memory_gb == least_gb]
    share = gpu_share(needs_gb, least_gb) if num_gpus is None else num_gpus
    names = tuple(group.name for group in holding)
    if share == 0 or len(holding) == len(groups):
        return Seat(share, names)
    labels = tuple(group.accelerator for group in holding if group.accelerator is not None)
    if len(labels) < len(holding):
        raise InvalidConfigError(
            "GPUs of different kinds cannot be told apart: some nodes have no accelerator type.",
            hint="Start those nodes with --resources '{\"accelerator_type:NAME\": 1}'.",
        )
    return Seat(share, names, labels)


def _of_kind(groups: Sequence[GpuGroup], accelerator: str | None) -> list[GpuGroup]:
    if accelerator is None:
        return list(groups)
    found = [group for group in groups if accelerator in (group.name, group.accelerator)]
    if not found:
        raise InvalidConfigError(
            f"The cluster has no accelerator {accelerator!r}.",
            hint=f"It has {', '.join(group.accelerator or group.name for group in groups)}.",
        )
    return found
