"""What a server answers, typed.

Only what identifies a thing must be there; a newer server may send more, which is kept.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from typing import Any

from pydantic import BaseModel, ConfigDict, Field

FINAL_STATES = frozenset({"completed", "failed", "cancelled"})


class Document(BaseModel):
    """An answer; it does not change."""

    model_config = ConfigDict(frozen=True, extra="allow", protected_namespaces=())

    def as_sent(self) -> dict[str, Any]:
        """Return the fields that the server sent, as JSON types."""
        return self.model_dump(mode="json", exclude_unset=True)


class Job(Document):
    """A job as it stood when the server answered; docs/http.md explains the fields."""

    id: str
    status: str = Field(description="pending, running, completed, failed or cancelled.")
    model: str = ""
    models: tuple[str, ...] = ()
    prompt: str = ""
    priority: str = "normal"
    options: dict[str, Any] = {}
    policy: dict[str, Any] = {}
    tags: tuple[str, ...] = ()
    batch: str | None = None
    depends_on: tuple[str, ...] = ()
    progress: float | None = Field(None, description="0 to 1.")
    stage: str = ""
    position: int | None = Field(None, description="Place in line, 1 being next, while pending.")
    eta_s: float | None = None
    attempts: int = 0
    cancel_requested: bool = False
    created_at: datetime | None = None
    started_at: datetime | None = None
    completed_at: datetime | None = None
    expires_at: datetime | None = None
    cached_from: str | None = None
    timings: dict[str, float] = {}
    gpu_seconds: float = 0.0
    peak_memory_bytes: int | None = None
    error: dict[str, Any] | None = Field(None, description="Why it failed: a problem document.")
    last_problem: dict[str, Any] | None = None

    @property
    def is_final(self) -> bool:
        """Whether it has ended, well or not."""
        return self.status in FINAL_STATES

    @property
    def reason(self) -> str:
        """Why it failed, in a sentence."""
        error = self.error or {}
        return str(error.get("detail") or error.get("title") or "no reason was given.")


class ResultFile(Document):
    """A stored file of a result."""

    name: str
    bytes: int = 0
    sha256: str = ""
    media_type: str = ""


class ResultFiles(Document):
    """What is stored of a result."""

    files: tuple[ResultFile, ...]


class JobPage(Document):
    """A page of jobs, newest first."""

    jobs: tuple[Job, ...]
    next_cursor: str | None = None


class Batch(Document):
    """Many jobs as one object."""

    id: str
    name: str = ""
    status: str = Field("pending", description="pending, running, paused or completed.")
    total: int = 0
    counts: dict[str, int] = {}
    created_at: datetime | None = None

    @property
    def is_final(self) -> bool:
        """Whether all of its jobs have ended."""
        return self.status == "completed"


class BatchItem(Document):
    """One item of a batch."""

    index: int
    job: Job


class BatchPage(Document):
    """A page of a batch's items, in order."""

    items: tuple[BatchItem, ...]
    next_cursor: str | None = None


class Retried(Document):
    """Ids of the jobs that take the places of failed ones."""

    jobs: tuple[str, ...]


class Model(Document):
    """A model and whether it can take jobs on the server."""

    name: str
    available: bool = False
    state: str = "not-deployed"
    reason: str = ""
    checkpoint: str | None = None
    license: str | None = None
    formats: tuple[str, ...] = ()
    capabilities: dict[str, Any] | None = None
    textures_meshes: bool = False
    makes_variants: bool = False
    views: tuple[str, ...] | None = None
    options_schema: dict[str, Any] | None = None


class Models(Document):
    """All models of a server."""

    models: tuple[Model, ...]
    default_model: str


class Cluster(Document):
    """GPUs, replicas, queue depth: whatever the server tells of itself, see ``as_sent``."""


@dataclass(frozen=True)
class JobEvent:
    """A change of a job's state, or progress in between.

    Attributes:
        id: resumes the stream behind this event; None for progress, which is not repeated.
        kind: the new state, or "progress".
        job: as it stood then.
    """

    id: str | None
    kind: str
    job: Job
