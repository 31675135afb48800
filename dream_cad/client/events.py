"""Server-sent events of a job, without a connection: parsing, resuming, running out of time."""

from __future__ import annotations

import logging
import re
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import httpx
from pydantic import ValidationError

from dream_cad.client.deadline import Deadline
from dream_cad.client.documents import Job, JobEvent
from dream_cad.client.patience import Patience, is_passing
from dream_cad.client.problems import RemoteProblemError
from dream_cad.exceptions import DreamCadError

logger = logging.getLogger(__name__)

MEDIA_TYPE = "text/event-stream"
POLL_S = 1.0
"""Pause between two questions where a server's events do not come through."""

_SILENCE_S = 45.0
"""A connection without a byte for so long is dead: the server sends a comment every 15 s."""

_RENEW_S = 5.0
_LEAST_S = 0.05
_CONNECT_S = 10.0
_RETRY_S = 2.0
_LINE_END = re.compile(rb"\r\n|\n|\r(?!$)")


@dataclass(frozen=True)
class RawEvent:
    """An event as it came; ``id`` is None where it had none of its own."""

    id: str | None
    kind: str
    data: str


class EventParser:
    """Cuts a stream of bytes into events (WHATWG HTML, section 9.2.6).

    Attributes:
        retry_s: pause before reconnecting that the server asked for.
    """

    def __init__(self) -> None:
        self.retry_s = _RETRY_S
        self._rest = b""
        self._fields: dict[str, str] = {}
        self._data: list[str] = []

    def feed(self, chunk: bytes) -> Iterator[RawEvent]:
        """Yield the events that are whole with this chunk."""
        *lines, self._rest = _LINE_END.split(self._rest + chunk)
        for line in lines:
            if line:
                self._take(line.decode("utf-8", "replace"))
                continue
            if self._data:
                kind = self._fields.get("event", "message")
                yield RawEvent(self._fields.get("id"), kind, "\n".join(self._data))
            self._fields, self._data = {}, []

    def _take(self, line: str) -> None:
        name, _, value = line.partition(":")
        value = value.removeprefix(" ")
        if name == "data":
            self._data.append(value)
        elif name == "retry" and value.isascii() and value.isdigit():
            self.retry_s = int(value[:9]) / 1000
        elif name:
            self._fields[name] = value


class Following:
    """What is known of a job that is followed over connections that may break.

    Attributes:
        is_done: the job has ended, and the event that says so was handed out.
        is_polling: events do not come through; ask for the job instead.
        is_in_doubt: the server ended the stream early; ask for the job once.

    Args:
        job_id: the job.
        timeout_s: seconds until it must have ended; None waits for ever.
        patience: how long the server may be away at a time.
        after: id of the last event seen before.
        clock: seconds that only grow.
    """

    def __init__(
        self,
        job_id: str,
        timeout_s: float | None,
        patience: Patience,
        after: str | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.is_done = False
        self.is_polling = False
        self.is_in_doubt = False
        self._job_id = job_id
        self._clock = clock
        self._deadline = Deadline(timeout_s, clock)
        self._patience = patience
        self._last_id = after
        self._lost_since: float | None = None
        self._read_s = _SILENCE_S
        self._parser = EventParser()
        self._is_silent = True
        self._opened = 0.0

    def request_parts(self) -> dict[str, Any]:
        """Return headers and timeouts of the next connection."""
        self._read_s = max(_LEAST_S, self._deadline.at_most(_SILENCE_S))
        self._parser, self._is_silent, self._opened = EventParser(), True, self._clock()
        headers = {"Accept": MEDIA_TYPE, "Cache-Control": "no-store"}
        if self._last_id is not None:
            headers["Last-Event-ID"] = self._last_id
        return {"headers": headers, "timeout": httpx.Timeout(_CONNECT_S, read=self._read_s)}

    def accepts(self, response: httpx.Response) -> bool:
        """Tell whether an answer is a stream of events; if not, the job is polled from now on."""
        kind: str = response.headers.get("Content-Type", "").partition(";")[0].strip().lower()
        if kind != MEDIA_TYPE:
            self._poll(f"the answer is of type {kind or 'none'}, not {MEDIA_TYPE}")
        return kind == MEDIA_TYPE

    def feed(self, chunk: bytes) -> Iterator[JobEvent]:
        """Yield the events in bytes that came.

        Raises:
            GenerationTimeoutError: the time is over and the job has not ended.
        """
        self._lost_since, self._is_silent = None, False
        for raw in self._parser.feed(chunk):
            yield self._event(raw)
        self.check_time()

    def is_short(self) -> bool:
        """Tell whether to connect anew, because this connection may outlive the time by seconds."""
        is_old = self._clock() - self._opened > _RENEW_S
        return is_old and self._deadline.at_most(self._read_s) < self._read_s

    def polled(self, job: Job) -> JobEvent:
        """Return the answer to a question about the job as an event."""
        self._lost_since, self.is_in_doubt = None, False
        self.is_done = job.is_final
        return JobEvent(None, job.status if job.is_final else "progress", job)

    def lost(self, error: DreamCadError | None) -> float:
        """Take note of a connection that ended early.

        Args:
            error: why; None if the server ended it.

        Returns:
            Seconds to wait before the next.

        Raises:
            DreamCadError: ``error``, if it is of the kind that stays, or patience is at its end.
            GenerationTimeoutError: the time is over.
        """
        self.check_time()
        if error is not None and not is_passing(error):
            raise error
        now = self._clock()
        self._lost_since = now if self._lost_since is None else self._lost_since
        pause_s = self._pause_s(error)
        if error is not None and now - self._lost_since + pause_s > self._patience.total_s:
            raise error
        cause = None if error is None else error.__cause__
        if self._is_silent and isinstance(cause, httpx.ReadTimeout):
            self._poll(f"nothing came for {self._read_s:.0f} s")
            return 0.0
        self.is_in_doubt = error is None
        why = "the server ended them." if error is None else error.message
        logger.warning("Events of job %s broke off: %s Reconnecting.", self._job_id, why)
        return self._deadline.at_most(pause_s)

    def check_time(self) -> None:
        """Check that there is time left, if the job has not ended.

        Raises:
            GenerationTimeoutError: there is none.
        """
        if not self.is_done:
            hint = f"Ask again with 'dream-cad status {self._job_id}'."
            self._deadline.check(f"Job {self._job_id}", hint, job_id=self._job_id)

    def poll_pause_s(self) -> float:
        """Return the seconds until the next question."""
        return self._deadline.at_most(POLL_S)

    def _pause_s(self, error: DreamCadError | None) -> float:
        asked_s = error.details.get("retry_after_s") if error is not None else None
        if isinstance(asked_s, (int, float)):
            return float(asked_s)
        return self._parser.retry_s

    def _poll(self, why: str) -> None:
        logger.warning(
            "Events of job %s do not come through: %s. Asking every %g s instead.",
            self._job_id,
            why,
            POLL_S,
        )
        self.is_polling = True

    def _event(self, raw: RawEvent) -> JobEvent:
        try:
            job = Job.model_validate_json(raw.data)
        except ValidationError as error:
            raise RemoteProblemError("The server sent an event without a job.") from error
        self._last_id = raw.id if raw.id is not None else self._last_id
        self.is_done = job.is_final and raw.kind == job.status
        return JobEvent(raw.id, raw.kind, job)
