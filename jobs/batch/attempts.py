"""Rows that kill the process which works on them: found, and failed alone."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from typing import Any, Protocol

import ray
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

from jobs.batch.rows import Row

MAX_TRIES = 2


class Counts(Protocol):
    """Counts how often something was begun, whoever asks."""

    def begin(self, key: str) -> int:
        """Return how often ``key`` was begun, this time included."""


class Tally:
    """Counts in this process."""

    def __init__(self) -> None:
        self._tries: Counter[str] = Counter()

    def begin(self, key: str) -> int:
        """Return how often ``key`` was begun, this time included."""
        self._tries[key] += 1
        return self._tries[key]


class SharedTally:
    """Counts in one actor of the batch, which survives the workers that ask.

    It is on the node of the driver: no other node's end takes it. Travels between processes.
    """

    def __init__(self) -> None:
        here = NodeAffinitySchedulingStrategy(ray.get_runtime_context().get_node_id(), soft=False)
        self._actor: Any = ray.remote(Tally).options(num_cpus=0, scheduling_strategy=here).remote()

    def begin(self, key: str) -> int:
        """Return how often ``key`` was begun, this time included."""
        return int(ray.get(self._actor.begin.remote(key)))


def begin_rows(tally: Counts, stage: str, rows: Sequence[Row]) -> Iterator[tuple[Row, bool]]:
    """Yield each row, and whether it may be tried.

    The first time, a block of rows costs one call to the tally. If the block comes again its
    worker has died, and each row is counted by itself: the one that kills its worker
    ``MAX_TRIES`` times more is given up, and the others go on.
    """
    if not rows:
        return
    name = f"{stage} {rows[0].id} {len(rows)}"
    is_first = tally.begin(name) == 1
    for row in rows:
        if is_first:
            yield row, True
        else:
            yield row, tally.begin(f"{stage} {row.id}") <= MAX_TRIES
