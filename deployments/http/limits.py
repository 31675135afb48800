"""A limit on the size of request bodies, enforced while they stream in."""

from __future__ import annotations

from starlette.datastructures import Headers
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from deployments.http.errors import error_response
from dream_cad.exceptions import PayloadTooLargeError


class BodyLimitMiddleware:
    """Ends every body beyond ``max_bytes``, whichever route it is for.

    A declared length is refused before the first byte is read; an undeclared one is counted, and
    reading it raises PayloadTooLargeError, which becomes a 413 (400 where the framework reads).
    """

    def __init__(self, app: ASGIApp, max_bytes: int) -> None:
        self._app = app
        self._max_bytes = max_bytes

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        declared = Headers(scope=scope).get("content-length", "")
        if declared.isdigit() and int(declared[:20]) > self._max_bytes:
            await error_response(self._too_large())(scope, receive, send)
            return
        seen = 0

        async def counted() -> Message:
            nonlocal seen
            message = await receive()
            seen += len(message.get("body", b""))
            if seen > self._max_bytes:
                raise self._too_large()
            return message

        await self._app(scope, counted, send)

    def _too_large(self) -> PayloadTooLargeError:
        return PayloadTooLargeError(
            f"The request body exceeds {self._max_bytes} bytes.",
            hint="Send a smaller picture.",
            details={"limit_bytes": self._max_bytes},
        )
