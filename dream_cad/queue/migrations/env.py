"""Alembic environment: runs on the connection that the store hands over."""

from __future__ import annotations

from alembic import context

from dream_cad.queue.schema import metadata

context.configure(
    connection=context.config.attributes["connection"],
    target_metadata=metadata,
    render_as_batch=True,
    version_table="dream_cad_schema",
)
context.run_migrations()
