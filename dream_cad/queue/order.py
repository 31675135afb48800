"""The rules of the line, apart from where it is kept: the database and simulations share them."""

from __future__ import annotations

from collections.abc import Collection, Iterable
from typing import NamedTuple

from dream_cad.queue.jobs import JobPriority

HIGHEST = max(priority.value for priority in JobPriority)


class Head(NamedTuple):
    """The first job of one owner for one model at one level.

    Attributes:
        model: of the job.
        level: its effective priority.
        owner: whose it is.
        virtual_time: GPU-seconds over weight that the owner has had.
        seq: number of the job in order of arrival.
    """

    model: str
    level: int
    owner: str
    virtual_time: float
    seq: int


def top_level(heads: Iterable[Head]) -> int:
    """Return the most urgent level among heads, of which there is at least one."""
    return max(head.level for head in heads)


def order_heads(
    heads: Iterable[Head],
    level: int,
    owners: Collection[str] | None = None,
    favourite: str | None = None,
) -> list[Head]:
    """Return the heads of a level in the order in which they are claimed.

    The favourite model's first (a worker that has it loaded saves the change), then the owner
    that has had least, then the oldest job.

    Args:
        heads: one for each model and owner.
        level: only heads of this level.
        owners: only theirs; None for all.
        favourite: model taken first.
    """
    fitting = [
        head for head in heads if head.level == level and (owners is None or head.owner in owners)
    ]
    if len(fitting) < 2:
        return fitting
    return sorted(fitting, key=lambda head: (head.model != favourite, head.virtual_time, head.seq))


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
