"""What a job is: its states, its priorities and the record that is passed around."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from enum import Enum
from typing import Any, TypeAlias

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
"""Which state may follow which; triggers in the database enforce exactly this table."""


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


ResultLoader: TypeAlias = "Callable[[GenerationJob], Any]"
"""Makes the GenerationResult of a completed job from its artifact."""


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
        batch_index: place in the batch, 0 being the first.
        superseded: whether another job took its place in the batch.
        owner: id of the API key that it belongs to; empty for nobody's.
        level: the priority's value, raised as the job waits.
        not_before: earliest time of the next attempt (UTC).
        depends_on: ids of jobs that must complete before this one starts.
        waits_for: how many of them have not completed.
        start_by: if it has not started by then it fails (UTC).
        deadline: if it has not ended by then it fails (UTC).
        tags: the client's labels.
        policy: what must hold of the result, and what to try otherwise.
        gpu_seconds: GPU time that all attempts took.
        peak_memory_bytes: GPU memory that the last attempt took at most.
        cache_key: hash of everything that the result depends on.
        cached_from: id of the job whose result this one shares.
        expires_at: when the result may be deleted (UTC).
        changed_at: time of the last change of state.
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
    batch_index: int | None = None
    superseded: bool = False
    owner: str = ""
    level: int | None = None
    not_before: datetime | None = None
    depends_on: list[str] = field(default_factory=list)
    waits_for: int = 0
    start_by: datetime | None = None
    deadline: datetime | None = None
    tags: list[str] = field(default_factory=list)
    policy: dict[str, Any] = field(default_factory=dict)
    gpu_seconds: float = 0.0
    peak_memory_bytes: int | None = None
    cache_key: str | None = None
    cached_from: str | None = None
    expires_at: datetime | None = None
    changed_at: datetime | None = None
    lease_token: str | None = None
    lease_until: datetime | None = None
    timings: dict[str, float] = field(default_factory=dict)
    seq: int | None = None
    loader: ResultLoader | None = field(default=None, repr=False, compare=False)

    @property
    def result(self) -> Any:
        """The GenerationResult, read from the artifact on each access; None unless completed.

        Raises:
            StorageError: the artifact has expired or cannot be read.
        """
        if self.status is not JobStatus.COMPLETED or self.loader is None:
            return None
        return self.loader(self)

    def __getstate__(self) -> dict[str, Any]:
        # A loader belongs to its process: it may hold an open file system.
        return {**self.__dict__, "loader": None}


@dataclass(frozen=True)
class JobFilter:
    """Which jobs to list; None means any."""

    status: JobStatus | None = None
    model_name: str | None = None
    batch_id: str | None = None
    owner: str | None = None
    tag: str | None = None


@dataclass(frozen=True)
class JobPage:
    """One page of a listing, newest first; ``next_cursor`` is None on the last page."""

    jobs: list[GenerationJob]
    next_cursor: str | None


@dataclass(frozen=True)
class BatchView:
    """A batch as one object; ``counts`` has the number of its jobs by state."""

    id: str
    name: str
    owner: str
    created_at: datetime
    paused: bool
    total: int
    counts: dict[JobStatus, int]


@dataclass(frozen=True)
class JobEvent:
    """A change of state of a job; ``seq`` rises from event to event."""

    seq: int
    job_id: str
    at: datetime
    kind: str
    data: dict[str, Any]


@dataclass(frozen=True)
class Depth:
    """How many jobs of one model and effective priority wait, and since when the oldest does."""

    model_name: str
    priority: JobPriority
    count: int
    oldest_created_at: datetime
