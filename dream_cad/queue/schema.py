"""The ``jobs`` table: what the database itself guarantees.

States, the bond between a lease and the running state, progress and attempt ranges are CHECK
constraints; ids and idempotency keys are unique. Times are seconds since the epoch (UTC).
"""

from __future__ import annotations

from sqlalchemy import (
    JSON,
    BigInteger,
    Boolean,
    CheckConstraint,
    Column,
    Float,
    Index,
    Integer,
    MetaData,
    String,
    Table,
    Text,
)

from dream_cad.queue.jobs import JobPriority, JobStatus

metadata = MetaData()

_STATUS_LIST = ", ".join(f"'{status.value}'" for status in JobStatus)
_LOWEST = min(priority.value for priority in JobPriority)
_HIGHEST = max(priority.value for priority in JobPriority)

jobs = Table(
    "jobs",
    metadata,
    Column("seq", BigInteger().with_variant(Integer, "sqlite"), primary_key=True),
    Column("id", String(64), nullable=False, unique=True),
    Column("model_name", String(128), nullable=False),
    Column("prompt", Text, nullable=False),
    Column("config", JSON, nullable=False),
    Column("input_uri", Text),
    Column("status", String(16), nullable=False),
    Column("priority", Integer, nullable=False),
    Column("created_at", Float, nullable=False),
    Column("started_at", Float),
    Column("completed_at", Float),
    Column("progress", Float, nullable=False, default=0.0),
    Column("stage", String(128), nullable=False, default=""),
    Column("attempts", Integer, nullable=False, default=0),
    Column("max_attempts", Integer, nullable=False),
    Column("cancel_requested", Boolean, nullable=False, default=False),
    Column("lease_token", String(64)),
    Column("lease_until", Float),
    Column("idempotency_key", String(255), unique=True),
    Column("request_hash", String(64)),
    Column("batch_id", String(64)),
    Column("problem", JSON(none_as_null=True)),
    Column("timings", JSON, nullable=False, default=dict),
    Column("artifact_uri", Text),
    CheckConstraint(f"status IN ({_STATUS_LIST})", name="ck_jobs_status"),
    CheckConstraint(f"priority BETWEEN {_LOWEST} AND {_HIGHEST}", name="ck_jobs_priority"),
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
    sqlite_autoincrement=True,
)

# The claim reads the first row of one of these: no sort, whatever the depth of the queue.
Index("ix_jobs_claim_model", jobs.c.status, jobs.c.model_name, jobs.c.priority.desc(), jobs.c.seq)
Index("ix_jobs_claim_any", jobs.c.status, jobs.c.priority.desc(), jobs.c.seq)
Index("ix_jobs_lease", jobs.c.status, jobs.c.lease_until)
Index("ix_jobs_batch", jobs.c.batch_id, jobs.c.seq)
