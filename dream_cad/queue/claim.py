"""The claim: the most urgent level, there the owner least served, there the oldest job.

No statement sorts: each reads the first entry of a range of ``ix_jobs_claim`` (model, level from
high to low, owner, seq). Owners are found by a skip scan, one descent of the index an owner,
however many jobs each has. Conditions name ``owner >=`` and order by (owner, seq) even where one
owner is meant: with an equality PostgreSQL may walk the primary key through all ended jobs.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator
from dataclasses import dataclass
from typing import Any

from sqlalchemy import (
    Connection,
    Float,
    RowMapping,
    TextClause,
    bindparam,
    select,
    text,
    update,
)

from dream_cad.queue.fairness import charge
from dream_cad.queue.order import HIGHEST, Head, order_heads, top_level
from dream_cad.queue.schema import CLAIMABLE, condition, jobs
from dream_cad.queue.state import read_switches

_LINE = f"{CLAIMABLE} AND model_name = :model AND not_before <= :now"

MODELS: TextClause = text(f"""
WITH RECURSIVE line(model) AS (
    SELECT (SELECT model_name FROM jobs WHERE {CLAIMABLE} ORDER BY model_name LIMIT 1)
    UNION ALL
    SELECT (SELECT model_name FROM jobs WHERE {CLAIMABLE} AND model_name > line.model
            ORDER BY model_name LIMIT 1)
    FROM line WHERE line.model IS NOT NULL
)
SELECT model FROM line WHERE model IS NOT NULL
""")

OWNERS: TextClause = text(f"""
WITH RECURSIVE
top(level) AS (
    SELECT level FROM jobs WHERE {_LINE} AND level BETWEEN :floor AND :ceiling
    ORDER BY level DESC LIMIT 1
),
line(owner) AS (
    SELECT (SELECT owner FROM jobs WHERE {_LINE} AND level = (SELECT level FROM top)
            ORDER BY owner LIMIT 1)
    UNION ALL
    SELECT (SELECT owner FROM jobs WHERE {_LINE} AND level = (SELECT level FROM top)
            AND owner > line.owner ORDER BY owner LIMIT 1)
    FROM line WHERE line.owner IS NOT NULL
)
SELECT top.level, line.owner, shares.virtual_time,
    (SELECT seq FROM jobs WHERE {_LINE} AND level = (SELECT level FROM top)
     AND owner >= line.owner ORDER BY owner, seq LIMIT 1) AS seq
FROM line CROSS JOIN top LEFT JOIN shares ON shares.owner = line.owner
WHERE line.owner IS NOT NULL
""")


# Built once: building a statement takes longer than running this one.
_OLDEST = (
    select(jobs.c.seq)
    .where(
        condition(CLAIMABLE),
        jobs.c.model_name == bindparam("b_model"),
        jobs.c.level == bindparam("b_level"),
        jobs.c.owner >= bindparam("b_owner"),
        jobs.c.not_before <= bindparam("b_now", type_=Float),
    )
    .order_by(jobs.c.owner, jobs.c.seq)
    .limit(1)
    .with_for_update(skip_locked=True)
    .scalar_subquery()
)
_LEASED = (
    update(jobs)
    .where(jobs.c.status == "pending")
    .values(
        status="running",
        lease_token=bindparam("b_token"),
        lease_until=bindparam("b_until"),
        started_at=bindparam("b_now", type_=Float),
        changed_at=bindparam("b_now", type_=Float),
        attempts=jobs.c.attempts + 1,
        charged=jobs.c.charged + bindparam("b_estimate", type_=Float),
        progress=0.0,
        stage="",
    )
)
TAKE = _LEASED.where(jobs.c.seq == _OLDEST, jobs.c.owner == bindparam("b_owner")).returning(jobs)
"""Leases an owner's oldest job of a model and level; PostgreSQL skips rows that are locked."""
_TAKE_ONE = _LEASED.where(jobs.c.id == bindparam("b_id")).returning(jobs)


@dataclass(frozen=True)
class Wanted:
    """What a claimer takes.

    Attributes:
        model: only this model; None for any.
        floor: only jobs of this level and above.
        owners: only jobs of these; None for any.
        favourite: model taken first among equal levels.
    """

    model: str | None = None
    floor: int = 0
    owners: Collection[str] | None = None
    favourite: str | None = None


@dataclass(frozen=True)
class Lease:
    """What a claim writes: proof, time, end, and the seconds that its owner is charged."""

    token: str
    now: float
    until: float
    estimate_s: float

    def values(self) -> dict[str, Any]:
        """Return the parameters of the claiming statements."""
        return {
            "b_token": self.token,
            "b_now": self.now,
            "b_until": self.until,
            "b_estimate": self.estimate_s,
        }


def claim_best(connection: Connection, wanted: Wanted, lease: Lease) -> RowMapping | None:
    """Lease the best job and charge its owner; None if there is none, or everything rests."""
    switches = read_switches(connection)
    if switches.nothing_starts:
        return None
    models = [wanted.model] if wanted.model is not None else waiting_models(connection)
    models = [model for model in models if model not in switches.models]
    ceiling = HIGHEST
    while ceiling >= wanted.floor:
        heads = [
            head
            for model in models
            for head in _heads(connection, model, wanted.floor, ceiling, lease.now)
        ]
        if not heads:
            return None
        level = top_level(heads)
        for head in order_heads(heads, level, wanted.owners, wanted.favourite):
            if (row := _take(connection, head, lease)) is not None:
                return row
        # Nothing here for these owners, or other claimers hold it all: one level down.
        ceiling = level - 1
    return None


def claim_one(connection: Connection, job_id: str, lease: Lease) -> RowMapping | None:
    """Lease a certain job if it is pending; None otherwise."""
    row = connection.execute(_TAKE_ONE, {"b_id": job_id, **lease.values()}).mappings().first()
    if row is not None:
        charge(connection, row["owner"], lease.estimate_s)
    return row


def waiting_models(connection: Connection) -> list[str]:
    """Return the models that have a job to claim."""
    return list(connection.execute(MODELS).scalars())


def _heads(
    connection: Connection, model: str, floor: int, ceiling: int, now: float
) -> Iterator[Head]:
    values = {"model": model, "floor": floor, "ceiling": ceiling, "now": now}
    for row in connection.execute(OWNERS, values):
        yield Head(model, row.level, row.owner, row.virtual_time or 0.0, row.seq)


def _take(connection: Connection, head: Head, lease: Lease) -> RowMapping | None:
    values = {"b_model": head.model, "b_level": head.level, "b_owner": head.owner}
    row = connection.execute(TAKE, values | lease.values()).mappings().first()
    if row is not None:
        charge(connection, head.owner, lease.estimate_s)
    return row
