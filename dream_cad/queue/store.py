"""The queue's SQL: one named statement a verb, legal for SQLite and PostgreSQL.

Durable: what a verb changed is on disk when it returns. Every transition is a guarded UPDATE
that names the state it leaves, so that two callers can never both make it.
"""

from __future__ import annotations

import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

from sqlalchemy import (
    ColumnElement,
    Connection,
    Engine,
    Update,
    and_,
    case,
    func,
    insert,
    literal,
    or_,
    select,
    update,
)
from sqlalchemy.exc import IntegrityError, SQLAlchemyError

from dream_cad.exceptions import InvalidConfigError, StorageError
from dream_cad.queue.jobs import GenerationJob, JobFilter, JobStatus
from dream_cad.queue.rows import job_from_row, row_from_job
from dream_cad.queue.schema import jobs

PENDING, RUNNING = JobStatus.PENDING.value, JobStatus.RUNNING.value
COMPLETED, FAILED, CANCELLED = "completed", "failed", "cancelled"
_NO_LEASE = {"lease_token": None, "lease_until": None}


class JobStore:
    """The SQL verbs over one engine.

    Safe to share between threads. On SQLite a lock keeps this process's threads from waiting
    in the database's unfair busy loop.
    """

    def __init__(self, engine: Engine) -> None:
        self._engine = engine
        self._reader = engine.execution_options(read_only=True)
        self._lock = threading.RLock()

    def close(self) -> None:
        """Give the connections back."""
        self._engine.dispose()

    @contextmanager
    def _connect(self, *, write: bool) -> Iterator[Connection]:
        with self._lock:
            try:
                with (self._engine if write else self._reader).begin() as connection:
                    yield connection
            except SQLAlchemyError as error:
                raise StorageError(
                    f"The job database failed: {error.__class__.__name__}: {error}.",
                    hint="Check free disk space and DREAM_CAD_DATABASE_URL, then try again.",
                ) from error

    def insert(self, new_jobs: Sequence[GenerationJob], max_pending: int | None) -> int | None:
        """Add pending jobs, all or none.

        Returns:
            None when they were added, else the number of pending jobs that left no room.

        Raises:
            InvalidConfigError: an id or idempotency key is taken.
        """
        with self._connect(write=True) as connection:
            if max_pending is not None:
                depth = self._count(connection, jobs.c.status == PENDING)
                if depth + len(new_jobs) > max_pending:
                    return depth
            try:
                connection.execute(insert(jobs), [row_from_job(job) for job in new_jobs])
            except IntegrityError as error:
                raise InvalidConfigError(
                    "A job with that id or idempotency key exists already.",
                    hint="Leave the id out: a fresh one is made.",
                ) from error
        return None

    def claim(
        self,
        *,
        token: str,
        now: float,
        lease_until: float,
        model_name: str | None = None,
        job_id: str | None = None,
        above_priority: int | None = None,
    ) -> GenerationJob | None:
        """Lease the best pending job (priority, then age) in one statement.

        Args:
            token: fresh proof of the claim.
            now: the claim's time, seconds since the epoch.
            lease_until: when the claim lapses.
            model_name: only jobs of this model.
            job_id: only this job.
            above_priority: only jobs more urgent than this.
        """
        wanted: list[ColumnElement[bool]] = [jobs.c.status == PENDING]
        if model_name is not None:
            wanted.append(jobs.c.model_name == model_name)
        if job_id is not None:
            wanted.append(jobs.c.id == job_id)
        if above_priority is not None:
            wanted.append(jobs.c.priority > above_priority)
        statement = claim_statement(wanted, token=token, now=now, lease_until=lease_until)
        return self._one(statement)

    def extend(
        self, job_id: str, token: str, lease_until: float, progress: float | None, stage: str | None
    ) -> GenerationJob | None:
        """Extend the lease and note progress; None if the token holds no lease any more."""
        values: dict[str, Any] = {"lease_until": lease_until}
        if progress is not None:
            values["progress"] = progress
        if stage is not None:
            values["stage"] = stage
        return self._one(update(jobs).where(held_by(job_id, token)).values(values))

    def finish(
        self, job_id: str, token: str, status: JobStatus, now: float, **values: Any
    ) -> GenerationJob | None:
        """Move a leased job to a final state; None if the token holds no lease any more."""
        change = update(jobs).where(held_by(job_id, token))
        if status is JobStatus.COMPLETED:
            values["progress"] = 1.0
        return self._one(
            change.values(status=status.value, completed_at=now, **_NO_LEASE, **values)
        )

    def requeue(
        self, which: ColumnElement[bool], now: float, problem: dict[str, Any], spent: dict[str, Any]
    ) -> list[GenerationJob]:
        """Take running jobs back: pending again, or final where nothing is left to try.

        A job that was asked to stop becomes cancelled, one with no attempt left failed.

        Args:
            which: the running jobs meant.
            now: the time, seconds since the epoch.
            problem: why, kept with the job.
            spent: the problem of a job whose attempts are used up.
        """
        again = and_(jobs.c.cancel_requested.is_(False), jobs.c.attempts < jobs.c.max_attempts)
        stopped = jobs.c.cancel_requested.is_(True)
        statement = update(jobs).where(jobs.c.status == RUNNING, which)
        statement = statement.values(
            status=case((stopped, CANCELLED), (again, PENDING), else_=FAILED),
            completed_at=case((again, None), else_=now),
            problem=case(
                (again, literal(problem, jobs.c.problem.type)),
                else_=literal(spent, jobs.c.problem.type),
            ),
            progress=0.0,
            stage="",
            **_NO_LEASE,
        )
        return self._many(statement)

    def cancel_pending(self, job_id: str, now: float) -> GenerationJob | None:
        """Cancel a job that waits; None if it does not wait any more."""
        change = update(jobs).where(jobs.c.id == job_id, jobs.c.status == PENDING)
        return self._one(change.values(status=CANCELLED, completed_at=now))

    def fail_pending(self, job_id: str, now: float, problem: dict[str, Any]) -> bool:
        """Fail a job that waits; False if it does not wait any more."""
        change = update(jobs).where(jobs.c.id == job_id, jobs.c.status == PENDING)
        done = self._one(change.values(status=FAILED, completed_at=now, problem=problem))
        return done is not None

    def request_cancel(self, job_id: str) -> GenerationJob | None:
        """Flag a running job to stop; None if it is not running."""
        change = update(jobs).where(jobs.c.id == job_id, jobs.c.status == RUNNING)
        return self._one(change.values(cancel_requested=True))

    def get(self, job_id: str) -> GenerationJob | None:
        """Return the job of that id, if any."""
        return self._first(jobs.c.id == job_id)

    def get_by_key(self, idempotency_key: str) -> GenerationJob | None:
        """Return the job that was added under an idempotency key, if any."""
        return self._first(jobs.c.idempotency_key == idempotency_key)

    def list_jobs(
        self, wanted: JobFilter, before_seq: int | None, limit: int
    ) -> list[GenerationJob]:
        """Return up to ``limit`` jobs, newest first, older than ``before_seq``."""
        statement = select(jobs).order_by(jobs.c.seq.desc()).limit(limit)
        if wanted.status is not None:
            statement = statement.where(jobs.c.status == wanted.status.value)
        if wanted.model_name is not None:
            statement = statement.where(jobs.c.model_name == wanted.model_name)
        if wanted.batch_id is not None:
            statement = statement.where(jobs.c.batch_id == wanted.batch_id)
        if before_seq is not None:
            statement = statement.where(jobs.c.seq < before_seq)
        with self._connect(write=False) as connection:
            rows = connection.execute(statement).mappings().all()
        return [job_from_row(row) for row in rows]

    def count_before(self, job: GenerationJob) -> int:
        """Return how many pending jobs of the same model are served before ``job``."""
        ahead = or_(
            jobs.c.priority > job.priority.value,
            and_(jobs.c.priority == job.priority.value, jobs.c.seq < job.seq),
        )
        with self._connect(write=False) as connection:
            return self._count(
                connection,
                and_(jobs.c.status == PENDING, jobs.c.model_name == job.model_name, ahead),
            )

    def count(self, status: JobStatus, model_name: str | None = None) -> int:
        """Return the number of jobs in a state."""
        wanted = jobs.c.status == status.value
        if model_name is not None:
            wanted = and_(wanted, jobs.c.model_name == model_name)
        with self._connect(write=False) as connection:
            return self._count(connection, wanted)

    def _first(self, wanted: ColumnElement[bool]) -> GenerationJob | None:
        with self._connect(write=False) as connection:
            row = connection.execute(select(jobs).where(wanted)).mappings().first()
        return job_from_row(row) if row is not None else None

    def _one(self, statement: Update) -> GenerationJob | None:
        changed = self._many(statement)
        return changed[0] if changed else None

    def _many(self, statement: Update) -> list[GenerationJob]:
        with self._connect(write=True) as connection:
            rows = connection.execute(statement.returning(jobs)).mappings().all()
        return [job_from_row(row) for row in rows]

    @staticmethod
    def _count(connection: Connection, wanted: ColumnElement[bool]) -> int:
        statement = select(func.count()).select_from(jobs).where(wanted)
        return int(connection.execute(statement).scalar_one())


