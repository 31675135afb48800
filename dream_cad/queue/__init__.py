"""The durable job queue; complete with no cluster."""

from __future__ import annotations

from dream_cad.queue.job_queue import JobQueue
from dream_cad.queue.jobs import GenerationJob, JobFilter, JobPage, JobPriority, JobStatus

__all__ = ["GenerationJob", "JobFilter", "JobPage", "JobPriority", "JobQueue", "JobStatus"]
