"""Errors as problem documents, and what a failed call into the cluster means for a job."""

from __future__ import annotations

from typing import Any

from ray.exceptions import RayError, RayTaskError
from ray.serve.exceptions import RayServeException

from deployments.messages import Failed, Problem
from dream_cad.exceptions import DreamCadError, GenerationError, ServiceUnavailableError

CLUSTER_ERRORS = (RayError, RayServeException)
"""What a call to another deployment may raise beside the callee's own errors."""


def problem_of(error: DreamCadError) -> Problem:
    """Return the problem document of an error, without the request's own fields."""
    problem: dict[str, Any] = {
        "type": error.code,
        "title": error.title,
        "status": error.http_status,
        "detail": str(error),
    }
    return {**error.details, **problem}


def root_cause(error: BaseException) -> BaseException:
    """Return what the callee raised, stripped of Ray's wrapping."""
    if isinstance(error, RayTaskError) and isinstance(error.cause, Exception):
        return error.cause
    return error


def is_cluster_trouble(error: BaseException) -> bool:
    """Tell whether a call failed for reasons of the cluster: a dead, full or unreachable replica.

    Measured (ray 2.60): kill -9 gives ActorDiedError, a lost node ActorUnavailableError, a full
    queue BackPressureError, a lost product OwnerDiedError; Serve repeats none of the calls.
    """
    cause = root_cause(error)
    if isinstance(error, RayTaskError):
        return isinstance(cause, RayError)  # the callee met the trouble
    return isinstance(cause, CLUSTER_ERRORS)


def failure_of(error: BaseException, doing: str) -> Failed:
    """Say what a failed call means for its job.

    Args:
        error: what the call raised.
        doing: the stage, for the text.
    """
    cause = root_cause(error)
    if isinstance(cause, DreamCadError):
        return Failed(problem_of(cause), cause.retryable)
    if is_cluster_trouble(error):
        lost = ServiceUnavailableError(
            f"The replica at work on {doing} was lost ({type(cause).__name__})."
        )
        return Failed(problem_of(lost), is_retryable=True)
    broken = GenerationError(f"{doing} failed: {type(cause).__name__}: {cause}")
    return Failed(problem_of(broken), is_retryable=False)
