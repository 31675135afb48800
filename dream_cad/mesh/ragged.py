"""Index arithmetic for rows of different lengths, in place of loops."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray


def count_up(counts: NDArray[np.intp]) -> NDArray[np.intp]:
    """Return 0..n-1 for each n in ``counts`` (N,), joined."""
    ends = np.cumsum(counts)
    total = int(ends[-1]) if len(ends) else 0
    return np.arange(total) - np.repeat(ends - counts, counts)


def batches(sizes: NDArray[np.intp], limit: int) -> Iterator[slice]:
    """Cut ``sizes`` (N,) into runs of at most ``limit`` in sum; a larger item stands alone."""
    ends = np.cumsum(sizes)
    start = 0
    while start < len(sizes):
        done = int(ends[start - 1]) if start else 0
        stop = int(np.searchsorted(ends, done + limit, side="right"))
        stop = max(stop, start + 1)
        yield slice(start, stop)
        start = stop
