"""Every error of the API as a problem document (RFC 9457, application/problem+json)."""

from __future__ import annotations

import json
import logging
import math
from collections.abc import Sequence
from typing import Any

from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from starlette.exceptions import HTTPException
from starlette.responses import Response

from deployments.failures import problem_of
from dream_cad.exceptions import AuthenticationError, DreamCadError

logger = logging.getLogger(__name__)

MEDIA_TYPE = "application/problem+json"
TEXT_ERRORS: set[str] = set()
"""First parts of paths whose clients show errors to people as they come: these get text."""

MESSAGE_ERRORS: set[str] = set()
"""First parts of paths whose clients look for ``message`` in a JSON object: these get both."""

_RETRY_AFTER_S = 30.0
_CODES = {
    400: ("bad-request", "Bad request"),
    404: ("not-found", "Not found"),
    405: ("method-not-allowed", "Method not allowed"),
    413: ("payload-too-large", "Payload too large"),
    415: ("unsupported-media-type", "Unsupported media type"),
    422: ("invalid-request", "Invalid request"),
}


def problem_response(
    problem: dict[str, Any], status: int, headers: dict[str, str] | None = None
) -> Response:
    """Return a response with a problem document.

    The text is plain ASCII with escapes: echoed input may hold lone surrogates, which UTF-8
    cannot carry.
    """
    content = json.dumps({**problem, "status": status}, default=str)
    return Response(content, status, headers, MEDIA_TYPE)


def error_response(error: DreamCadError) -> Response:
    """Return the problem document of one of our errors."""
    headers = {}
    if error.http_status == 429:
        retry_after_s = float(error.details.get("retry_after_s", _RETRY_AFTER_S))
        headers["Retry-After"] = str(max(1, math.ceil(retry_after_s)))
    elif isinstance(error, AuthenticationError):
        headers["WWW-Authenticate"] = "Bearer"
    elif error.http_status == 503 and error.retryable:
        headers["Retry-After"] = "5"
    return problem_response(problem_of(error), error.http_status, headers)


def invalid_request(errors: Sequence[Any], detail: str) -> dict[str, Any]:
    """Return the problem document for fields that failed validation.

    Args:
        errors: pydantic's error list; input values are left out, they may be megabytes.
        detail: one sentence.
    """
    fields = [
        {
            "field": ".".join(str(part) for part in error["loc"])[:200],
            "message": str(error["msg"])[:500],
        }
        for error in errors[:20]
    ]
    first = f" {fields[0]['field']}: {fields[0]['message']}." if fields else ""
    return {
        "type": "invalid-config",
        "title": "Invalid configuration",
        "detail": f"{detail}{first}",
        "errors": fields,
    }


def _as_wanted(request: Request, response: Response) -> Response:
    """Turn a problem document into what the client is known to understand."""
    first = f"/{request.url.path.split('/')[1]}"
    if first not in TEXT_ERRORS | MESSAGE_ERRORS:
        return response
    problem = json.loads(bytes(response.body))
    headers = {
        name: value
        for name, value in response.headers.items()
        if name in ("retry-after", "www-authenticate", "allow")
    }
    detail = str(problem.get("detail", problem["title"]))
    if first in MESSAGE_ERRORS:
        content = json.dumps({"message": detail, **problem})
        return Response(content, response.status_code, headers, "application/json")
    text = detail.encode("ascii", "backslashreplace")
    return Response(text, response.status_code, headers, "text/plain")


async def _on_dream_cad_error(request: Request, error: Exception) -> Response:
    found = error_response(error) if isinstance(error, DreamCadError) else _internal(error)
    return _as_wanted(request, found)


async def _on_validation_error(request: Request, error: Exception) -> Response:
    if not isinstance(error, RequestValidationError):
        return _as_wanted(request, _internal(error))
    problem = invalid_request(error.errors(), "The request is not valid.")
    return _as_wanted(request, problem_response(problem, 422))


async def _on_http_error(request: Request, error: Exception) -> Response:
    if not isinstance(error, HTTPException):
        return _internal(error)
    status = error.status_code
    code, title = _CODES.get(status, ("http-error", "HTTP error"))
    detail = str(error.detail)
    if status == 404:
        detail = f"There is nothing at {request.url.path[:200]!r}; see /docs."
    headers = dict(error.headers or {})
    problem = {"type": code, "title": title, "detail": detail}
    return _as_wanted(request, problem_response(problem, status, headers))


async def _on_unexpected_error(request: Request, error: Exception) -> Response:
    return _as_wanted(request, _internal(error))


def _internal(error: Exception) -> Response:
    logger.error("unexpected error", exc_info=error)
    problem = {
        "type": "internal-error",
        "title": "Internal error",
        "detail": "The server failed unexpectedly; its log says why.",
    }
    return problem_response(problem, 500)


def install_error_handlers(api: FastAPI) -> None:
    """Make every error of ``api``, FastAPI's own included, a problem document."""
    api.add_exception_handler(DreamCadError, _on_dream_cad_error)
    api.add_exception_handler(RequestValidationError, _on_validation_error)
    api.add_exception_handler(HTTPException, _on_http_error)
    api.add_exception_handler(Exception, _on_unexpected_error)
