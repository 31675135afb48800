"""The jobs table.

Revision ID: 0001
Revises: none
"""

from __future__ import annotations

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
    text,
)

revision = "0001"
down_revision = None
branch_labels = None
depends_on = None

_BIG_KEY = BigInteger().with_variant(Integer, "sqlite")


def upgrade() -> None:
    """Create the table and its indexes (frozen copy of schema.py at this revision)."""
    op.create_table(
        "jobs",
        Column("seq", _BIG_KEY, primary_key=True),
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
        Column("progress", Float, nullable=False),
        Column("stage", String(128), nullable=False),
        Column("attempts", Integer, nullable=False),
        Column("max_attempts", Integer, nullable=False),
        Column("cancel_requested", Boolean, nullable=False),
        Column("lease_token", String(64)),
        Column("lease_until", Float),
        Column("idempotency_key", String(255), unique=True),
        Column("request_hash", String(64)),
        Column("batch_id", String(64)),
        Column("problem", JSON),
        Column("timings", JSON, nullable=False),
        Column("artifact_uri", Text),
        *_checks(),
        sqlite_autoincrement=True,
    )
    urgent_first = text("priority DESC")
    op.create_index("ix_jobs_claim_model", "jobs", ["status", "model_name", urgent_first, "seq"])
    op.create_index("ix_jobs_claim_any", "jobs", ["status", urgent_first, "seq"])
    op.create_index("ix_jobs_lease", "jobs", ["status", "lease_until"])
    op.create_index("ix_jobs_batch", "jobs", ["batch_id", "seq"])


def _checks() -> list[CheckConstraint]:
    final = "('completed', 'failed', 'cancelled')"
    rules = {
        "ck_jobs_status": f"status IN ('pending', 'running', {final[1:]}",
        "ck_jobs_priority": "priority BETWEEN 0 AND 3",
        "ck_jobs_progress": "progress BETWEEN 0 AND 1",
        "ck_jobs_attempts": "attempts BETWEEN 0 AND max_attempts",
        "ck_jobs_lease": "(status = 'running') = "
        "(lease_token IS NOT NULL AND lease_until IS NOT NULL)",
        "ck_jobs_completed_at": f"(status IN {final}) = (completed_at IS NOT NULL)",
    }
    return [CheckConstraint(rule, name=name) for name, rule in rules.items()]


def downgrade() -> None:
    """Drop the table."""
    op.drop_table("jobs")
