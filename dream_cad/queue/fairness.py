"""Fair shares between owners: virtual time is GPU-seconds over weight (start-time fair queuing).

The owner with the least virtual time is served first. A claim charges an estimate, completion
corrects it by what was measured. Idleness earns no credit: an owner that comes back starts at
least level with the least-served one that waits, in an idle queue at the end of everybody's past;
and at its first claim in a lane it is lifted to where the last job there started, since the
least-served one may wait elsewhere, for a slow model say. That lift is the lane's alone: what an
owner has had, in all of them together, is its virtual time (``order.start_time``).
"""

from __future__ import annotations

from sqlalchemy import Connection, text

from dream_cad.queue.order import entry_time
from dream_cad.queue.schema import BESIDE_CLAIM

_CHARGE = text("""
INSERT INTO shares (owner, virtual_time) VALUES (
    CAST(:owner AS VARCHAR),
    :seconds / coalesce(
        (SELECT weight FROM api_keys WHERE id = CAST(:owner AS VARCHAR)), 1.0
    )
)
ON CONFLICT (owner) DO UPDATE SET virtual_time = shares.virtual_time + excluded.virtual_time
""")

_WAITS = f"status = 'pending' AND {BESIDE_CLAIM}"

_IS_WAITING = text(f"SELECT EXISTS (SELECT 1 FROM jobs WHERE {_WAITS} AND owner = :owner)")

_LEAST_ACTIVE = text(f"""
WITH RECURSIVE line(owner) AS (
    SELECT (SELECT owner FROM jobs WHERE {_WAITS} ORDER BY owner LIMIT 1)
    UNION ALL
    SELECT (SELECT owner FROM jobs WHERE {_WAITS} AND owner > line.owner
            ORDER BY owner LIMIT 1)
    FROM line WHERE line.owner IS NOT NULL
)
SELECT min(shares.virtual_time) FROM line JOIN shares ON shares.owner = line.owner
""")

_MOST = text("SELECT max(virtual_time) FROM shares")

_KEEP_LANES = text("""
UPDATE lifts
SET lift = lift - (:start - (SELECT virtual_time FROM shares WHERE shares.owner = lifts.owner))
WHERE owner = :owner
    AND (SELECT virtual_time FROM shares WHERE shares.owner = lifts.owner) < :start
""")

_ENTER = text("""
INSERT INTO shares (owner, virtual_time) VALUES (:owner, :start)
ON CONFLICT (owner) DO UPDATE SET virtual_time = :start WHERE shares.virtual_time < :start
""")


def charge(connection: Connection, owner: str, seconds: float) -> None:
    """Add GPU-seconds (negative: give back) to an owner's virtual time."""
    connection.execute(_CHARGE, {"owner": owner, "seconds": seconds})


def enter(connection: Connection, owner: str) -> None:
    """Let an owner that had nothing waiting start level; call it before its jobs are added."""
    if connection.execute(_IS_WAITING, {"owner": owner}).scalar():
        return
    least = connection.execute(_LEAST_ACTIVE).scalar()
    start = entry_time(least, connection.execute(_MOST).scalar() if least is None else None)
    values = {"owner": owner, "start": start}
    connection.execute(_KEEP_LANES, values)  # where it would go on in a lane stays where it was
    connection.execute(_ENTER, values)
