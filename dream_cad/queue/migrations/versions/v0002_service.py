"""Batches, owners, ageing, dependencies, events, keys, deliveries; transitions by trigger.

Revision ID: 0002
Revises: 0001
"""

from __future__ import annotations

from typing import Any

from alembic import op
from sqlalchemy import (
    JSON,
    BigInteger,
    Boolean,
    CheckConstraint,
    Column,
    Float,
    Integer,
    String,
    Text,
    UniqueConstraint,
    text,
)

from dream_cad.exceptions import StorageError
from dream_cad.queue.migrations.tables_0002 import create_side_tables
from dream_cad.queue.migrations.triggers_0002 import create_triggers

revision = "0002"
down_revision = "0001"
branch_labels = None
depends_on = None

_BIG_KEY = BigInteger().with_variant(Integer, "sqlite")
_CLAIMABLE = "status = 'pending' AND waits_for = 0 AND held = 0"
_OLD_INDEXES = ("ix_jobs_claim_model", "ix_jobs_claim_any", "ix_jobs_lease", "ix_jobs_batch")
_KEPT = (
    "seq, id, model_name, prompt, config, input_uri, status, priority, created_at, started_at, "
    "completed_at, progress, stage, attempts, max_attempts, cancel_requested, lease_token, "
    "lease_until, idempotency_key, request_hash, batch_id, problem, timings, artifact_uri"
)


def upgrade() -> None:
    """Make the table anew (SQLite cannot add constraints to one), copy the rows, add the rest."""
    for name in _OLD_INDEXES:
        op.drop_index(name, "jobs")
    op.rename_table("jobs", "jobs_0001")
    _create_jobs()
    op.execute(_copy())
    op.drop_table("jobs_0001")
    if op.get_bind().dialect.name == "postgresql":
        op.execute(
            "SELECT setval(pg_get_serial_sequence('jobs', 'seq'), "
            "coalesce((SELECT max(seq) FROM jobs), 0) + 1, false)"
        )
    _create_indexes()
    create_side_tables()
    _adopt_batches()
    create_triggers()


def downgrade() -> None:
    """Refuse: the earlier version knows no owners and would hand out their jobs.

    Raises:
        StorageError: always.
    """
    raise StorageError(
        "Version 0002 of the job database cannot be taken back: 0001 knows no owners.",
        hint="Restore the copy of the database from before the upgrade, or start a new one.",
    )


def _create_jobs() -> None:
    op.create_table(
        "jobs",
        Column("seq", _BIG_KEY, primary_key=True),
        Column("id", String(64), nullable=False, unique=True),
        Column("owner", String(64), nullable=False),
        Column("model_name", String(128), nullable=False),
        Column("prompt", Text, nullable=False),
        Column("config", JSON, nullable=False),
        Column("policy", JSON, nullable=False),
        Column("tags", JSON, nullable=False),
        Column("depends_on", JSON, nullable=False),
        Column("input_uri", Text),
        Column("status", String(16), nullable=False),
        Column("priority", Integer, nullable=False),
        Column("level", Integer, nullable=False),
        Column("levelled_at", Float, nullable=False),
        Column("not_before", Float, nullable=False),
        Column("waits_for", Integer, nullable=False),
        Column("is_needed", Boolean, nullable=False),
        Column("held", Integer, nullable=False),
        Column("start_by", Float),
        Column("deadline", Float),
        Column("created_at", Float, nullable=False),
        Column("started_at", Float),
        Column("completed_at", Float),
        Column("changed_at", Float, nullable=False),
        Column("progress", Float, nullable=False),
        Column("stage", String(128), nullable=False),
        Column("attempts", Integer, nullable=False),
        Column("max_attempts", Integer, nullable=False),
        Column("cancel_requested", Boolean, nullable=False),
        Column("lease_token", String(64)),
        Column("lease_until", Float),
        Column("idempotency_key", String(255)),
        Column("request_hash", String(64)),
        Column("batch_id", String(64)),
        Column("batch_index", Integer),
        Column("superseded", Boolean, nullable=False),
        Column("problem", JSON),
        Column("timings", JSON, nullable=False),
        Column("gpu_seconds", Float, nullable=False),
        Column("charged", Float, nullable=False),
        Column("peak_memory_bytes", BigInteger),
        Column("artifact_uri", Text),
        Column("cache_key", String(128)),
        Column("cached_from", String(64)),
        Column("expires_at", Float),
        CheckConstraint(
            "status IN ('pending', 'running', 'completed', 'failed', 'cancelled')",
            name="ck_jobs_status",
        ),
        CheckConstraint("priority BETWEEN 0 AND 3", name="ck_jobs_priority"),
        CheckConstraint("level BETWEEN priority AND 3", name="ck_jobs_level"),
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


def _copy() -> str:
    new = (
        "owner, policy, tags, depends_on, level, levelled_at, not_before, waits_for, is_needed, "
        "held, changed_at, superseded, gpu_seconds, charged"
    )
    values = (
        f"'', '{{}}', '[]', '[]', priority, created_at, 0, 0, {_false()}, "
        f"0, coalesce(completed_at, started_at, created_at), {_false()}, 0, 0"
    )
    return f"INSERT INTO jobs ({_KEPT}, {new}) SELECT {_KEPT}, {values} FROM jobs_0001"


def _false() -> str:
    return "false" if op.get_bind().dialect.name == "postgresql" else "0"


def _create_indexes() -> None:
    pending = "status = 'pending'"
    by_urgency = ["model_name", text("level DESC"), "owner", "seq"]
    _index("ix_jobs_claim", by_urgency, _CLAIMABLE)
    _index("ix_jobs_ageing", ["levelled_at"], f"{_CLAIMABLE} AND level < 3")
    _index("ix_jobs_waiting", ["owner"], pending)
    _index("ix_jobs_start_by", ["start_by"], f"{pending} AND start_by IS NOT NULL")
    _index("ix_jobs_deadline", ["deadline"], f"{pending} AND deadline IS NOT NULL")
    _index("ix_jobs_lease", ["lease_until"], "status = 'running'")
    _index("ix_jobs_batch", ["batch_id", "batch_index"], "batch_id IS NOT NULL")
    _index("ix_jobs_cache", ["cache_key", "seq"], "cache_key IS NOT NULL")
    _index("ix_jobs_expiry", ["expires_at"], "artifact_uri IS NOT NULL AND expires_at IS NOT NULL")
    _index("ix_jobs_ended", ["completed_at"], "completed_at IS NOT NULL")


def _index(name: str, columns: list[Any], condition: str) -> None:
    where = text(condition)
    op.create_index(name, "jobs", columns, sqlite_where=where, postgresql_where=where)


def _adopt_batches() -> None:
    """Give the batches of version 0001, which were ids on jobs alone, their rows and order."""
    op.execute(
        "INSERT INTO batches (id, owner, name, created_at, paused, total) "
        "SELECT batch_id, '', '', min(created_at), "
        f"{_false()}, count(*) FROM jobs WHERE batch_id IS NOT NULL GROUP BY batch_id"
    )
    op.execute(
        "UPDATE jobs SET batch_index = (SELECT count(*) FROM jobs AS earlier "
        "WHERE earlier.batch_id = jobs.batch_id AND earlier.seq < jobs.seq) "
        "WHERE batch_id IS NOT NULL"
    )
