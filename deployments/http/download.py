"""Downloads that a client may check for change (ETag) and take up in the middle (Range)."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Any

from fastapi import Request, Response

from deployments.http.errors import problem_response

BINARY: dict[str, Any] = {"schema": {"type": "string", "format": "binary"}}
"""OpenAPI's word for bytes."""

_RANGE = re.compile(r"bytes=(\d{0,18})-(\d{0,18})")


def described(what: str, media_type: str) -> dict[int | str, dict[str, Any]]:
    """Return OpenAPI's description of a download's own statuses."""
    content = {media_type: BINARY}
    return {
        200: {"description": what, "content": content},
        206: {"description": "The part that Range asked for.", "content": content},
        304: {"description": "If-None-Match names what is there."},
        416: {"description": "Range lies outside of the file."},
    }


@dataclass(frozen=True)
class Download:
    """A file to send.

    Attributes:
        content: all of it.
        media_type: its content type.
        sha256: of the content.
        filename: what a browser saves it as; None to show it.
        described_by: URL of the job that it belongs to.
    """

    content: bytes
    media_type: str
    sha256: str
    filename: str | None = None
    described_by: str | None = None

    def whole(self) -> Response:
        """Return all of it, as the answer to a request that made it."""
        headers = self._headers(self._etag)
        return Response(self.content, headers=headers, media_type=self.media_type)

    def answer(self, request: Request) -> Response:
        """Return all of it, the part asked for (206), or that nothing has changed (304).

        One range of bytes is understood; several, or another unit, are answered with the whole
        file, as RFC 9110 allows. A range holds only while ``If-Range`` names this very content.
        """
        etag = self._etag
        headers = self._headers(etag)
        if _names(request.headers.get("if-none-match", ""), etag):
            return Response(status_code=304, headers=headers)
        asked = request.headers.get("range")
        if asked is None or request.headers.get("if-range", etag) != etag:
            return self.whole()
        size = len(self.content)
        try:
            span = _span(asked, size)
        except ValueError:
            return _not_in_range(asked, size)
        if span is None:
            return self.whole()
        begin, end = span
        headers["Content-Range"] = f"bytes {begin}-{end - 1}/{size}"
        return Response(self.content[begin:end], 206, headers, self.media_type)

    @property
    def _etag(self) -> str:
        return f'"{self.sha256}"'

    def _headers(self, etag: str) -> dict[str, str]:
        headers = {
            "ETag": etag,
            "Accept-Ranges": "bytes",
            "Cache-Control": "private, no-cache",
            "X-Content-Type-Options": "nosniff",
        }
        if self.filename is not None:
            headers["Content-Disposition"] = f'attachment; filename="{self.filename}"'
        if self.described_by is not None:
            headers["Link"] = f'<{self.described_by}>; rel="describedby"'
        return headers


def _not_in_range(asked: str, size: int) -> Response:
    problem = {
        "type": "range-not-satisfiable",
        "title": "Range not satisfiable",
        "detail": f"The file has {size} bytes, and {asked[:80]!r} begins behind them.",
    }
    return problem_response(problem, 416, {"Content-Range": f"bytes */{size}"})


def _names(header: str, etag: str) -> bool:
    """Whether an If-None-Match names the content; weak tags compare as strong ones there."""
    tags = {tag.strip().removeprefix("W/") for tag in header.split(",")}
    return etag in tags or "*" in tags


def _span(header: str, size: int) -> tuple[int, int] | None:
    """Return the half-open span that a Range header asks for; None to send everything.

    Raises:
        ValueError: it begins behind the end.
    """
    found = _RANGE.fullmatch(header.strip())
    if found is None or not any(found.groups()):
        return None
    first, last = found.groups()
    if not first:
        begin, end = max(size - int(last), 0), size
    else:
        begin = int(first)
        end = min(int(last) + 1, size) if last else size
        if last and int(last) < begin:
            return None
    if begin >= end:
        raise ValueError(header)
    return begin, end
