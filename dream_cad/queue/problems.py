"""What can go wrong with a job: the recorded problems, and the errors for callers."""

from __future__ import annotations

import re
from typing import Any

from dream_cad.exceptions import InvalidConfigError, JobNotFoundError, JobStateError
from dream_cad.queue.jobs import GenerationJob, JobStatus

Problem = dict[str, Any]
"""A problem document (RFC 9457) without status: type, title, detail."""

_SAFE_ID = re.compile(r"[A-Za-z0-9][A-Za-z0-9_-]{0,63}")
_LONGEST_NAME = 128
_LONGEST_KEY = 255


def _problem(kind: str, title: str, detail: str) -> Problem:
    return {"type": kind, "title": title, "detail": detail}


WORKER_LOST = _problem("worker-lost", "Worker lost", "The worker stopped reporting.")
SERVER_RESTARTED = _problem(
    "server-restarted", "Server restarted", "The server restarted while the job ran."
)
NEED_NOT_MET = _problem(
    "dependency-failed", "Dependency failed", "A job that this one needs did not complete."
)
WAIT_EXPIRED = _problem("wait-expired", "Waited too long", "The job was not started in time.")
DEADLINE_PASSED = _problem("deadline-passed", "Deadline passed", "The job was not done in time.")
FAILED_BY_CALLER = _problem(
    "generation-failed", "Generation failed", "The worker reported a failure."
)


def job_not_found(job_id: str) -> JobNotFoundError:
    """Return the error for an unknown id."""
    return JobNotFoundError(f"There is no job {job_id!r}.", hint="Check the id.")


def illegal_transition(job: GenerationJob, status: JobStatus) -> JobStateError:
    """Return the error for a state that may not follow the present one."""
    return JobStateError(f"Job {job.id} is {job.status.value} and cannot become {status.value}.")


def validate_new_job(job: GenerationJob) -> None:
    """Check what the store cannot.

    Raises:
        InvalidConfigError: unsafe id, no input, no model, not pending, no attempts.
    """
    if not _SAFE_ID.fullmatch(job.id):
        raise InvalidConfigError(
            f"The job id {job.id[:80]!r} is not valid.", hint="Use 1-64 of A-Z a-z 0-9 _ -."
        )
    if not job.prompt.strip() and job.input_uri is None:
        raise InvalidConfigError("A job needs a prompt or an input image.")
    if not 0 < len(job.model_name) <= _LONGEST_NAME:
        raise InvalidConfigError(f"A job needs a model name of 1-{_LONGEST_NAME} characters.")
    if len(job.idempotency_key or "") > _LONGEST_KEY:
        raise InvalidConfigError(f"The idempotency key exceeds {_LONGEST_KEY} characters.")
    if job.status is not JobStatus.PENDING:
        raise InvalidConfigError(f"A new job is pending, not {job.status.value}.")
    if job.max_attempts < 1:
        raise InvalidConfigError(f"max_attempts is {job.max_attempts}; it must be at least 1.")
