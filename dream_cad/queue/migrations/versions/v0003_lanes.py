"""Where the last job of each lane started, what lifted its owners, an index of priorities.

Revision ID: 0003
Revises: 0002
"""

from __future__ import annotations

from typing import Any

from alembic import op
from sqlalchemy import Column, Float, Integer, String, text

revision = "0003"
down_revision = "0002"
branch_labels = None
depends_on = None

_CLAIMABLE = "status = 'pending' AND waits_for = 0 AND held = 0"


def upgrade() -> None:
    """Add the tables and the index."""
    op.create_table(
        "lanes",
        Column("model", String(128), primary_key=True),
        Column("priority", Integer, primary_key=True, autoincrement=False),
        Column("virtual_time", Float, nullable=False),
    )
    op.create_table(
        "lifts",
        Column("owner", String(64), primary_key=True),
        Column("model", String(128), primary_key=True),
        Column("priority", Integer, primary_key=True, autoincrement=False),
        Column("lift", Float, nullable=False),
    )
    where = text(_CLAIMABLE)
    columns: list[Any] = ["model_name", text("priority DESC")]
    op.create_index("ix_jobs_priority", "jobs", columns, sqlite_where=where, postgresql_where=where)


def downgrade() -> None:
    """Take them away again."""
    op.drop_index("ix_jobs_priority", "jobs")
    op.drop_table("lifts")
    op.drop_table("lanes")
