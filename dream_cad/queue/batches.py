"""Batches: many jobs as one object."""

from __future__ import annotations

from typing import Any

from sqlalchemy import Connection, and_, func, insert, select, update

from dream_cad.exceptions import IdempotencyConflictError
from dream_cad.queue.connection import Database
from dream_cad.queue.jobs import BatchView, GenerationJob, JobStatus, new_job_id
from dream_cad.queue.rows import instant, job_from_row
from dream_cad.queue.schema import jobs
from dream_cad.queue.store import insert_jobs
from dream_cad.queue.tables import batches


class BatchStore:
    """The SQL verbs on batches."""

    def __init__(self, database: Database) -> None:
        self._database = database

    def insert(
        self, batch_id: str, owner: str, name: str, new_jobs: list[GenerationJob], now: float
    ) -> None:
        """Add a batch with its jobs, all or none."""
        with self._database.connect(write=True) as connection:
            connection.execute(
                insert(batches).values(
                    id=batch_id,
                    owner=owner,
                    name=name,
                    created_at=now,
                    paused=False,
                    total=len(new_jobs),
                )
            )
            insert_jobs(connection, new_jobs, now)

    def get(self, batch_id: str) -> BatchView | None:
        """Return a batch with the number of its jobs by state, if it exists."""
        counts = (
            select(jobs.c.status, func.count())
            .where(jobs.c.batch_id == batch_id, jobs.c.superseded.is_(False))
            .group_by(jobs.c.status)
        )
        with self._database.connect(write=False) as connection:
            row = connection.execute(select(batches).where(batches.c.id == batch_id)).first()
            if row is None:
                return None
            found = {row[0]: row[1] for row in connection.execute(counts)}
        return BatchView(
            id=row.id,
            name=row.name,
            owner=row.owner,
            created_at=instant(row.created_at),
            paused=row.paused,
            total=row.total,
            counts={status: found.get(status.value, 0) for status in JobStatus},
        )

    def items(self, batch_id: str, after: int, limit: int) -> list[GenerationJob]:
        """Return the batch's present jobs in order, those after an index."""
        statement = (
            select(jobs)
            .where(
                jobs.c.batch_id == batch_id,
                jobs.c.batch_index > after,
                jobs.c.superseded.is_(False),
            )
            .order_by(jobs.c.batch_index)
            .limit(limit)
        )
        with self._database.connect(write=False) as connection:
            return [job_from_row(row) for row in connection.execute(statement).mappings()]

    def set_paused(self, batch_id: str, paused: bool, now: float) -> bool:
        """Hold or release the jobs that wait; False if there is no such batch."""
        change = update(batches).where(batches.c.id == batch_id).values(paused=paused)
        waiting = and_(jobs.c.batch_id == batch_id, jobs.c.status == "pending")
        held: dict[str, Any] = {"held": int(paused)}
        if not paused:
            held["levelled_at"] = now  # time in a pause earns no level
        with self._database.connect(write=True) as connection:
            if connection.execute(change).rowcount == 0:
                return False
            connection.execute(update(jobs).where(waiting, jobs.c.held != int(paused)).values(held))
        return True

    def retry_failed(
        self, batch_id: str, now: float, key: str | None = None, request_hash: str | None = None
    ) -> list[str]:
        """Put a fresh job in the place of each failed one and return the fresh ids, in order.

        The first fresh job carries the idempotency key, all of them the request's hash, which must
        be that of no other call: called with both again, nothing is added and the same ids come
        back. A call that found nothing failed is not remembered.

        Raises:
            IdempotencyConflictError: the key belongs to another request.
        """
        failed = and_(
            jobs.c.batch_id == batch_id,
            jobs.c.status == "failed",
            jobs.c.superseded.is_(False),
        )
        with self._database.connect(write=True) as connection:
            if known := _retried(connection, batch_id, key, request_hash):
                return known
            rows = (
                connection.execute(
                    update(jobs).where(failed).values(superseded=True).returning(jobs)
                )
                .mappings()
                .all()
            )
            old = sorted(map(job_from_row, rows), key=lambda job: job.batch_index or 0)
            fresh = [_again(job, now) for job in old]
            if not fresh:  # another call with the key may have been quicker
                return _retried(connection, batch_id, key, request_hash)
            fresh[0].idempotency_key = key
            for job in fresh:
                job.request_hash = request_hash
            insert_jobs(connection, fresh, now)
            paused = select(batches.c.paused).where(batches.c.id == batch_id)
            if connection.execute(paused).scalar():
                ids = [job.id for job in fresh]
                connection.execute(update(jobs).where(jobs.c.id.in_(ids)).values(held=1))
        return [job.id for job in fresh]


def _retried(
    connection: Connection, batch_id: str, key: str | None, request_hash: str | None
) -> list[str]:
    """Return the ids of the jobs that an earlier call with the key made."""
    if key is None:
        return []
    owner = select(batches.c.owner).where(batches.c.id == batch_id).scalar_subquery()
    first = connection.execute(
        select(jobs.c.id, jobs.c.request_hash).where(
            jobs.c.idempotency_key == key, jobs.c.owner == owner
        )
    ).first()
    if first is None:
        return []
    if first.request_hash != request_hash:
        raise IdempotencyConflictError(
            f"The idempotency key {key!r} belongs to another request.",
            hint="Use a new key for a new request.",
            details={"job_id": first.id},
        )
    made = (
        select(jobs.c.id)
        .where(jobs.c.batch_id == batch_id, jobs.c.request_hash == request_hash)
        .order_by(jobs.c.batch_index)
    )
    return list(connection.execute(made).scalars())


def _again(job: GenerationJob, now: float) -> GenerationJob:
    """Return a new pending job that asks for the same."""
    return GenerationJob(
        id=new_job_id(),
        created_at=instant(now),
        **{
            name: getattr(job, name)
            for name in (
                "prompt", "model_name", "config", "priority", "input_uri", "max_attempts",
                "batch_id", "batch_index", "owner", "tags", "policy", "cache_key",
            )
        },
    )  # fmt: skip
