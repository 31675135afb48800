"""Only the claim's index serves the claim: three others take a condition of their own.

Revision ID: 0004
Revises: 0003
"""

from __future__ import annotations

from typing import Any

from alembic import op
from sqlalchemy import text

revision = "0004"
down_revision = "0003"
branch_labels = None
depends_on = None

_CLAIMABLE = "status = 'pending' AND waits_for = 0 AND held = 0"
_INDEXES: dict[str, tuple[str, list[Any]]] = {
    "ix_jobs_priority": (_CLAIMABLE, ["model_name", text("priority DESC")]),
    "ix_jobs_ageing": (f"{_CLAIMABLE} AND level < 3", ["levelled_at"]),
    "ix_jobs_waiting": ("status = 'pending'", ["owner"]),
}


def upgrade() -> None:
    """Build them again with a condition that the claim does not repeat."""
    _rebuild(" AND priority >= 0")


def downgrade() -> None:
    """Build them as they were."""
    _rebuild("")


def _rebuild(condition: str) -> None:
    for name, (base, columns) in _INDEXES.items():
        op.drop_index(name, "jobs")
        where = text(base + condition)
        op.create_index(name, "jobs", columns, sqlite_where=where, postgresql_where=where)
