"""Seconds with the device synchronised, and peaks of memory."""

from __future__ import annotations

import threading
import time
from types import TracebackType
from typing import Self

import psutil

from dream_cad.gpu import has_nvidia_driver

_BYTES_PER_GB = 10**9
_INTERVAL_S = 0.05


class Measurement:
    """Context manager that measures what runs inside it.

    Attributes:
        seconds: wall time, from synchronised device to synchronised device.
        peak_vram_gb: peak of torch's allocator in GB (10^9 bytes); 0 without CUDA.
        peak_ram_gb: peak resident memory of this process and its children in GB, sampled every
            50 ms by a thread and at both ends.
    """

    def __init__(self) -> None:
        self.seconds = 0.0
        self.peak_vram_gb = 0.0
        self.peak_ram_gb = 0.0
        self._has_cuda = has_nvidia_driver()
        self._done = threading.Event()
        self._sampler = threading.Thread(target=self._sample, daemon=True)
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
        while not self._done.wait(_INTERVAL_S):
            self._observe()

    def _observe(self) -> None:
        self.peak_ram_gb = max(self.peak_ram_gb, _tree_bytes() / _BYTES_PER_GB)


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


def _tree_bytes() -> int:
    """Resident bytes of this process and its children; children that just ended count nothing."""
    process = psutil.Process()
    total = int(process.memory_info().rss)
    for child in process.children(recursive=True):
        try:
            total += int(child.memory_info().rss)
        except psutil.Error:
            continue
    return total
