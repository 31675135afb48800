"""What clients get: documents of jobs, batches, models and the cluster. Times in UTC, ISO 8601."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any, Literal

from pydantic import BaseModel, Field

from deployments.http.schemas import PriorityName
from deployments.messages import PREVIEW_NOTE, JobView
from dream_cad.queue import GenerationJob, JobStatus
from dream_cad.queue.jobs import BatchView

StatusName = Literal["pending", "running", "completed", "failed", "cancelled"]


class Links(BaseModel):
    """Where to go from a job."""

    self: str
    events: str
    webhooks: str
    result: str | None = None
    preview: str | None = None
    files: str | None = None


class JobDocument(BaseModel):
    """A job as clients see it."""

    id: str
    status: StatusName
    model: str
    models: list[str] = Field(description="Models that may be tried, in order.")
    prompt: str
    priority: PriorityName
    options: dict[str, Any]
    policy: dict[str, Any] = Field(description="pick, require, max_tries, format, use_cache.")
    request_id: str | None = Field(description="Of the request that queued it; it is in the logs.")
    tags: list[str]
    batch: str | None
    depends_on: list[str]
    progress: float = Field(ge=0, le=1)
    stage: str
    position: int | None = Field(description="Place in line, 1 being next, while pending.")
    eta_s: float | None = Field(description="Estimated seconds until done, once measured.")
    attempts: int
    max_attempts: int
    cancel_requested: bool
    created_at: datetime
    started_at: datetime | None
    completed_at: datetime | None
    deadline: datetime | None
    start_by: datetime | None
    expires_at: datetime | None = Field(description="When the result may be deleted.")
    cached_from: str | None = Field(description="Job whose result this one shares.")
    timings: dict[str, float] = Field(description="Seconds by step, once completed.")
    gpu_seconds: float
    peak_memory_bytes: int | None
    error: dict[str, Any] | None = Field(description="Why it failed, as a problem document.")
    last_problem: dict[str, Any] | None = Field(description="Why the attempt before was lost.")
    links: Links


class FileDocument(BaseModel):
    """One stored file of a result."""

    name: str
    bytes: int
    sha256: str
    media_type: str
    url: str


class FilesDocument(BaseModel):
    """The stored files of a result."""

    files: list[FileDocument]


class JobPageDocument(BaseModel):
    """A page of jobs, newest first."""

    jobs: list[JobDocument]
    next_cursor: str | None


class BatchLinks(BaseModel):
    """Where to go from a batch."""

    self: str
    items: str
    archive: str


class BatchDocument(BaseModel):
    """Many jobs as one object."""

    id: str
    name: str
    status: Literal["pending", "running", "paused", "completed"]
    total: int
    counts: dict[StatusName, int]
    created_at: datetime
    links: BatchLinks


class BatchItemDocument(BaseModel):
    """One item of a batch."""

    index: int
    job: JobDocument


class BatchItemsDocument(BaseModel):
    """A page of a batch's items, in order."""

    items: list[BatchItemDocument]
    next_cursor: str | None


class RetryDocument(BaseModel):
    """Jobs that take the places of failed ones."""

    jobs: list[str]


class DeliveryDocument(BaseModel):
    """One call to a client's webhook."""

    id: str
    url: str
    event: str
    state: Literal["pending", "delivered", "failed"]
    attempts: int
    status_code: int | None
    error: str | None
    created_at: datetime
    next_at: datetime | None
    done_at: datetime | None


class DeliveriesDocument(BaseModel):
    """The delivery log of a job."""

    deliveries: list[DeliveryDocument]


class ModelDocument(BaseModel):
    """A model and whether it can take jobs here."""

    name: str
    available: bool
    state: Literal["ready", "asleep", "loading", "failed", "not-deployed"]
    reason: str
    checkpoint: str | None
    license: str | None
    formats: list[str]
    capabilities: dict[str, Any] | None
    textures_meshes: bool = Field(description="Whether it textures a mesh that is sent along.")
    makes_variants: bool = Field(
        description="Whether it gives the shape of a mesh that is sent along other details."
    )
    views: list[str] | None = Field(
        description="Names of the views that it takes several pictures by; empty if any pictures "
        "will do, null if it takes one."
    )
    draws_picture_first: bool
    options_schema: dict[str, Any] | None


