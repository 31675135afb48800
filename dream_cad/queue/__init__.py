"""The durable job queue; complete with no cluster."""

from __future__ import annotations

from dream_cad.queue.job_queue import JobQueue
from dream_cad.queue.jobs import (
    BatchView,
    Depth,
    GenerationJob,
    JobEvent,
    JobFilter,
    JobPage,
    JobPriority,
    JobStatus,
)
from dream_cad.queue.keys import ApiKey

__all__ = [
    "ApiKey",
    "BatchView",
    "Depth",
    "GenerationJob",
    "JobEvent",
    "JobFilter",
    "JobPage",
    "JobPriority",
    "JobQueue",
    "JobStatus",
]
