"""A limit on the size of request bodies, enforced while they stream in."""

from __future__ import annotations

from starlette.requests import Request
from starlette.types import Message

from dream_cad.exceptions import PayloadTooLargeError


def limit_body(request: Request, max_bytes: int) -> Request:
    """Return the request with a body that ends in PayloadTooLargeError beyond ``max_bytes``.

    A declared length is refused before the first byte is read; an undeclared one is counted.

    Raises:
        PayloadTooLargeError: the declared length exceeds the limit.
    """
    declared = request.headers.get("content-length", "")
    if declared.isdigit() and int(declared[:20]) > max_bytes:
        raise _too_large(max_bytes)
    seen = 0

    async def counted() -> Message:
        nonlocal seen
        message = await request.receive()
        seen += len(message.get("body", b""))
        if seen > max_bytes:
            raise _too_large(max_bytes)
        return message

    return Request(request.scope, counted)


def _too_large(max_bytes: int) -> PayloadTooLargeError:
    return PayloadTooLargeError(
        f"The request body exceeds {max_bytes} bytes.",
        hint="Send a smaller picture.",
        details={"limit_bytes": max_bytes},
    )
