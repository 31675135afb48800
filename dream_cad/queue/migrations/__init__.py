"""Alembic migrations of the queue's database, applied when a JobStore opens it."""
