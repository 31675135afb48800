"""The rules of the line, apart from where it is kept: the database and simulations share them."""

from __future__ import annotations

from collections.abc import Collection, Iterable
from typing import NamedTuple

from dream_cad.queue.jobs import JobPriority

HIGHEST = max(priority.value for priority in JobPriority)


class Lane(NamedTuple):
    """The jobs of one model that may be claimed now: those of this level and above.

    A job that waited long ranks with more urgent ones. It does not rank before its equals, which
    wait for their fair share as it does: the line is cut at the most urgent priority that waits.

    Attributes:
        model: of the jobs.
        priority: the most urgent one that was asked for among those that wait.
        virtual_time: at which the last job of this lane started.
    """

    model: str
    priority: int
    virtual_time: float


class Head(NamedTuple):
    """The first job of one owner for one model at one level.

    Attributes:
        model: of the job.
        level: its effective priority.
        owner: whose it is.
        virtual_time: at which it starts (``start_time``).
        seq: number of the job in order of arrival.
        had: GPU-seconds over weight that the owner has had.
        lift: of its last job in this lane; None if it had none there.
    """

    model: str
    level: int
    owner: str
    virtual_time: float
    seq: int
    had: float = 0.0
    lift: float | None = None


def order_heads(
    heads: Iterable[Head],
    owners: Collection[str] | None = None,
    favourite: str | None = None,
) -> list[Head]:
    """Return the heads that may be claimed now in the order in which they are claimed.

    The favourite model's first (a worker that has it loaded saves the change), then the one that
    starts first in virtual time, then the oldest job. Of an owner's heads for one model only the
    one at the highest level counts: its oldest.

    Args:
        heads: of levels that rank with the most urgent job that waits (``Lane``).
        owners: only theirs; None for all.
        favourite: model taken first.
    """
    best: dict[tuple[str, str], Head] = {}
    for head in heads:
        if owners is None or head.owner in owners:
            known = best.get((head.model, head.owner))
            if known is None or head.level > known.level:
                best[head.model, head.owner] = head
    if len(best) < 2:
        return list(best.values())
    return sorted(
        best.values(), key=lambda head: (head.model != favourite, head.virtual_time, head.seq)
    )


def start_time(had: float, lift: float, lane: Lane) -> float:
    """Return the virtual time at which an owner's next job starts (start-time fair queuing).

    Args:
        had: GPU-seconds over weight that the owner has had.
        lift: by how much its last job in this lane started above what it had had then.
        lane: whoever starts below where its last job did comes first, and has no credit left
            after one job.
    """
    return max(had + lift, lane.virtual_time)


def entry_time(least_active: float | None, most: float | None) -> float:
    """Return the virtual time at which an owner that had nothing waiting starts at least.

    Args:
        least_active: the least among owners that wait; None if nobody does.
        most: the highest of all owners, None without any: everybody's past is forgotten by
            starting at the end of it.
    """
    if least_active is not None:
        return least_active
    return 0.0 if most is None else most