def held_by(job_id: str, token: str) -> ColumnElement[bool]:
    """Condition: the job is running under this lease token."""
    return and_(jobs.c.id == job_id, jobs.c.status == RUNNING, jobs.c.lease_token == token)


def expired_at(now: float) -> ColumnElement[bool]:
    """Condition: the lease has lapsed."""
    return and_(jobs.c.status == RUNNING, jobs.c.lease_until < now)


def any_running() -> ColumnElement[bool]:
    """Condition: every job under way, for an owner that knows that its predecessor is dead."""
    return jobs.c.status == RUNNING


def claim_statement(
    wanted: Sequence[ColumnElement[bool]], *, token: str, now: float, lease_until: float
) -> Update:
    """Build the claim: UPDATE the best row of an index-ordered subquery.

    PostgreSQL skips rows that another claimer has locked; SQLite serialises writers.
    """
    best = (
        select(jobs.c.seq)
        .where(*wanted)
        .order_by(jobs.c.priority.desc(), jobs.c.seq)
        .limit(1)
        .with_for_update(skip_locked=True)
        .scalar_subquery()
    )
    return (
        update(jobs)
        .where(jobs.c.seq == best, jobs.c.status == PENDING)
        .values(
            status=RUNNING,
            lease_token=token,
            lease_until=lease_until,
            started_at=now,
            attempts=jobs.c.attempts + 1,
            progress=0.0,
            stage="",
        )
    )
