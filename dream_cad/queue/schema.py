"""The ``jobs`` table: what the database itself guarantees.

States, the bond between a lease and the running state, progress and attempt ranges are CHECK
constraints; ids and idempotency keys are unique; triggers (migrations/triggers.py) let only legal
transitions pass and write each of them to ``job_events``. Times are seconds since the epoch (UTC).
"""

from __future__ import annotations

from typing import cast

from sqlalchemy import (
    JSON,
    BigInteger,
    Boolean,
    CheckConstraint,
    Column,
    ColumnElement,
    Float,
    Index,
    Integer,
    MetaData,
    String,
    Table,
    Text,
    UniqueConstraint,
    text,
)

from dream_cad.queue.jobs import JobPriority, JobStatus

metadata = MetaData()

# PostgreSQL's FLOAT without a precision is a double; SQLite's REAL is one always.
BIG_KEY = BigInteger().with_variant(Integer, "sqlite")
_STATUS_LIST = ", ".join(f"'{status.value}'" for status in JobStatus)
_LOWEST = min(priority.value for priority in JobPriority)
_HIGHEST = max(priority.value for priority in JobPriority)


def condition(sql: str) -> ColumnElement[bool]:
    """Return literal SQL as a condition: parameters would hide it from partial indexes."""
    return cast("ColumnElement[bool]", text(sql))


CLAIMABLE = "status = 'pending' AND waits_for = 0 AND held = 0"
"""What a claim reads; literal, because a partial index serves only a query that repeats it."""
BESIDE_CLAIM = "priority >= 0"
"""True of every job; an index that carries it serves only a query that repeats it.

A PostgreSQL that has not yet analysed a freshly filled table holds every partial index for empty,
so it took the shortest condition that a step of the claim implies, and sorted all that waits.
"""

jobs = Table(
    "jobs",
    metadata,
    Column("seq", BIG_KEY, primary_key=True),
    Column("id", String(64), nullable=False, unique=True),
    Column("owner", String(64), nullable=False, default=""),
    Column("model_name", String(128), nullable=False),
    Column("prompt", Text, nullable=False),
    Column("config", JSON, nullable=False),
    Column("policy", JSON, nullable=False, default=dict),
    Column("tags", JSON, nullable=False, default=list),
    Column("depends_on", JSON, nullable=False, default=list),
    Column("input_uri", Text),
    Column("status", String(16), nullable=False),
    Column("priority", Integer, nullable=False),
    Column("level", Integer, nullable=False),
    Column("levelled_at", Float, nullable=False),
    Column("not_before", Float, nullable=False, default=0.0),
    Column("waits_for", Integer, nullable=False, default=0),
    Column("is_needed", Boolean, nullable=False, default=False),
    Column("held", Integer, nullable=False, default=0),
    Column("start_by", Float),
    Column("deadline", Float),
    Column("created_at", Float, nullable=False),
    Column("started_at", Float),
    Column("completed_at", Float),
    Column("changed_at", Float, nullable=False),
    Column("progress", Float, nullable=False, default=0.0),
    Column("stage", String(128), nullable=False, default=""),
    Column("attempts", Integer, nullable=False, default=0),
    Column("max_attempts", Integer, nullable=False),
    Column("cancel_requested", Boolean, nullable=False, default=False),
    Column("lease_token", String(64)),
    Column("lease_until", Float),
    Column("idempotency_key", String(255)),
    Column("request_hash", String(64)),
    Column("batch_id", String(64)),
    Column("batch_index", Integer),
    Column("superseded", Boolean, nullable=False, default=False),
    Column("problem", JSON(none_as_null=True)),
    Column("timings", JSON, nullable=False, default=dict),
    Column("gpu_seconds", Float, nullable=False, default=0.0),
    Column("charged", Float, nullable=False, default=0.0),
    Column("peak_memory_bytes", BigInteger),
    Column("artifact_uri", Text),
    Column("cache_key", String(128)),
    Column("cached_from", String(64)),
    Column("expires_at", Float),
    CheckConstraint(f"status IN ({_STATUS_LIST})", name="ck_jobs_status"),
    CheckConstraint(f"priority BETWEEN {_LOWEST} AND {_HIGHEST}", name="ck_jobs_priority"),
    CheckConstraint(f"level BETWEEN priority AND {_HIGHEST}", name="ck_jobs_level"),
    CheckConstraint("waits_for >= 0", name="ck_jobs_waits_for"),
    CheckConstraint("held IN (0, 1)", name="ck_jobs_held"),
    CheckConstraint("gpu_seconds >= 0", name="ck_jobs_gpu_seconds"),
    CheckConstraint("progress BETWEEN 0 AND 1", name="ck_jobs_progress"),
    CheckConstraint("attempts BETWEEN 0 AND max_attempts", name="ck_jobs_attempts"),
    CheckConstraint(
        "(status = 'running') = (lease_token IS NOT NULL AND lease_until IS NOT NULL)",
        name="ck_jobs_lease",
    ),
    CheckConstraint(
        "(status IN ('completed', 'failed', 'cancelled')) = (completed_at IS NOT NULL)",
        name="ck_jobs_completed_at",
    ),
    UniqueConstraint("owner", "idempotency_key", name="uq_jobs_idempotency"),
    sqlite_autoincrement=True,
)


def _partial(name: str, condition: str, *columns: object) -> Index:
    where = text(condition)
    return Index(name, *columns, sqlite_where=where, postgresql_where=where)  # type: ignore[arg-type]


# The claim steps through this one and never sorts, whatever the depth of the queue.
_partial(
    "ix_jobs_claim", CLAIMABLE, jobs.c.model_name, jobs.c.level.desc(), jobs.c.owner, jobs.c.seq
)
_partial(
    "ix_jobs_priority", f"{CLAIMABLE} AND {BESIDE_CLAIM}", jobs.c.model_name, jobs.c.priority.desc()
)
_partial(
    "ix_jobs_ageing", f"{CLAIMABLE} AND level < {_HIGHEST} AND {BESIDE_CLAIM}", jobs.c.levelled_at
)
_partial("ix_jobs_waiting", f"status = 'pending' AND {BESIDE_CLAIM}", jobs.c.owner)
_partial("ix_jobs_start_by", "status = 'pending' AND start_by IS NOT NULL", jobs.c.start_by)
_partial("ix_jobs_deadline", "status = 'pending' AND deadline IS NOT NULL", jobs.c.deadline)
_partial("ix_jobs_lease", "status = 'running'", jobs.c.lease_until)
_partial("ix_jobs_batch", "batch_id IS NOT NULL", jobs.c.batch_id, jobs.c.batch_index)
_partial("ix_jobs_cache", "cache_key IS NOT NULL", jobs.c.cache_key, jobs.c.seq)
_partial("ix_jobs_expiry", "artifact_uri IS NOT NULL AND expires_at IS NOT NULL", jobs.c.expires_at)
_partial("ix_jobs_ended", "completed_at IS NOT NULL", jobs.c.completed_at)
