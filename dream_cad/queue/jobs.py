"""What a job is: its states, its priorities and the record that is passed around."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from enum import Enum
from typing import Any

import uuid_utils


class JobStatus(Enum):
    """Where a job stands."""

    PENDING = "pending"
    RUNNING = "running"
    COMPLETED = "completed"
    FAILED = "failed"
    CANCELLED = "cancelled"

    @property
    def is_final(self) -> bool:
        """Whether no transition leads out of this state."""
        return self in FINAL_STATUSES


FINAL_STATUSES = frozenset({JobStatus.COMPLETED, JobStatus.FAILED, JobStatus.CANCELLED})

LEGAL_TRANSITIONS: Mapping[JobStatus, frozenset[JobStatus]] = {
    JobStatus.PENDING: frozenset({JobStatus.RUNNING, JobStatus.FAILED, JobStatus.CANCELLED}),
    JobStatus.RUNNING: frozenset({JobStatus.PENDING, *FINAL_STATUSES}),
    JobStatus.COMPLETED: frozenset(),
    JobStatus.FAILED: frozenset(),
    JobStatus.CANCELLED: frozenset(),
}
"""Which state may follow which; the store's guarded UPDATEs enforce exactly this table."""


class JobPriority(Enum):
    """How urgent a job is: a higher value is served first, whatever its age."""

    LOW = 0
    NORMAL = 1
    HIGH = 2
    URGENT = 3


def new_job_id() -> str:
    """Return a fresh UUIDv7: sortable by creation time."""
    return str(uuid_utils.uuid7())


def _utc_now() -> datetime:
    return datetime.now(UTC)


@dataclass(kw_only=True)
class GenerationJob:
    """One request for a mesh, as kept in the queue.

    Attributes:
        id: unique id, UUIDv7 unless given.
        prompt: text prompt; empty only when ``input_uri`` names an image.
        model_name: the model to use.
        config: generation options, JSON types only.
        status: current state.
        priority: urgency.
        created_at: when it was added (UTC).
        started_at: when the current or last attempt was claimed.
        completed_at: when it reached a final state.
        result: the GenerationResult, loaded from the artifact on request; never in the database.
        error: one sentence on the last failure.
        problem: the last failure as a problem document (RFC 9457).
        input_uri: artifact URI of the uploaded image.
        artifact_uri: artifact URI of the published result.
        progress: fraction done, 0..1, of the current attempt.
        stage: what it is doing at the moment.
        attempts: how often it was claimed.
        max_attempts: after so many lost or failed attempts it is failed.
        cancel_requested: whether a running job was asked to stop.
        idempotency_key: a client's key; adding the same key again gives the first job back.
        request_hash: hash of the request behind ``idempotency_key``.
        batch_id: id shared by jobs that were created together.
        lease_token: proof of the current claim; needed to report on the job.
        lease_until: when the claim lapses unless extended (UTC).
        timings: seconds by stage, filled on completion.
        seq: position in order of arrival, given by the store.
    """

    id: str = field(default_factory=new_job_id)
    prompt: str
    model_name: str
    config: dict[str, Any] = field(default_factory=dict)
    status: JobStatus = JobStatus.PENDING
    priority: JobPriority = JobPriority.NORMAL
    created_at: datetime = field(default_factory=_utc_now)
    started_at: datetime | None = None
    completed_at: datetime | None = None
    result: Any = None
    error: str | None = None

    problem: dict[str, Any] | None = None
    input_uri: str | None = None
    artifact_uri: str | None = None
    progress: float = 0.0
    stage: str = ""
    attempts: int = 0
    max_attempts: int = 3
    cancel_requested: bool = False
    idempotency_key: str | None = None
    request_hash: str | None = None
    batch_id: str | None = None
    lease_token: str | None = None
    lease_until: datetime | None = None
    timings: dict[str, float] = field(default_factory=dict)
    seq: int | None = None


@dataclass(frozen=True)
class JobFilter:
    """Which jobs to list; None means any."""

    status: JobStatus | None = None
    model_name: str | None = None
    batch_id: str | None = None


@dataclass(frozen=True)
class JobPage:
    """One page of a listing, newest first; ``next_cursor`` is None on the last page."""

    jobs: list[GenerationJob]
    next_cursor: str | None
