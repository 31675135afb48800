"""Tables that version 0002 adds (frozen copy of tables.py at that revision)."""

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

_BIG_KEY = BigInteger().with_variant(Integer, "sqlite")


def create_side_tables() -> None:
    """Create everything but ``jobs``."""
    op.create_table(
        "job_tags",
        Column("tag", String(64), primary_key=True),
        Column("job_id", String(64), primary_key=True, index=True),
    )
    op.create_table(
        "job_dependencies",
        Column("job_id", String(64), primary_key=True),
        Column("needs_id", String(64), primary_key=True, index=True),
    )
    op.create_table(
        "batches",
        Column("id", String(64), primary_key=True),
        Column("owner", String(64), nullable=False),
        Column("name", String(200), nullable=False),
        Column("created_at", Float, nullable=False),
        Column("paused", Boolean, nullable=False),
        Column("total", Integer, nullable=False),
    )
    op.create_table(
        "job_events",
        Column("seq", _BIG_KEY, primary_key=True),
        Column("job_id", String(64), nullable=False),
        Column("at", Float, nullable=False),
        Column("kind", String(32), nullable=False),
        Column("data", JSON, nullable=False),
        sqlite_autoincrement=True,
    )
    op.create_table(
        "api_keys",
        Column("id", String(64), primary_key=True),
        Column("name", String(200), nullable=False),
        Column("secret_hash", String(64), nullable=False, unique=True),
        Column("scopes", JSON, nullable=False),
        Column("rate_per_minute", Integer),
        Column("max_pending", Integer),
        Column("weight", Float, nullable=False),
        Column("created_at", Float, nullable=False),
        Column("revoked_at", Float),
        Column("webhook_secret", String(64), nullable=False),
        CheckConstraint("weight > 0", name="ck_api_keys_weight"),
        CheckConstraint("rate_per_minute > 0", name="ck_api_keys_rate"),
        CheckConstraint("max_pending > 0", name="ck_api_keys_max_pending"),
    )
    op.create_table(
        "shares",
        Column("owner", String(64), primary_key=True),
        Column("virtual_time", Float, nullable=False),
    )
    op.create_table(
        "queue_state",
        Column("name", String(64), primary_key=True),
        Column("value", JSON, nullable=False),
    )
    op.create_table(
        "accepted_licenses",
        Column("model", String(128), primary_key=True),
        Column("license", String(255), primary_key=True),
        Column("accepted_by", String(200), nullable=False),
        Column("accepted_at", Float, nullable=False),
    )
    op.create_table(
        "webhook_deliveries",
        Column("id", String(64), primary_key=True),
        Column("job_id", String(64), nullable=False, index=True),
        Column("owner", String(64), nullable=False),
        Column("url", Text, nullable=False),
        Column("event", String(64), nullable=False),
        Column("body", Text, nullable=False),
        Column("attempts", Integer, nullable=False),
        Column("next_at", Float, nullable=False),
        Column("state", String(16), nullable=False),
        Column("status_code", Integer),
        Column("error", Text),
        Column("created_at", Float, nullable=False),
        Column("done_at", Float),
        CheckConstraint("state IN ('pending', 'delivered', 'failed')", name="ck_deliveries_state"),
        CheckConstraint("(state = 'pending') = (done_at IS NULL)", name="ck_deliveries_done_at"),
    )
    op.create_table(
        "memory_peaks",
        Column("model", String(128), primary_key=True),
        Column("checkpoint", String(255), primary_key=True),
        Column("options_class", String(128), primary_key=True),
        Column("gpu", String(128), primary_key=True),
        Column("peak_bytes", BigInteger, nullable=False),
        Column("samples", Integer, nullable=False),
        CheckConstraint("peak_bytes >= 0", name="ck_memory_peaks_bytes"),
    )
    op.create_index("ix_job_events_job", "job_events", ["job_id", "seq"])
    is_open = text("state = 'pending'")
    op.create_index(
        "ix_deliveries_due",
        "webhook_deliveries",
        ["next_at"],
        sqlite_where=is_open,
        postgresql_where=is_open,
    )
