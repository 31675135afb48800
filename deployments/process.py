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


def cap_gpu_memory(gpu_share: float) -> None:
    """Cap this process at its share of the GPU; call it before a model is loaded.

    A share is only bookkeeping to Ray: without the cap a replica that needs more would take its
    neighbours down instead of failing alone.

    Args:
        gpu_share: the replica's ``num_gpus``; 0 on a CPU.
    """
    if 0 < gpu_share < 1 and ray.get_gpu_ids():
        import torch

        torch.cuda.set_per_process_memory_fraction(gpu_share)


def use_all_cores() -> None:
    """Give torch every core, if the model uses torch; call it after the model is loaded.

    Ray sets OMP_NUM_THREADS=1 for replicas that reserve less than a CPU, which would leave a
    model on a laptop with a single thread.
    """
    torch = sys.modules.get("torch")
    if torch is not None:
        torch.set_num_threads(len(os.sched_getaffinity(0)))


def reset_gpu_peak() -> None:
    """Start measuring the peak of GPU memory anew."""
    torch = sys.modules.get("torch")
    if torch is not None and torch.cuda.is_available():
        torch.cuda.reset_peak_memory_stats()


def gpu_peak_bytes() -> int | None:
    """Return the GPU memory allocated at most since ``reset_gpu_peak``; None without a GPU."""
    torch = sys.modules.get("torch")
    if torch is None or not torch.cuda.is_available():
        return None
    return int(torch.cuda.max_memory_allocated())


def gpu_total_bytes() -> int:
    """Return the memory of this process's GPU; 0 without one."""
    torch = sys.modules.get("torch")
    if torch is None or not torch.cuda.is_available():
        return 0
    return int(torch.cuda.get_device_properties(0).total_memory)
