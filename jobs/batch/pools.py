"""How many workers of each stage a batch gets."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace

from dream_cad.exceptions import InvalidConfigError

_CPU_OF_FINISHER = 0.5
_LEAST_CPUS = 0.01


@dataclass(frozen=True)
class Node:
    """What one machine of the cluster has."""

    cpus: float
    gpus: int = 0
    accelerator: str | None = None


@dataclass(frozen=True)
class Pools:
    """Workers of each stage.

    Attributes:
        model: actors that hold the model.
        text: actors that hold the text stage; 0 where no row needs it.
        model_cpus: logical CPUs of each model actor.
        finisher_cpus: logical CPUs of each task that finishes meshes.
    """

    model: int
    text: int
    model_cpus: float
    finisher_cpus: float = _CPU_OF_FINISHER


def size_pools(
    nodes: Sequence[Node],
    model_share: float,
    text_share: float | None,
    text_nodes: Sequence[Node] | None = None,
) -> Pools:
    """Fill the cluster: every GPU with as many models (and text stages) as its memory holds.

    Args:
        nodes: the machines that the model may be on.
        model_share: GPUs of one model actor; 0 for a model that runs on CPUs.
        text_share: GPUs of one text stage; None where no row needs one.
        text_nodes: the machines that the text stage may be on, if not the same.

    Raises:
        InvalidConfigError: the cluster cannot hold what is needed.
    """
    if model_share == 0:
        return _on_cpus(nodes, has_text=text_share is not None)
    if text_share is None:
        count = sum(_fitting(node.gpus, model_share) for node in nodes)
        return Pools(_at_least_one(count, model_share, 0.0), 0, 1.0)
    if text_nodes is not None and list(text_nodes) != list(nodes):
        return _on_other_nodes(nodes, text_nodes, model_share, text_share)
    pairs, models = 0, 0
    for node in nodes:
        node_pairs, node_models = _pairs(node.gpus, model_share, text_share)
        pairs, models = pairs + node_pairs, models + node_models
    if pairs == 0:
        models = pairs = _on_separate_gpus(nodes, model_share, text_share)
    return Pools(_at_least_one(models, model_share, text_share), pairs, 1.0)


def with_actors(pools: Pools, actors: int, cpus: float) -> Pools:
    """Return pools with another number of model actors, which leave a CPU share for the finisher.

    Without it the actors would take all CPUs, and no mesh would be written before they end.

    Args:
        pools: as sized.
        actors: of the model.
        cpus: of the cluster.
    """
    room = max(cpus - pools.finisher_cpus, 0.0) / (actors + pools.text)
    each = max(min(pools.model_cpus, math.floor(room * 100) / 100), _LEAST_CPUS)
    return replace(pools, model=actors, model_cpus=each)


def _on_cpus(nodes: Sequence[Node], *, has_text: bool) -> Pools:
    cpus = sum(node.cpus for node in nodes)
    stages = 2 if has_text else 1
    # Half a CPU stays for the finisher; on one CPU all share it.
    workers = max(1, math.floor((cpus - _CPU_OF_FINISHER) / stages))
    each = 1.0 if cpus >= stages + _CPU_OF_FINISHER else cpus / (2 * stages)
    return Pools(workers, workers if has_text else 0, each, min(_CPU_OF_FINISHER, cpus / 2))


def _fitting(gpus: int, share: float) -> int:
    return gpus * math.floor(1 / share + 1e-9) if share <= 1 else math.floor(gpus / share)


def _pairs(gpus: int, model_share: float, text_share: float) -> tuple[int, int]:
    """Return (text stages, models) that fit when each GPU gets as many of both."""
    both = model_share + text_share
    if both > 1 + 1e-9:
        return 0, 0
    pairs = math.floor(1 / both + 1e-9)
    spare = math.floor((1 - pairs * both) / model_share + 1e-9)
    return gpus * pairs, gpus * (pairs + spare)


def _on_other_nodes(
    nodes: Sequence[Node], text_nodes: Sequence[Node], model_share: float, text_share: float
) -> Pools:
    """Put the text stage on machines that the model is not on; it may not be needed everywhere."""
    apart = [node for node in text_nodes if node not in nodes]
    models = sum(_fitting(node.gpus, model_share) for node in nodes)
    texts = sum(_fitting(node.gpus, text_share) for node in apart)
    if texts == 0:  # it may only be where the model is
        pairs = [_pairs(node.gpus, model_share, text_share) for node in text_nodes]
        texts = sum(pair[0] for pair in pairs)
        models = sum(pair[1] for pair in pairs)
    return Pools(_at_least_one(models if texts else 0, model_share, text_share), texts, 1.0)


def _on_separate_gpus(nodes: Sequence[Node], model_share: float, text_share: float) -> int:
    gpus = sum(node.gpus for node in nodes)
    for_text = max(1, math.ceil(text_share))
    for_model = max(1, math.ceil(model_share))
    return gpus // (for_text + for_model)


def _at_least_one(count: int, model_share: float, text_share: float) -> int:
    if count < 1:
        needed = f"{model_share:g} GPU for the model"
        if text_share:
            needed += f" and {text_share:g} for the text stage"
        raise InvalidConfigError(
            f"The cluster cannot hold {needed} at the same time.",
            hint="Add a GPU, give pictures instead of prompts, or choose --checkpoint nano.",
        )
    return count
