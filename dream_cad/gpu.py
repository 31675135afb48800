"""The GPU of this process, asked without importing torch where there is no driver."""

from __future__ import annotations

from dream_cad.exceptions import InvalidConfigError
from dream_cad.settings import get_settings

_BYTES_PER_GB = 10**9


def get_total_vram() -> float:
    """Return the whole memory of this process's GPU in GB (10^9 bytes); 0.0 without a GPU.

    The GPU is number DREAM_CAD_GPU_ID among those that CUDA shows to this process.

    Raises:
        InvalidConfigError: DREAM_CAD_GPU_ID names a device that CUDA does not show.
    """
    if not has_nvidia_driver():
        return 0.0
    import torch

    count = torch.cuda.device_count() if torch.cuda.is_available() else 0
    if count == 0:
        return 0.0
    gpu_id = get_settings().gpu_id
    if gpu_id >= count:
        raise InvalidConfigError(
            f"DREAM_CAD_GPU_ID is {gpu_id}, but CUDA shows {count} device(s) to this process.",
            hint=f"Choose 0 to {count - 1}.",
            details={"variable": "DREAM_CAD_GPU_ID", "device_count": count},
        )
    return int(torch.cuda.get_device_properties(gpu_id).total_memory) / _BYTES_PER_GB


def has_nvidia_driver() -> bool:
    """Tell whether NVML answers; takes milliseconds, where importing torch takes seconds."""
    import pynvml

    try:
        pynvml.nvmlInit()
    except pynvml.NVMLError:
        return False
    pynvml.nvmlShutdown()
    return True
