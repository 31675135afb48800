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
from dream_cad.queue.processor import BatchProcessor
from dream_cad.queue.resources import GPUInfo, ResourceManager

__all__ = [
    "ApiKey",
    "BatchProcessor",
    "BatchView",
    "Depth",
    "GPUInfo",
    "GenerationJob",
    "JobEvent",
    "JobFilter",
    "JobPage",
    "JobPriority",
    "JobQueue",
    "JobStatus",
    "ResourceManager",
]
