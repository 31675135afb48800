"""A light HTTP client for load: one keep-alive connection a thread, little CPU a request."""

from __future__ import annotations

import http.client
import json
import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any
from urllib.parse import urlsplit

_TIMEOUT_S = 600.0


@dataclass
class Target:
    """A server and the headers that each call carries."""

    url: str
    headers: dict[str, str]

    def connect(self) -> http.client.HTTPConnection:
        """Open a connection."""
        parts = urlsplit(self.url)
        return http.client.HTTPConnection(parts.hostname or "", parts.port, timeout=_TIMEOUT_S)

    def get(self, path: str) -> tuple[int, bytes]:
        """GET on a connection of its own."""
        return self.call("GET", path)

    def post(self, path: str, body: Any = None) -> dict[str, Any]:
        """POST JSON; returns the answer.

        Raises:
            RuntimeError: it is not a success.
        """
        status, answer = self.call("POST", path, body)
        if status >= 300:
            raise RuntimeError(f"{path}: {status} {answer[:500]!r}")
        return dict(json.loads(answer))

    def call(self, method: str, path: str, body: Any = None) -> tuple[int, bytes]:
        """One call on a connection of its own; status 0 if there is no server."""
        connection = self.connect()
        try:
            return send(connection, self, method, path, body)
        except (OSError, http.client.HTTPException):
            return 0, b""
        finally:
            connection.close()


def send(
    connection: http.client.HTTPConnection, target: Target, method: str, path: str, body: Any = None
) -> tuple[int, bytes]:
    """Send one request and read the answer to its end."""
    data = None if body is None else json.dumps(body).encode()
    headers = (
        target.headers if data is None else target.headers | {"Content-Type": "application/json"}
    )
    connection.request(method, path, data, headers)
    answer = connection.getresponse()
    return answer.status, answer.read()


MakeBody = Callable[[int], Any]


@dataclass(frozen=True)
class Request:
    """A kind of request; ``body`` makes the body of the n-th."""

    method: str
    path: str
    body: MakeBody
    status: int = 200


def time_requests(target: Target, request: Request, number: int, first: int = 0) -> list[float]:
    """Return the milliseconds of ``number`` requests, one after the other."""
    connection = target.connect()
    times = []
    for index in range(first, first + number):
        body = request.body(index)
        start = time.perf_counter()
        status, answer = send(connection, target, request.method, request.path, body)
        times.append((time.perf_counter() - start) * 1000)
        if status != request.status:
            raise RuntimeError(f"{request.path}: {status} {answer[:500]!r}")
    connection.close()
    return times


def rate_of(target: Target, request: Request, seconds: float, callers: int) -> float:
    """Return the requests a second that so many callers get answered, together."""
    start = time.perf_counter()
    end = start + seconds
    count = 0
    lock = threading.Lock()

    def call(caller: int) -> None:
        nonlocal count
        connection = target.connect()
        done = 0
        while time.perf_counter() < end:
            body = request.body(caller * 1_000_000 + done)
            status, answer = send(connection, target, request.method, request.path, body)
            if status != request.status:
                raise RuntimeError(f"{request.path}: {status} {answer[:500]!r}")
            done += 1
        connection.close()
        with lock:
            count += done

    with ThreadPoolExecutor(callers) as pool:
        list(pool.map(call, range(callers)))
    return count / (time.perf_counter() - start)


def percentiles(times: list[float]) -> dict[str, float]:
    """Return p50, p99 and count."""
    ordered = sorted(times)
    return {
        "p50_ms": round(ordered[len(ordered) // 2], 2),
        "p99_ms": round(ordered[min(int(len(ordered) * 0.99), len(ordered) - 1)], 2),
        "n": len(ordered),
    }
