"""Refusals of a server as the exceptions that the library itself would raise."""

from __future__ import annotations

import math
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from typing import Any

import httpx

from dream_cad import exceptions
from dream_cad.client.documents import Job
from dream_cad.exceptions import (
    DreamCadError,
    GenerationCancelledError,
    GenerationError,
    RateLimitedError,
    ServiceUnavailableError,
)

_BY_STATUS: dict[int, type[DreamCadError]] = {429: RateLimitedError, 503: ServiceUnavailableError}
_BY_CODE: dict[str, type[DreamCadError]] = {
    found.code: found
    for found in vars(exceptions).values()
    if isinstance(found, type) and issubclass(found, DreamCadError) and found is not DreamCadError
}


class RemoteProblemError(DreamCadError):
    """The server refused a request for a reason that has no class of its own here.

    ``details`` is its problem document.
    """

    code = "remote-problem"
    title = "Refused by the server"
    http_status = 502


def refusal(response: httpx.Response) -> DreamCadError:
    """Return the error that an answer with an error status stands for; its body has been read.

    ``details`` holds the problem document, ``status``, and ``retry_after_s`` where the server says
    when to come back.
    """
    try:
        problem = response.json()
    except ValueError:
        problem = None
    after_s = _retry_after_s(response.headers.get("Retry-After"))
    hint = None if after_s is None else f"Try again in {math.ceil(after_s)} s."
    details: dict[str, Any] = problem if isinstance(problem, dict) else {}
    known = _BY_CODE.get(str(details.get("type"))) or _BY_STATUS.get(response.status_code)
    message = _message(details, known is not None and "type" in details)
    details = {**details, "status": response.status_code}
    if after_s is not None:
        details["retry_after_s"] = after_s
    return (known or RemoteProblemError)(
        message or f"The server answered {response.status_code}.", hint=hint, details=details
    )


def _message(problem: dict[str, Any], has_class: bool) -> str:
    title, detail, hint = problem.get("title"), problem.get("detail"), problem.get("hint")
    if has_class or not (title and detail):
        text = str(detail or title or "")
    else:
        text = f"{title}: {detail}"
    return f"{text} {hint}".strip() if hint else text


def _retry_after_s(header: str | None) -> float | None:
    """Return the seconds of a Retry-After header: a number, or a date."""
    if header is None:
        return None
    if header.isascii() and header.isdigit():
        return float(header[:9])
    try:
        until = parsedate_to_datetime(header)
    except ValueError:
        return None
    until = until if until.tzinfo else until.replace(tzinfo=UTC)
    return max(0.0, (until - datetime.now(UTC)).total_seconds())


def completed(job: Job) -> Job:
    """Return a job that has completed.

    Raises:
        GenerationError: it failed; of the class that the problem document names.
        GenerationCancelledError: it was cancelled.
    """
    if job.status == "completed":
        return job
    if job.status == "cancelled":
        raise GenerationCancelledError(f"Job {job.id} was cancelled.", details={"job_id": job.id})
    known = _BY_CODE.get(str((job.error or {}).get("type")), GenerationError)
    details = {**(job.error or {}), "job_id": job.id}
    raise known(f"Job {job.id} failed: {job.reason}", details=details)
