"""Seconds with the device synchronised, and peaks of memory."""

from __future__ import annotations

import threading
import time
from types import TracebackType
from typing import Self

import psutil

from dream_cad.gpu import has_nvidia_driver
from dream_cad.settings import get_settings

_BYTES_PER_GB = 10**9
_INTERVAL_S = 0.1
_SAMPLES_A_LOOK = 10


class Measurement:
    """Context manager that measures what runs inside it.

    Attributes:
        seconds: wall time, from synchronised device to synchronised device.
        peak_vram_gb: peak of torch's allocator in GB (10^9 bytes); 0 without CUDA.
        peak_device_gb: peak of all memory in use on the GPU by NVML, whoever holds it; 0 without.
        peak_ram_gb: peak resident memory of this process and its children in GB. A thread samples
            every 0.1 s; who the children are is asked every second and at both ends, because
            looking through all processes costs milliseconds.
    """

    def __init__(self) -> None:
        self.seconds = 0.0
        self.peak_vram_gb = 0.0
        self.peak_device_gb = 0.0
        self.peak_ram_gb = 0.0
        self._has_cuda = has_nvidia_driver()
        self._done = threading.Event()
        self._sampler = threading.Thread(target=self._sample, daemon=True)
        self._process = psutil.Process()
        self._children: list[psutil.Process] = []
        self._start = 0.0

    def __enter__(self) -> Self:
        self._observe()
        self._sampler.start()
        if self._has_cuda:
            import torch

            if torch.cuda.is_available():
                torch.cuda.reset_peak_memory_stats()
        synchronize(has_cuda=self._has_cuda)
        self._start = time.perf_counter()
        return self

    def __exit__(
        self,
        exc_type: type[BaseException] | None,
        exc: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        try:
            synchronize(has_cuda=self._has_cuda)
            self.seconds = time.perf_counter() - self._start
            self.peak_vram_gb = _peak_vram_gb(has_cuda=self._has_cuda)
        finally:
            self._done.set()
            self._sampler.join()
            self._observe()

    def _sample(self) -> None:
        count = 0
        while not self._done.wait(_INTERVAL_S):
            count += 1
            self._observe(is_look=count % _SAMPLES_A_LOOK == 0)

    def _observe(self, *, is_look: bool = True) -> None:
        if is_look:
            self._children = self._process.children(recursive=True)
        resident = sum(_resident_bytes(one) for one in (self._process, *self._children))
        self.peak_ram_gb = max(self.peak_ram_gb, resident / _BYTES_PER_GB)
        if self._has_cuda:
            self.peak_device_gb = max(self.peak_device_gb, _device_bytes() / _BYTES_PER_GB)


def synchronize(*, has_cuda: bool) -> None:
    """Wait until the GPU has done what was asked of it; nothing without one."""
    if has_cuda:
        import torch

        if torch.cuda.is_available():
            torch.cuda.synchronize()


def _peak_vram_gb(*, has_cuda: bool) -> float:
    if not has_cuda:
        return 0.0
    import torch

    if not torch.cuda.is_available():
        return 0.0
    return int(torch.cuda.max_memory_allocated()) / _BYTES_PER_GB


def _resident_bytes(process: psutil.Process) -> int:
    try:
        return int(process.memory_info().rss)
    except psutil.Error:  # it just ended
        return 0


def _device_bytes() -> int:
    """Bytes in use on this process's GPU, 0 where NVML does not say."""
    import pynvml

    try:
        pynvml.nvmlInit()
        handle = pynvml.nvmlDeviceGetHandleByIndex(get_settings().gpu_id)
        return int(pynvml.nvmlDeviceGetMemoryInfo(handle).used)
    except pynvml.NVMLError:
        return 0
