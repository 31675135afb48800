"""Seconds per stage of a generation, and progress that spans several stages."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from dream_cad.models.base import ProgressCallback


class StageClock:
    """Adds up the seconds spent in named stages; the clock is an argument for tests."""

    def __init__(self, now: Callable[[], float] = time.perf_counter) -> None:
        self.seconds: dict[str, float] = {}
        self._now = now

    @contextmanager
    def stage(self, name: str) -> Iterator[None]:
        """Count the time inside the block under ``name``, also when it raises."""
        start = self._now()
        try:
            yield
        finally:
            self.seconds[name] = self.seconds.get(name, 0.0) + self._now() - start


def part_of(progress: ProgressCallback, start: float, end: float) -> ProgressCallback:
    """Return a callback whose 0..1 is ``start``..``end`` of ``progress``."""

    def report(fraction: float, stage: str) -> None:
        progress(start + (end - start) * min(max(fraction, 0.0), 1.0), stage)

    return report
