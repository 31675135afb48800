"""The request's id and its one line in the log."""

from __future__ import annotations

import logging
import re
import time
from contextvars import ContextVar

import uuid_utils
from starlette.datastructures import Headers
from starlette.types import ASGIApp, Message, Receive, Scope, Send

logger = logging.getLogger(__name__)

_SAFE_ID = re.compile(r"[A-Za-z0-9._:-]{1,128}")
_UNLOGGED = frozenset({"/healthz", "/readyz"})

request_id_var: ContextVar[str] = ContextVar("request_id", default="")
"""Id of the request that is being answered."""


class RequestIdMiddleware:
    """Takes X-Request-Id from the client, or makes one, and logs each request once.

    Serve's proxy gives every request an id and answers with it, so the header is not added here.
    The log line holds the path without its query, and no header: keys may be in both.
    """

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        request_id = _request_id(Headers(scope=scope).get("x-request-id"))
        token = request_id_var.set(request_id)
        began = time.monotonic()
        status = 0

        async def noted(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
            await send(message)

        try:
            await self._app(scope, receive, noted)
        finally:
            request_id_var.reset(token)
            _log(scope, status, time.monotonic() - began, request_id)


def _request_id(given: str | None) -> str:
    if given is not None and _SAFE_ID.fullmatch(given):
        return given
    return str(uuid_utils.uuid7())


def _log(scope: Scope, status: int, seconds: float, request_id: str) -> None:
    path = scope["path"]
    level = logging.DEBUG if path in _UNLOGGED else logging.INFO
    principal = scope.get("state", {}).get("principal_id", "")
    logger.log(
        level,
        "request",
        extra={
            "request_id": request_id,
            "method": scope["method"],
            "path": path[:200],
            "status": status,
            "seconds": round(seconds, 4),
            "key": principal,
        },
    )
