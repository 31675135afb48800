"""The tables beside ``jobs``: batches, events, keys, shares, licences, deliveries, memory."""

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
    String,
    Table,
    Text,
    text,
)

from dream_cad.queue.schema import BIG_KEY, metadata

job_tags = Table(
    "job_tags",
    metadata,
    Column("tag", String(64), primary_key=True),
    Column("job_id", String(64), primary_key=True, index=True),
)

job_dependencies = Table(
    "job_dependencies",
    metadata,
    Column("job_id", String(64), primary_key=True),
    Column("needs_id", String(64), primary_key=True, index=True),
)

batches = Table(
    "batches",
    metadata,
    Column("id", String(64), primary_key=True),
    Column("owner", String(64), nullable=False),
    Column("name", String(200), nullable=False),
    Column("created_at", Float, nullable=False),
    Column("paused", Boolean, nullable=False),
    Column("total", Integer, nullable=False),
)

job_events = Table(
    "job_events",
    metadata,
    Column("seq", BIG_KEY, primary_key=True),
    Column("job_id", String(64), nullable=False),
    Column("at", Float, nullable=False),
    Column("kind", String(32), nullable=False),
    Column("data", JSON, nullable=False),
    Index("ix_job_events_job", "job_id", "seq"),
    sqlite_autoincrement=True,
)

api_keys = Table(
    "api_keys",
    metadata,
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

shares = Table(
    "shares",
    metadata,
    Column("owner", String(64), primary_key=True),
    Column("virtual_time", Float, nullable=False),
)

lanes = Table(
    "lanes",
    metadata,
    Column("model", String(128), primary_key=True),
    Column("priority", Integer, primary_key=True, autoincrement=False),
    Column("virtual_time", Float, nullable=False),
)

lifts = Table(
    "lifts",
    metadata,
    Column("owner", String(64), primary_key=True),
    Column("model", String(128), primary_key=True),
    Column("priority", Integer, primary_key=True, autoincrement=False),
    Column("lift", Float, nullable=False),
)

queue_state = Table(
    "queue_state",
    metadata,
    Column("name", String(64), primary_key=True),
    Column("value", JSON, nullable=False),
)

accepted_licenses = Table(
    "accepted_licenses",
    metadata,
    Column("model", String(128), primary_key=True),
    Column("license", String(255), primary_key=True),
    Column("accepted_by", String(200), nullable=False),
    Column("accepted_at", Float, nullable=False),
)

webhook_deliveries = Table(
    "webhook_deliveries",
    metadata,
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
    Index(
        "ix_deliveries_due",
        "next_at",
        sqlite_where=text("state = 'pending'"),
        postgresql_where=text("state = 'pending'"),
    ),
)

memory_peaks = Table(
    "memory_peaks",
    metadata,
    Column("model", String(128), primary_key=True),
    Column("checkpoint", String(255), primary_key=True),
    Column("options_class", String(128), primary_key=True),
    Column("gpu", String(128), primary_key=True),
    Column("peak_bytes", BigInteger, nullable=False),
    Column("samples", Integer, nullable=False),
    CheckConstraint("peak_bytes >= 0", name="ck_memory_peaks_bytes"),
)
