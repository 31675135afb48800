"""What each replica does to its own process before it loads a model."""

from __future__ import annotations

import importlib
import os
import sys
from collections.abc import Iterable

import ray

from dream_cad.exceptions import InvalidConfigError


def import_modules(names: Iterable[str]) -> None:
    """Import the operator's modules, so that their @register_model takes effect here.

    Raises:
        InvalidConfigError: a module cannot be imported; says which and why.
    """
    for name in names:
        try:
            importlib.import_module(name)
        except ImportError as error:
            raise InvalidConfigError(
                f"The module {name!r} of serve_config.yaml cannot be imported: {error}.",
                hint="Install it on every node, or correct 'modules'.",
            ) from error


def prepare_torch(gpu_share: float) -> None:
    """Give torch the CPU threads it may use, and cap its share of the GPU.

    Ray sets OMP_NUM_THREADS=1 for replicas that reserve less than one CPU, which would leave a
    model on a laptop with a single thread; and a share of a GPU is only bookkeeping to Ray, so
    the process caps itself and fails alone instead of taking its neighbours down.

    Args:
        gpu_share: the replica's ``num_gpus``; 0 on a CPU.
    """
    torch = sys.modules.get("torch")
    if torch is None:  # a model that does not use torch
        return
    if gpu_share == 0:
        torch.set_num_threads(len(os.sched_getaffinity(0)))
    elif gpu_share < 1 and ray.get_gpu_ids():
        torch.cuda.set_per_process_memory_fraction(gpu_share)
