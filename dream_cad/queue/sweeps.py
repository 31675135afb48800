"""What time does to jobs: ageing, giving up, expiry of results, pruning."""

from __future__ import annotations

from typing import Any

from sqlalchemy import ColumnElement, Update, and_, delete, or_, select, update

from dream_cad.queue.connection import Database
from dream_cad.queue.fairness import charge
from dream_cad.queue.jobs import GenerationJob
from dream_cad.queue.order import HIGHEST
from dream_cad.queue.rows import job_from_row
from dream_cad.queue.schema import BESIDE_CLAIM, CLAIMABLE, condition, jobs
from dream_cad.queue.tables import job_dependencies, job_events, job_tags, webhook_deliveries

_HAS_EXPIRY = "artifact_uri IS NOT NULL AND expires_at IS NOT NULL"


class SweepStore:
    """Statements that a timer runs."""

    def __init__(self, database: Database) -> None:
        self._database = database

    def age(self, now: float, ageing_s: float, limit: int) -> int:
        """Raise by one the level of jobs that waited ``ageing_s`` since they took theirs.

        Returns:
            How many were raised; ``limit`` of them means that there may be more.
        """
        oldest = (
            select(jobs.c.seq)
            .where(
                condition(f"{CLAIMABLE} AND level < {HIGHEST} AND {BESIDE_CLAIM}"),
                jobs.c.levelled_at <= now - ageing_s,
            )
            .order_by(jobs.c.levelled_at)
            .limit(limit)
            .with_for_update(skip_locked=True)
        )
        statement = (
            update(jobs)
            .where(jobs.c.seq.in_(oldest.scalar_subquery()))
            .values(level=jobs.c.level + 1, levelled_at=now)
        )
        with self._database.connect(write=True) as connection:
            return connection.execute(statement).rowcount

    def overdue(self, now: float, problem: dict[str, Any], column: str) -> Update:
        """Build the UPDATE that fails pending jobs past ``start_by`` or ``deadline``."""
        limit = jobs.c[column]
        late: list[ColumnElement[bool]] = [
            condition(f"status = 'pending' AND {column} IS NOT NULL"),
            limit < now,
        ]
        if column == "start_by":
            late.append(jobs.c.attempts == 0)  # one that is tried again has started in time
        return (
            update(jobs)
            .where(*late)
            .values(status="failed", completed_at=now, changed_at=now, problem=problem)
        )

    def expired_results(self, now: float, limit: int) -> list[GenerationJob]:
        """Return jobs whose results may go: past their time, and shared with no live job."""
        other = jobs.alias("other")
        shared = (
            select(other.c.seq)
            .where(
                condition("other.cache_key IS NOT NULL"),
                other.c.cache_key == jobs.c.cache_key,
                other.c.artifact_uri == jobs.c.artifact_uri,
                or_(other.c.expires_at.is_(None), other.c.expires_at > now),
            )
            .exists()
        )
        statement = (
            select(jobs)
            .where(condition(_prefixed(_HAS_EXPIRY)), jobs.c.expires_at <= now, ~shared)
            .order_by(jobs.c.expires_at)
            .limit(limit)
        )
        with self._database.connect(write=False) as connection:
            rows = connection.execute(statement).mappings().all()
        return [job_from_row(row) for row in rows]

    def forget_result(self, job_id: str) -> bool:
        """Note that a result was deleted; False if there was none."""
        statement = update(jobs).where(jobs.c.id == job_id, jobs.c.artifact_uri.is_not(None))
        with self._database.connect(write=True) as connection:
            return connection.execute(statement.values(artifact_uri=None)).rowcount == 1

    def prune(self, before: float, limit: int) -> int:
        """Delete the records of jobs that ended before a time and hold no artifact."""
        ended = (
            select(jobs.c.id)
            .where(
                jobs.c.completed_at.is_not(None),
                jobs.c.completed_at < before,
                jobs.c.artifact_uri.is_(None),
            )
            .order_by(jobs.c.completed_at)
            .limit(limit)
        )
        with self._database.connect(write=True) as connection:
            ids = list(connection.execute(ended).scalars())
            if not ids:
                return 0
            for column in (
                job_events.c.job_id,
                job_tags.c.job_id,
                job_dependencies.c.job_id,
                webhook_deliveries.c.job_id,
                jobs.c.id,
            ):
                connection.execute(delete(column.table).where(column.in_(ids)))
        return len(ids)

    def unstick(self, latest: float) -> int:
        """Let jobs go whose ``not_before`` lies beyond ``latest``: the clock was set back."""
        stuck = and_(condition("status = 'pending'"), jobs.c.not_before > latest)
        with self._database.connect(write=True) as connection:
            statement = update(jobs).where(stuck).values(not_before=0.0)
            return connection.execute(statement).rowcount

    def charge(self, owner: str, seconds: float) -> None:
        """Charge an owner GPU-seconds."""
        with self._database.connect(write=True) as connection:
            charge(connection, owner, seconds)


def _prefixed(condition: str) -> str:
    return condition.replace("artifact_uri", "jobs.artifact_uri").replace(
        "expires_at", "jobs.expires_at"
    )
