"""Between a row of the jobs table and a GenerationJob."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

from sqlalchemy import RowMapping

from dream_cad.queue.jobs import GenerationJob, JobPriority, JobStatus

_TIMES = ("started_at", "completed_at", "lease_until")
_SAME = (
    "id", "prompt", "model_name", "config", "input_uri", "artifact_uri", "progress", "stage",
    "attempts", "max_attempts", "cancel_requested", "idempotency_key", "request_hash", "batch_id",
    "lease_token", "timings", "problem",
)  # fmt: skip


def row_from_job(job: GenerationJob) -> dict[str, Any]:
    """Return the column values of a job; ``seq`` is left to the database."""
    row: dict[str, Any] = {name: getattr(job, name) for name in _SAME}
    row |= {name: _epoch(getattr(job, name)) for name in _TIMES}
    return row | {
        "status": job.status.value,
        "priority": job.priority.value,
        "created_at": job.created_at.timestamp(),
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
        created_at=datetime.fromtimestamp(row["created_at"], UTC),
        error=problem.get("detail") if problem else None,
    )


def _epoch(instant: datetime | None) -> float | None:
    return instant.timestamp() if instant is not None else None


def _instant(epoch: float | None) -> datetime | None:
    return datetime.fromtimestamp(epoch, UTC) if epoch is not None else None
