"""The three utility functions of the API reference; torch is imported only when it is needed."""

from __future__ import annotations

import gc
import sys

from dream_cad.exceptions import InvalidConfigError
from dream_cad.prompts import check_prompt
from dream_cad.settings import get_settings

_BYTES_PER_GB = 10**9


def clear_gpu_cache() -> None:
    """Give unused GPU memory back to the driver; without a GPU only collect garbage."""
    gc.collect()
    torch = sys.modules.get("torch")  # a process that never imported torch holds no GPU memory
    if torch is not None and torch.cuda.is_available():
        torch.cuda.empty_cache()
        torch.cuda.ipc_collect()


def get_available_vram() -> float:
    """Return the free memory of the selected GPU in GB (10^9 bytes), 0.0 without a GPU.

    Raises:
        InvalidConfigError: DREAM_CAD_GPU_ID names a device that this machine does not have.
    """
    import torch

    if not torch.cuda.is_available():
        return 0.0
    gpu_id, count = get_settings().gpu_id, torch.cuda.device_count()
    if gpu_id >= count:
        raise InvalidConfigError(
            f"DREAM_CAD_GPU_ID is {gpu_id}, but this machine has {count} CUDA device(s).",
            hint=f"Choose one of 0 to {count - 1}.",
        )
    free_bytes, _ = torch.cuda.mem_get_info(gpu_id)
    return float(free_bytes) / _BYTES_PER_GB


def validate_prompt(prompt: str) -> bool:
    """Tell whether a prompt is accepted; ``dream_cad.prompts.check_prompt`` says why not."""
    try:
        check_prompt(prompt)
    except InvalidConfigError:
        return False
    return True
