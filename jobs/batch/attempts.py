"""Rows that kill the process which works on them: found, and failed alone."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from typing import Any

import ray
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

from jobs.batch.rows import Row

MAX_TRIES = 2


class Tally:
    """Counts how often something was begun. One actor of a batch holds it: it survives workers."""

    def __init__(self) -> None:
        self._tries: Counter[str] = Counter()

    def begin(self, key: str) -> int:
        """Return how often ``key`` was begun, this time included."""
        self._tries[key] += 1
        return self._tries[key]


def create_tally() -> Any:
    """Start the actor that counts, on the node of the driver: no other node's end takes it."""
    here = NodeAffinitySchedulingStrategy(ray.get_runtime_context().get_node_id(), soft=False)
    return ray.remote(Tally).options(num_cpus=0, scheduling_strategy=here).remote()


def begin_rows(tally: Any, stage: str, rows: Sequence[Row]) -> Iterator[tuple[Row, bool]]:
    """Yield each row, and whether it may be tried.

    The first time, a block of rows costs one call to the tally. If the block comes again its
    worker has died, and each row is counted by itself: the one that kills its worker
    ``MAX_TRIES`` times more is given up, and the others go on.
    """
    if not rows:
        return
    name = f"{stage} {rows[0].id} {len(rows)}"
    is_first = ray.get(tally.begin.remote(name)) == 1
    for row in rows:
        if is_first:
            yield row, True
        else:
            yield row, ray.get(tally.begin.remote(f"{stage} {row.id}")) <= MAX_TRIES