class ModelsDocument(BaseModel):
    """All registered models."""

    models: list[ModelDocument]
    default_model: str


class StatusDocument(BaseModel):
    """Answer of the health checks."""

    status: str
    models: list[str] = Field(default_factory=list, description="Models that can take jobs.")


class ProblemDocument(BaseModel):
    """An error (RFC 9457); what a kind of error adds stands beside these."""

    type: str
    title: str
    status: int
    detail: str


def job_document(view: JobView) -> JobDocument:
    """Return a job as clients see it."""
    job = view.job
    is_failed = job.status is JobStatus.FAILED
    shown = job.policy.keys() - {"models", "request_id"}
    policy = {name: job.policy[name] for name in sorted(shown)}
    return JobDocument(
        id=job.id,
        status=job.status.value,
        model=job.model_name,
        models=list(job.policy.get("models") or [job.model_name]),
        prompt=job.prompt,
        priority=job.priority.name.lower(),
        options=job.config,
        policy=policy,
        request_id=job.policy.get("request_id") or None,
        tags=job.tags,
        batch=job.batch_id,
        depends_on=job.depends_on,
        progress=job.progress,
        stage=job.stage,
        position=view.position,
        eta_s=None if view.eta_s is None else round(view.eta_s, 1),
        attempts=job.attempts,
        max_attempts=job.max_attempts,
        cancel_requested=job.cancel_requested,
        created_at=job.created_at,
        started_at=job.started_at,
        completed_at=job.completed_at,
        deadline=job.deadline,
        start_by=job.start_by,
        expires_at=job.expires_at,
        cached_from=job.cached_from,
        timings=job.timings,
        gpu_seconds=job.gpu_seconds,
        peak_memory_bytes=job.peak_memory_bytes,
        error=job.problem if is_failed else None,
        last_problem=None if is_failed else job.problem,
        links=_links(job),
    )


def _links(job: GenerationJob) -> Links:
    url = f"/v1/jobs/{job.id}"
    is_done = job.status is JobStatus.COMPLETED and not is_expired(job)
    return Links(
        self=url,
        events=f"{url}/events",
        webhooks=f"{url}/webhooks",
        result=f"{url}/result" if is_done else None,
        preview=f"{url}/preview.png" if is_done or _shows_itself(job) else None,
        files=f"{url}/files" if is_done else None,
    )


def _shows_itself(job: GenerationJob) -> bool:
    return job.status is JobStatus.RUNNING and job.stage.endswith(PREVIEW_NOTE)


def is_expired(job: GenerationJob) -> bool:
    """Return whether a completed job's result is past its time, or gone already."""
    if job.status is not JobStatus.COMPLETED:
        return False
    is_past = job.expires_at is not None and job.expires_at <= datetime.now(UTC)
    return is_past or job.artifact_uri is None


def batch_document(view: BatchView) -> BatchDocument:
    """Return a batch as clients see it."""
    url = f"/v1/batches/{view.id}"
    counts = {status.value: view.counts.get(status, 0) for status in JobStatus}
    return BatchDocument(
        id=view.id,
        name=view.name,
        status=_batch_status(view),
        total=view.total,
        counts=counts,
        created_at=view.created_at,
        links=BatchLinks(self=url, items=f"{url}/items", archive=f"{url}/archive.zip"),
    )


def _batch_status(view: BatchView) -> Literal["pending", "running", "paused", "completed"]:
    count = view.counts.get
    waiting, running = count(JobStatus.PENDING, 0), count(JobStatus.RUNNING, 0)
    if waiting == running == 0:
        return "completed"
    if view.paused and not running:
        return "paused"
    return "pending" if waiting == view.total else "running"
