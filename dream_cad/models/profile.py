"""Seconds per stage of a generation, and progress that spans several stages."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar

from dream_cad.models.base import ProgressCallback
from dream_cad.settings import get_settings

_PROFILED: ContextVar[bool] = ContextVar("profiled", default=False)


@contextmanager
def profiled_stages() -> Iterator[None]:
    """Record seconds per stage inside the block, as DREAM_CAD_PROFILE does for a whole process."""
    token = _PROFILED.set(True)
    try:
        yield
    finally:
        _PROFILED.reset(token)


def is_profiled() -> bool:
    """Tell whether results carry the seconds of their stages."""
    return _PROFILED.get() or get_settings().profile


class StageClock:
    """Adds up the seconds spent in named stages; the clock is an argument for tests.

    While stages are profiled the GPU is waited for at both ends of each, so that its work counts
    where it was asked for.
    """

    def __init__(self, now: Callable[[], float] = time.perf_counter) -> None:
        self.seconds: dict[str, float] = {}
        self._now = now

    @contextmanager
    def stage(self, name: str) -> Iterator[None]:
        """Count the time inside the block under ``name``, also when it raises."""
        if is_profiled():
            _wait_for_gpu()
        start = self._now()
        try:
            yield
        finally:
            if is_profiled():
                _wait_for_gpu()
            self.seconds[name] = self.seconds.get(name, 0.0) + self._now() - start


def part_of(progress: ProgressCallback, start: float, end: float) -> ProgressCallback:
    """Return a callback whose 0..1 is ``start``..``end`` of ``progress``."""

    def report(fraction: float, stage: str) -> None:
        progress(start + (end - start) * min(max(fraction, 0.0), 1.0), stage)

    return report


def _wait_for_gpu() -> None:
    torch = sys.modules.get("torch")  # whoever has not imported it has asked no GPU for anything
    if torch is not None and torch.cuda.is_initialized():
        torch.cuda.synchronize()
