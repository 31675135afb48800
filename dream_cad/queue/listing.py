"""Reading many jobs: pages, places in line, depth, events."""

from __future__ import annotations

from collections.abc import Collection
from typing import Any

from sqlalchemy import (
    ColumnElement,
    Integer,
    Select,
    String,
    and_,
    bindparam,
    column,
    func,
    or_,
    select,
    values,
)

from dream_cad.queue.connection import Database
from dream_cad.queue.jobs import Depth, GenerationJob, JobEvent, JobFilter, JobPriority
from dream_cad.queue.rows import instant, job_from_row
from dream_cad.queue.schema import CLAIMABLE, condition, jobs
from dream_cad.queue.tables import job_events, job_tags

_AHEAD = select(jobs.c.seq).where(
    condition(CLAIMABLE),
    jobs.c.model_name == bindparam("b_model"),
    or_(
        jobs.c.level > bindparam("b_level"),
        and_(jobs.c.level == bindparam("b_level"), jobs.c.seq < bindparam("b_seq")),
    ),
)
_COUNT_AHEAD = select(func.count()).select_from(_AHEAD.subquery())
_COUNT_AHEAD_AT_MOST = select(func.count()).select_from(
    _AHEAD.limit(bindparam("b_limit", type_=Integer)).subquery()
)
_KEYS_AT_ONCE = 500


class ListingStore:
    """The SQL that reads and changes nothing."""

    def __init__(self, database: Database) -> None:
        self._database = database

    def list_jobs(
        self, wanted: JobFilter, before_seq: int | None, limit: int
    ) -> list[GenerationJob]:
        """Return up to ``limit`` jobs, newest first, older than ``before_seq``."""
        statement = select(jobs).where(*_conditions(wanted))
        if before_seq is not None:
            statement = statement.where(jobs.c.seq < before_seq)
        statement = statement.order_by(jobs.c.seq.desc()).limit(limit)
        with self._database.connect(write=False) as connection:
            return [job_from_row(row) for row in connection.execute(statement).mappings()]

    def count_before(self, job: GenerationJob, limit: int | None) -> int:
        """Return how many claimable jobs of the same model come before ``job`` by level and age.

        Args:
            job: a pending job.
            limit: count no further than this; None for the exact number.
        """
        level = job.priority.value if job.level is None else job.level
        values = {"b_model": job.model_name, "b_level": level, "b_seq": job.seq}
        if limit is not None:
            values["b_limit"] = limit
        statement = _COUNT_AHEAD if limit is None else _COUNT_AHEAD_AT_MOST
        with self._database.connect(write=False) as connection:
            return int(connection.execute(statement, values).scalar_one())

    def depth(self) -> list[Depth]:
        """Return how many jobs can be claimed, by model and level."""
        groups = (
            select(jobs.c.model_name, jobs.c.level, func.count(), func.min(jobs.c.seq))
            .where(condition(CLAIMABLE))
            .group_by(jobs.c.model_name, jobs.c.level)
            .order_by(jobs.c.model_name, jobs.c.level.desc())
        )
        with self._database.connect(write=False) as connection:
            rows = connection.execute(groups).all()
            oldest = select(jobs.c.seq, jobs.c.created_at).where(
                jobs.c.seq.in_([row[3] for row in rows])
            )
            since = {row.seq: row.created_at for row in connection.execute(oldest)}
        return [
            Depth(model, JobPriority(level), count, instant(since[seq]))
            for model, level, count, seq in rows
        ]

    def cached(self, cache_keys: Collection[str], now: float) -> dict[str, GenerationJob]:
        """Return the newest completed job of each key whose result is there and not expired."""
        found: dict[str, GenerationJob] = {}
        ordered = sorted(cache_keys)
        with self._database.connect(write=False) as connection:
            for begin in range(0, len(ordered), _KEYS_AT_ONCE):
                statement = _newest_of(ordered[begin : begin + _KEYS_AT_ONCE], now)
                rows = connection.execute(statement).mappings()
                found |= {str(row["cache_key"]): job_from_row(row) for row in rows}
        return found

    def count_waiting(self, model_name: str, limit: int) -> int:
        """Return how many jobs of a model can be claimed, counting no further than ``limit``."""
        waiting = (
            select(jobs.c.seq)
            .where(condition(CLAIMABLE), jobs.c.model_name == model_name)
            .limit(limit)
        )
        with self._database.connect(write=False) as connection:
            counted = select(func.count()).select_from(waiting.subquery())
            return int(connection.execute(counted).scalar_one())

    def mean_seconds(self, model_name: str, last: int, within: int) -> float | None:
        """Return the mean working time of a model's last jobs among the last that ended."""
        ended = (
            select(jobs.c.model_name, jobs.c.status, jobs.c.started_at, jobs.c.completed_at)
            .where(condition("completed_at IS NOT NULL"))
            .order_by(jobs.c.completed_at.desc())
            .limit(within)
            .subquery()
        )
        seconds = (
            select((ended.c.completed_at - ended.c.started_at).label("seconds"))
            .where(
                ended.c.model_name == model_name,
                ended.c.status == "completed",
                ended.c.started_at.is_not(None),
            )
            .order_by(ended.c.completed_at.desc())
            .limit(last)
            .subquery()
        )
        with self._database.connect(write=False) as connection:
            return connection.execute(select(func.avg(seconds.c.seconds))).scalar()

    def asked_to_stop(self) -> list[str]:
        """Return the ids of the running jobs that were asked to stop."""
        asked = select(jobs.c.id).where(
            condition("status = 'running'"), jobs.c.cancel_requested.is_(True)
        )
        with self._database.connect(write=False) as connection:
            return list(connection.execute(asked).scalars())

    def events_after(self, job_id: str, seq: int, limit: int) -> list[JobEvent]:
        """Return a job's events with a number above ``seq``, in order."""
        statement = (
            select(job_events)
            .where(job_events.c.job_id == job_id, job_events.c.seq > seq)
            .order_by(job_events.c.seq)
            .limit(limit)
        )
        with self._database.connect(write=False) as connection:
            return [
                JobEvent(row.seq, row.job_id, instant(row.at), row.kind, row.data)
                for row in connection.execute(statement)
            ]


def _newest_of(cache_keys: list[str], now: float) -> Select[Any]:
    """Build the SELECT of each key's newest job with a result: one descent of the index a key."""
    wanted = values(column("key", String), name="wanted").data([(key,) for key in cache_keys]).cte()
    newest = (
        select(jobs.c.seq)
        .where(
            condition("cache_key IS NOT NULL AND artifact_uri IS NOT NULL"),
            condition("status = 'completed'"),
            jobs.c.cache_key == wanted.c.key,
            or_(jobs.c.expires_at.is_(None), jobs.c.expires_at > now),
        )
        .order_by(jobs.c.seq.desc())
        .limit(1)
        .scalar_subquery()
    )
    return select(jobs).where(jobs.c.seq.in_(select(newest).select_from(wanted)))


def _conditions(wanted: JobFilter) -> list[ColumnElement[bool]]:
    pairs = (
        (jobs.c.model_name, wanted.model_name),
        (jobs.c.batch_id, wanted.batch_id),
        (jobs.c.owner, wanted.owner),
    )
    conditions = [column == value for column, value in pairs if value is not None]
    if wanted.status is not None:
        conditions.append(jobs.c.status == wanted.status.value)
    if wanted.tag is not None:
        tagged = select(job_tags.c.job_id).where(job_tags.c.tag == wanted.tag)
        conditions.append(jobs.c.id.in_(tagged))
    return conditions
