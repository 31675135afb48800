"""The queue's SQL on single jobs: one named statement a verb, for SQLite and PostgreSQL.

Durable: what a verb changed is on disk when it returns. Every transition is a guarded UPDATE
that names the state it leaves, so that two callers can never both make it.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache
from typing import Any

from sqlalchemy import (
    ColumnElement,
    Connection,
    Float,
    RowMapping,
    String,
    Update,
    and_,
    bindparam,
    case,
    func,
    insert,
    literal,
    select,
    true,
    update,
)
from sqlalchemy.exc import IntegrityError
from sqlalchemy.sql.dml import ReturningUpdate

from dream_cad.exceptions import InvalidConfigError
from dream_cad.queue import dependencies
from dream_cad.queue.claim import Lease, Wanted, claim_best, claim_one
from dream_cad.queue.connection import Database
from dream_cad.queue.fairness import charge, enter
from dream_cad.queue.jobs import GenerationJob, JobStatus
from dream_cad.queue.rows import job_from_row, row_from_job
from dream_cad.queue.schema import jobs
from dream_cad.queue.tables import job_tags

PENDING, RUNNING = JobStatus.PENDING.value, JobStatus.RUNNING.value
COMPLETED, FAILED, CANCELLED = "completed", "failed", "cancelled"
NO_LEASE = {"lease_token": None, "lease_until": None}


# Built once, with parameters: building a statement takes longer than running it.
_BY_ID = select(jobs).where(jobs.c.id == bindparam("b_id"))
_HELD = and_(
    jobs.c.id == bindparam("b_id"),
    jobs.c.status == RUNNING,
    jobs.c.lease_token == bindparam("b_token"),
)
_EXTEND = (
    update(jobs)
    .where(_HELD)
    .values(
        lease_until=bindparam("b_until", type_=Float),
        progress=func.coalesce(bindparam("b_progress", type_=Float), jobs.c.progress),
        stage=func.coalesce(bindparam("b_stage", type_=String), jobs.c.stage),
    )
    .returning(jobs.c.cancel_requested)
)


@lru_cache
def _finishing(names: tuple[str, ...]) -> ReturningUpdate[Any]:
    """Build the UPDATE that ends a leased job and sets these columns."""
    values: dict[str, Any] = {name: bindparam(f"b_{name}") for name in names}
    values["gpu_seconds"] = jobs.c.gpu_seconds + bindparam("b_seconds", type_=Float)
    return (
        update(jobs)
        .where(_HELD)
        .values(**NO_LEASE, **values)
        .returning(jobs.c.owner, jobs.c.charged, jobs.c.gpu_seconds, jobs.c.is_needed)
    )


class JobStore:
    """The SQL verbs that change or read single jobs."""

    def __init__(self, database: Database) -> None:
        self._database = database
        self.releases = 0

    def insert(self, new_jobs: Sequence[GenerationJob], now: float) -> None:
        """Add jobs, all or none.

        Raises:
            InvalidConfigError: an id or idempotency key is taken, or a needed job is unknown.
        """
        with self._database.connect(write=True) as connection:
            insert_jobs(connection, new_jobs, now)

    def claim(self, wanted: Wanted, lease: Lease) -> GenerationJob | None:
        """Lease the best pending job: level, then the owner least served, then age.

        A claim that a power cut undoes leaves the job waiting, and nobody at work on it: it need
        not wait for the disk.
        """
        with self._database.connect(write=True, durable=False) as connection:
            return _job(claim_best(connection, wanted, lease))

    def claim_one(self, job_id: str, lease: Lease) -> GenerationJob | None:
        """Lease a certain job, if it is pending; see ``claim``."""
        with self._database.connect(write=True, durable=False) as connection:
            return _job(claim_one(connection, job_id, lease))

    def extend(
        self, job_id: str, token: str, lease_until: float, progress: float | None, stage: str | None
    ) -> bool | None:
        """Extend the lease and note progress.

        Returns:
            Whether the job was asked to stop; None if the token holds no lease any more.
        """
        values = {
            "b_id": job_id,
            "b_token": token,
            "b_until": lease_until,
            "b_progress": progress,
            "b_stage": stage,
        }
        with self._database.connect(write=True) as connection:
            asked = connection.execute(_EXTEND, values).scalar()
        return None if asked is None else bool(asked)

    def finish(
        self,
        job_id: str,
        token: str,
        status: JobStatus,
        now: float,
        gpu_seconds: float | None = None,
        **values: Any,
    ) -> bool:
        """Move a leased job to a final state; False if the token holds no lease any more.

        Args:
            job_id: the job.
            token: proof of the claim.
            status: the state to take.
            now: the time.
            gpu_seconds: measured; the owner's charge is corrected by it. None leaves the estimate.
            **values: further columns.
        """
        if status is JobStatus.COMPLETED:
            values["progress"] = 1.0
        values |= {"status": status.value, "completed_at": now, "changed_at": now}
        change = _finishing(tuple(sorted(values)))
        parameters = {f"b_{name}": value for name, value in values.items()}
        parameters |= {"b_id": job_id, "b_token": token, "b_seconds": gpu_seconds or 0.0}
        with self._database.connect(write=True) as connection:
            row = connection.execute(change, parameters).first()
            if row is None:
                return False
            if gpu_seconds is not None and row.gpu_seconds != row.charged:
                charge(connection, row.owner, row.gpu_seconds - row.charged)
            if row.is_needed:
                dependencies.settle(connection, [job_id], now)
                self.releases += 1
        return True

    def requeue(
        self,
        which: ColumnElement[bool],
        now: float,
        problem: dict[str, Any],
        spent: dict[str, Any],
        not_before: float = 0.0,
        gpu_seconds: float | None = None,
    ) -> list[GenerationJob]:
        """Take running jobs back: pending again, or final where nothing is left to try.

        A job that was asked to stop becomes cancelled, one with no attempt left failed.

        Args:
            which: the running jobs meant.
            now: the time, seconds since the epoch.
            problem: why, kept with the job.
            spent: the problem of a job whose attempts are used up.
            not_before: when the next attempt may start.
            gpu_seconds: cost of the attempt, where it was measured; corrects the owner's charge.
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
            changed_at=now,
            not_before=not_before,
            **NO_LEASE,
        )
        with self._database.connect(write=True) as connection:
            if gpu_seconds is not None:
                _charge_measured(connection, which, gpu_seconds)
            return _changed(connection, statement, now)

    def cancel_pending(self, job_id: str, now: float) -> GenerationJob | None:
        """Cancel a job that waits; None if it does not wait any more."""
        change = _waiting(job_id).values(status=CANCELLED, completed_at=now, changed_at=now)
        return _single(self.change(change, now))

    def fail_pending(self, job_id: str, now: float, problem: dict[str, Any]) -> bool:
        """Fail a job that waits; False if it does not wait any more."""
        change = _waiting(job_id).values(
            status=FAILED, completed_at=now, changed_at=now, problem=problem
        )
        return bool(self.change(change, now))

    def request_cancel(self, job_id: str, now: float) -> GenerationJob | None:
        """Flag a running job to stop; None if it is not running."""
        change = update(jobs).where(jobs.c.id == job_id, jobs.c.status == RUNNING)
        return _single(self.change(change.values(cancel_requested=True), now))

    def cancel_all(self, which: ColumnElement[bool], now: float) -> list[GenerationJob]:
        """Cancel those that wait, flag those that run, of the jobs meant; returns all of them."""
        waits = jobs.c.status == PENDING
        change = update(jobs).where(which, jobs.c.status.in_((PENDING, RUNNING)))
        change = change.values(
            status=case((waits, CANCELLED), else_=jobs.c.status),
            completed_at=case((waits, now), else_=None),
            cancel_requested=case((waits, jobs.c.cancel_requested), else_=true()),
            changed_at=now,
        )
        return self.change(change, now)

    def change(self, statement: Update, now: float) -> list[GenerationJob]:
        """Run an UPDATE of jobs, settle what depends on those that ended, and return them."""
        with self._database.connect(write=True) as connection:
            return _changed(connection, statement, now)

    def get(self, job_id: str) -> GenerationJob | None:
        """Return the job of that id, if any."""
        with self._database.connect(write=False) as connection:
            return _job(connection.execute(_BY_ID, {"b_id": job_id}).mappings().first())

    def get_by_key(self, owner: str, idempotency_key: str) -> GenerationJob | None:
        """Return the job that an owner added under an idempotency key, if any."""
        return self.first(and_(jobs.c.owner == owner, jobs.c.idempotency_key == idempotency_key))

    def first(self, wanted: ColumnElement[bool], *, newest: bool = False) -> GenerationJob | None:
        """Return one job that meets a condition, if there is any."""
        statement = select(jobs).where(wanted)
        if newest:
            statement = statement.order_by(jobs.c.seq.desc()).limit(1)
        with self._database.connect(write=False) as connection:
            return _job(connection.execute(statement).mappings().first())

    def count(self, *wanted: ColumnElement[bool]) -> int:
        """Return the number of jobs that meet all conditions."""
        statement = select(func.count()).select_from(jobs).where(*wanted)
        with self._database.connect(write=False) as connection:
            return int(connection.execute(statement).scalar_one())


