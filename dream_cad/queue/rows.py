"""Between a row of the jobs table and a GenerationJob."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

from sqlalchemy import RowMapping

from dream_cad.queue.jobs import GenerationJob, JobPriority, JobStatus

_TIMES = (
    "started_at", "completed_at", "lease_until", "start_by", "deadline", "expires_at",
)  # fmt: skip
_SAME = (
    "id", "prompt", "model_name", "config", "input_uri", "artifact_uri", "progress", "stage",
    "attempts", "max_attempts", "cancel_requested", "idempotency_key", "request_hash", "batch_id",
    "lease_token", "timings", "problem", "owner", "policy", "tags", "depends_on", "waits_for",
    "batch_index", "superseded", "gpu_seconds", "peak_memory_bytes", "cache_key", "cached_from",
)  # fmt: skip


def row_from_job(job: GenerationJob) -> dict[str, Any]:
    """Return the column values of a job; ``seq`` is left to the database."""
    row: dict[str, Any] = {name: getattr(job, name) for name in _SAME}
    row |= {name: _epoch(getattr(job, name)) for name in _TIMES}
    return row | {
        "status": job.status.value,
        "priority": job.priority.value,
        "level": job.priority.value if job.level is None else job.level,
        "created_at": job.created_at.timestamp(),
        "not_before": _epoch(job.not_before) or 0.0,
    }


def job_from_row(row: RowMapping) -> GenerationJob:
    """Return the job that a row holds."""
    fields: dict[str, Any] = {name: row[name] for name in _SAME}
    fields |= {name: _instant(row[name]) for name in _TIMES}
    problem = row["problem"]
    return GenerationJob(
        **fields,
        seq=row["seq"],
        status=JobStatus(row["status"]),
        priority=JobPriority(row["priority"]),
        level=row["level"],
        not_before=_instant(row["not_before"] or None),
        changed_at=_instant(row["changed_at"]),
        created_at=datetime.fromtimestamp(row["created_at"], UTC),
        error=problem.get("detail") if problem else None,
    )


def instant(epoch: float) -> datetime:
    """Return the UTC time of seconds since the epoch."""
    return datetime.fromtimestamp(epoch, UTC)


def _epoch(instant: datetime | None) -> float | None:
    return instant.timestamp() if instant is not None else None


def _instant(epoch: float | None) -> datetime | None:
    return datetime.fromtimestamp(epoch, UTC) if epoch is not None else None
