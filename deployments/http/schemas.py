"""What goes over the wire."""

from __future__ import annotations

from datetime import datetime
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field

from deployments.messages import JobView
from dream_cad.queue import JobPriority, JobStatus

PriorityName = Literal["low", "normal", "high", "urgent"]


class JobRequest(BaseModel):
    """A request for a mesh: a prompt or an image, never both."""

    model_config = ConfigDict(extra="forbid", allow_inf_nan=False)

    prompt: str | None = Field(None, description="What to make, for example: a red wooden chair.")
    image: str | None = Field(None, description="A picture, base64; or upload it as multipart.")
    model: str | None = Field(None, description="Model name, see GET /v1/models.")
    options: dict[str, Any] = Field(
        default_factory=dict, description="Generation and finishing options of the model."
    )
    priority: PriorityName = Field("normal", description="A more urgent job overtakes others.")
    format: str = Field("glb", description="Format of the result that the links name.")

    @property
    def job_priority(self) -> JobPriority:
        """The queue's priority."""
        return JobPriority[self.priority.upper()]


class Links(BaseModel):
    """Where to go from a job."""

    self: str
    events: str
    result: str | None = None
    preview: str | None = None


class JobDocument(BaseModel):
    """A job as clients see it; times in UTC (ISO 8601)."""

    id: str
    status: Literal["pending", "running", "completed", "failed", "cancelled"]
    model: str
    prompt: str
    priority: PriorityName
    options: dict[str, Any]
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
    timings: dict[str, float] = Field(description="Seconds by step, once completed.")
    error: dict[str, Any] | None = Field(description="Why it failed, as a problem document.")
    last_problem: dict[str, Any] | None = Field(description="Why the attempt before was lost.")
    links: Links


class JobPageDocument(BaseModel):
    """A page of jobs, newest first."""

    jobs: list[JobDocument]
    next_cursor: str | None


class ModelDocument(BaseModel):
    """A model and whether it can take jobs here."""

    name: str
    available: bool
    state: Literal["ready", "loading", "failed", "not-deployed"]
    reason: str
    checkpoint: str | None
    capabilities: dict[str, Any] | None
    options_schema: dict[str, Any] | None


class ModelsDocument(BaseModel):
    """All registered models."""

    models: list[ModelDocument]
    default_model: str


class StatusDocument(BaseModel):
    """Answer of the health checks."""

    status: str
    models: list[str] = Field(default_factory=list, description="Models that can take jobs.")


def job_document(view: JobView) -> JobDocument:
    """Return a job as clients see it."""
    job = view.job
    is_failed = job.status is JobStatus.FAILED
    url = f"/v1/jobs/{job.id}"
    is_done = job.status is JobStatus.COMPLETED
    return JobDocument(
        id=job.id,
        status=job.status.value,
        model=job.model_name,
        prompt=job.prompt,
        priority=job.priority.name.lower(),
        options=job.config,
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
        timings=job.timings,
        error=job.problem if is_failed else None,
        last_problem=None if is_failed else job.problem,
        links=Links(
            self=url,
            events=f"{url}/events",
            result=f"{url}/result" if is_done else None,
            preview=f"{url}/preview.png" if is_done else None,
        ),
    )