def insert_jobs(connection: Connection, new_jobs: Sequence[GenerationJob], now: float) -> None:
    """Add jobs with their tags and dependencies; see JobStore.insert."""
    for owner in {job.owner for job in new_jobs}:
        enter(connection, owner)
    waits = dependencies.count_open(connection, new_jobs)
    rows = [row_from_job(job) for job in new_jobs]
    for row in rows:
        row |= {"changed_at": now, "levelled_at": now, "waits_for": waits.get(row["id"], 0)}
    try:
        connection.execute(insert(jobs), _without_empty_columns(rows))
    except IntegrityError as error:
        raise InvalidConfigError(
            "A job with that id or idempotency key exists already.",
            hint="Leave the id out: a fresh one is made.",
        ) from error
    dependencies.link(connection, new_jobs)
    tags = [{"tag": tag, "job_id": job.id} for job in new_jobs for tag in set(job.tags)]
    if tags:
        connection.execute(insert(job_tags), tags)


def _without_empty_columns(rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Leave out what is NULL in every row: a third of the columns, and of an insert's time."""
    used = [name for name in rows[0] if any(row[name] is not None for row in rows)]
    return [{name: row[name] for name in used} for row in rows]


def _changed(connection: Connection, statement: Update, now: float) -> list[GenerationJob]:
    rows = connection.execute(statement.returning(jobs)).mappings().all()
    ended = [row["id"] for row in rows if row["is_needed"] and row["completed_at"]]
    if ended:
        dependencies.settle(connection, ended, now)
    return [job_from_row(row) for row in rows]


def _charge_measured(
    connection: Connection, which: ColumnElement[bool], gpu_seconds: float
) -> None:
    """Put what an attempt cost in the place of the estimate that its owner was charged."""
    measured = update(jobs).where(which).values(gpu_seconds=jobs.c.gpu_seconds + gpu_seconds)
    columns = jobs.c.seq, jobs.c.owner, jobs.c.charged, jobs.c.gpu_seconds
    for row in connection.execute(measured.returning(*columns)).all():
        charge(connection, row.owner, row.gpu_seconds - row.charged)
        settled = update(jobs).where(jobs.c.seq == row.seq).values(charged=row.gpu_seconds)
        connection.execute(settled)


def held_by(job_id: str, token: str) -> ColumnElement[bool]:
    """Condition: the job is running under this lease token."""
    return and_(jobs.c.id == job_id, jobs.c.status == RUNNING, jobs.c.lease_token == token)


def expired_at(now: float) -> ColumnElement[bool]:
    """Condition: the lease has lapsed."""
    return and_(jobs.c.status == RUNNING, jobs.c.lease_until < now)


def any_running() -> ColumnElement[bool]:
    """Condition: every job under way, for an owner that knows that its predecessor is dead."""
    return jobs.c.status == RUNNING


def _waiting(job_id: str) -> Update:
    return update(jobs).where(jobs.c.id == job_id, jobs.c.status == PENDING)


def _single(found: list[GenerationJob]) -> GenerationJob | None:
    return found[0] if found else None


def _job(row: RowMapping | None) -> GenerationJob | None:
    return job_from_row(row) if row is not None else None
