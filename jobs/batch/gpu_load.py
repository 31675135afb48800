"""How busy this process's GPU is."""

from __future__ import annotations

import pynvml
import ray


class GpuLoad:
    """Asks NVML about the GPU that Ray gave to this actor."""

    def __init__(self) -> None:
        self._handle = None
        gpu_ids = ray.get_gpu_ids()
        if not gpu_ids:
            return
        try:
            pynvml.nvmlInit()
            self._handle = pynvml.nvmlDeviceGetHandleByIndex(int(gpu_ids[0]))
        except (pynvml.NVMLError, ValueError):
            self._handle = None  # fake GPUs of tests, or ids that NVML does not number

    def percent(self) -> float | None:
        """Return the share of the last moment in which the GPU worked; None without one."""
        if self._handle is None:
            return None
        try:
            return float(pynvml.nvmlDeviceGetUtilizationRates(self._handle).gpu)
        except pynvml.NVMLError:
            return None
