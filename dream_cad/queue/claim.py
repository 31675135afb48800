"""The claim: what ranks with the most urgent, of it the owner least served, there the oldest job.

No statement sorts: each reads the first entry of a range of ``ix_jobs_claim`` (model, level from
high to low, owner, seq), or of ``ix_jobs_priority`` (model, priority from high to low). Owners are
found by a skip scan, one descent of the index an owner, however many jobs each has. Conditions
name ``owner >=`` and order by (owner, seq) even where one owner is meant: with an equality
PostgreSQL may walk the primary key through all ended jobs.
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
from dream_cad.queue.order import HIGHEST, Head, Lane, order_heads, start_time
from dream_cad.queue.schema import BESIDE_CLAIM, CLAIMABLE, condition, jobs
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
SELECT top.level, line.owner, shares.virtual_time, lifts.lift,
    (SELECT seq FROM jobs WHERE {_LINE} AND level = (SELECT level FROM top)
     AND owner >= line.owner ORDER BY owner, seq LIMIT 1) AS seq
FROM line CROSS JOIN top LEFT JOIN shares ON shares.owner = line.owner
LEFT JOIN lifts ON lifts.owner = line.owner AND lifts.model = :model AND lifts.priority = :priority
WHERE line.owner IS NOT NULL
""")

LANE: TextClause = text(f"""
SELECT urgent.priority, lanes.virtual_time
FROM (SELECT priority FROM jobs WHERE {_LINE} AND {BESIDE_CLAIM}
      ORDER BY priority DESC LIMIT 1) AS urgent
LEFT JOIN lanes ON lanes.model = :model AND lanes.priority = urgent.priority
""")

_MOVE_LANE = text("""
INSERT INTO lanes (model, priority, virtual_time) VALUES (:model, :priority, :start)
ON CONFLICT (model, priority) DO UPDATE SET virtual_time = :start
WHERE lanes.virtual_time < :start
""")

_LIFT = text("""
INSERT INTO lifts (owner, model, priority, lift) VALUES (:owner, :model, :priority, :lift)
ON CONFLICT (owner, model, priority) DO UPDATE SET lift = :lift
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
    lanes = [lane for model in models if (lane := _lane(connection, model, lease.now))]
    if not lanes:
        return None
    floor, ceiling = max(wanted.floor, *(lane.priority for lane in lanes)), HIGHEST
    while True:
        heads = [
            head for lane in lanes for head in _heads(connection, lane, floor, ceiling, lease.now)
        ]
        for head in order_heads(heads, wanted.owners, wanted.favourite):
            if (row := _take(connection, head, lease)) is not None:
                (lane,) = (lane for lane in lanes if lane.model == head.model)
                _note_start(connection, head, lane)
                return row
        if floor <= wanted.floor:
            return None
        # Nothing here for these owners, or other claimers hold it all: one level down.
        floor, ceiling = floor - 1, floor - 1


def claim_one(connection: Connection, job_id: str, lease: Lease) -> RowMapping | None:
    """Lease a certain job if it is pending; None otherwise."""
    row = connection.execute(_TAKE_ONE, {"b_id": job_id, **lease.values()}).mappings().first()
    if row is not None:
        charge(connection, row["owner"], lease.estimate_s)
    return row


def waiting_models(connection: Connection) -> list[str]:
    """Return the models that have a job to claim."""
    return list(connection.execute(MODELS).scalars())


def _lane(connection: Connection, model: str, now: float) -> Lane | None:
    row = connection.execute(LANE, {"model": model, "now": now}).first()
    return None if row is None else Lane(model, row.priority, row.virtual_time or 0.0)


def _note_start(connection: Connection, head: Head, lane: Lane) -> None:
    """Note where the job started that was taken: for its lane, and what lifted its owner there."""
    place = {"model": lane.model, "priority": lane.priority}
    if head.virtual_time > lane.virtual_time:
        connection.execute(_MOVE_LANE, {**place, "start": head.virtual_time})
    lift = head.virtual_time - head.had
    if lift != head.lift:
        connection.execute(_LIFT, {**place, "owner": head.owner, "lift": lift})


def _heads(
    connection: Connection, lane: Lane, floor: int, ceiling: int, now: float
) -> Iterator[Head]:
    """Yield the first job of every owner at each level from the ceiling down to the floor."""
    while ceiling >= floor:
        values = {"model": lane.model, "floor": floor, "ceiling": ceiling, "now": now}
        values["priority"] = lane.priority
        rows = connection.execute(OWNERS, values).all()
        if not rows:
            return
        for row in rows:
            had = row.virtual_time or 0.0
            start = start_time(had, row.lift or 0.0, lane)
            yield Head(lane.model, row.level, row.owner, start, row.seq, had, row.lift)
        ceiling = rows[0].level - 1


def _take(connection: Connection, head: Head, lease: Lease) -> RowMapping | None:
    values = {"b_model": head.model, "b_level": head.level, "b_owner": head.owner}
    row = connection.execute(TAKE, values | lease.values()).mappings().first()
    if row is not None:
        charge(connection, head.owner, lease.estimate_s)
    return row
