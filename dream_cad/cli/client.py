"""A small client of the HTTP API v1: jobs, their state and their files."""

from __future__ import annotations

import json
import os
import time
import uuid
from collections.abc import Callable
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import httpx

from dream_cad.exceptions import (
    DreamCadError,
    GenerationCancelledError,
    GenerationError,
    GenerationTimeoutError,
    InvalidConfigError,
    ServiceUnavailableError,
    StorageError,
)

FINAL_STATES = frozenset({"completed", "failed", "cancelled"})

_CONNECT_RETRIES = 2
_TIMEOUT = httpx.Timeout(30.0, connect=10.0)
_POLL_S = 0.5


class RemoteProblemError(DreamCadError):
    """The server refused a request; ``details`` is its problem document."""

    code = "remote-problem"
    title = "Refused by the server"
    http_status = 502


class ApiClient:
    """Talks to one server. Use as a context manager.

    Args:
        server: base URL, for example ``http://127.0.0.1:8000``.
        api_key: sent as a bearer token when given.
        transport: replaces the network, for tests.

    Raises:
        InvalidConfigError: ``server`` is no http or https URL.
    """

    def __init__(
        self,
        server: str,
        api_key: str | None = None,
        *,
        transport: httpx.BaseTransport | None = None,
    ) -> None:
        if not server.startswith(("http://", "https://")):
            raise InvalidConfigError(
                f"Server {server!r} is no http:// or https:// URL.",
                hint="Name it like http://127.0.0.1:8000.",
            )
        self._server = server.rstrip("/")
        self._client = httpx.Client(
            base_url=self._server,
            headers={"Authorization": f"Bearer {api_key}"} if api_key else {},
            timeout=_TIMEOUT,
            transport=transport or httpx.HTTPTransport(retries=_CONNECT_RETRIES),
        )

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        exc_type: type[BaseException] | None,
        exc: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._client.close()

    def submit(self, body: dict[str, Any], image: Path | None = None) -> dict[str, Any]:
        """Add a job and return what the server says of it: id, status, position, links.

        The request carries an idempotency key, so a connection that breaks makes no second job.

        Args:
            body: prompt, model, options, priority; None values are left out.
            image: picture to send with it.
        """
        given = {name: value for name, value in body.items() if value is not None}
        headers = {"Idempotency-Key": str(uuid.uuid4())}
        if image is None:
            return self._json("POST", "/v1/jobs", json=given, headers=headers)
        fields = {
            name: value if isinstance(value, str) else json.dumps(value)
            for name, value in given.items()
        }
        try:
            content = image.read_bytes()
        except OSError as error:
            raise StorageError(f"{image} cannot be read: {error.strerror}.") from error
        files = {"image": (image.name, content)}
        return self._json("POST", "/v1/jobs", data=fields, files=files, headers=headers)

    def get_job(self, job_id: str) -> dict[str, Any]:
        """Return a job's state."""
        return self._json("GET", f"/v1/jobs/{_segment(job_id)}")

    def cancel(self, job_id: str) -> dict[str, Any]:
        """Ask for a job to be cancelled and return its state."""
        return self._json("DELETE", f"/v1/jobs/{_segment(job_id)}")

    def fetch_result(self, job_id: str, path: Path, format: str) -> Path:
        """Write a job's mesh to ``path`` in ``format``."""
        url = f"/v1/jobs/{_segment(job_id)}/result"
        return self._download(url, path, params={"format": format})

    def fetch_preview(self, job_id: str, path: Path) -> Path:
        """Write a job's turntable sheet to ``path``."""
        return self._download(f"/v1/jobs/{_segment(job_id)}/preview.png", path)

    def list_models(self) -> dict[str, Any]:
        """Return the models and what the server says of each."""
        return self._json("GET", "/v1/models")

    def submit_batch(self, body: dict[str, Any], idempotency_key: str) -> dict[str, Any]:
        """Queue a batch, all or none; the same key queues it once."""
        headers = {"Idempotency-Key": idempotency_key}
        return self._json("POST", "/v1/batches", json=body, headers=headers)

    def list_batch(self, batch_id: str, cursor: str | None, limit: int) -> dict[str, Any]:
        """Return a page of a batch's items with their jobs."""
        wanted = {"limit": limit, **({} if cursor is None else {"cursor": cursor})}
        return self._json("GET", f"/v1/batches/{_segment(batch_id)}/items", params=wanted)

    def read_result(self, job_id: str, format: str) -> bytes:
        """Return a job's mesh."""
        url = f"/v1/jobs/{_segment(job_id)}/result"
        try:
            response = self._client.get(url, params={"format": format})
        except httpx.HTTPError as error:
            raise self._unreachable(error) from error
        _raise_for_problem(response)
        return response.content

    def wait(
        self,
        job_id: str,
        on_change: Callable[[dict[str, Any]], None],
        *,
        timeout_s: float,
        pause: Callable[[float], None] = time.sleep,
    ) -> dict[str, Any]:
        """Ask for a job's state until it is completed, and return it.

        Args:
            job_id: the job.
            on_change: called with every state received.
            timeout_s: how long to wait.
            pause: waits the given seconds between two questions.

        Raises:
            GenerationError: the job failed; says why.
            GenerationCancelledError: the job was cancelled.
            GenerationTimeoutError: it is not done after ``timeout_s``; it goes on all the same.
        """
        waited_s = 0.0
        while True:
            state = self.get_job(job_id)
            on_change(state)
            if state.get("status") in FINAL_STATES:
                break
            if waited_s >= timeout_s:
                raise GenerationTimeoutError(
                    f"Job {job_id} is {state.get('status')} after {timeout_s:g} s; it goes on.",
                    hint=f"Ask again with 'dream-cad status {job_id}'.",
                )
            pause(_POLL_S)
            waited_s += _POLL_S
        if state["status"] == "failed":
            raise GenerationError(f"Job {job_id} failed: {_reason(state)}")
        if state["status"] == "cancelled":
            raise GenerationCancelledError(f"Job {job_id} was cancelled.")
        return state

    def _json(self, method: str, url: str, **request: Any) -> dict[str, Any]:
        try:
            response = self._client.request(method, url, **request)
        except httpx.HTTPError as error:
            raise self._unreachable(error) from error
        _raise_for_problem(response)
        try:
            body = response.json()
        except ValueError:
            body = None
        if not isinstance(body, dict):
            raise RemoteProblemError(f"{self._server} answered with something else than JSON.")
        return body

    def _download(self, url: str, path: Path, **request: Any) -> Path:
        """Stream a response into a file that appears only when it is whole."""
        part = path.with_name(f".{path.name}.{os.getpid()}.part")
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            with self._client.stream("GET", url, **request) as response, part.open("wb") as file:
                if response.is_error:
                    response.read()
                _raise_for_problem(response)
                for block in response.iter_bytes():
                    file.write(block)
            part.replace(path)
        except httpx.HTTPError as error:
            raise self._unreachable(error) from error
        except OSError as error:
            raise StorageError(f"{path} could not be written: {error.strerror}.") from error
        finally:
            part.unlink(missing_ok=True)
        return path

    def _unreachable(self, error: httpx.HTTPError) -> ServiceUnavailableError:
        return ServiceUnavailableError(
            f"The server {self._server} cannot be reached: {error or type(error).__name__}.",
            hint="Start one with 'serve run serve_config.yaml', or name another with --server.",
        )


def _raise_for_problem(response: httpx.Response) -> None:
    """Raise the problem document of an error response, or its status line if it has none."""
    if not response.is_error:
        return
    try:
        problem = response.json()
    except ValueError:
        problem = None
    if not isinstance(problem, dict):
        raise RemoteProblemError(f"The server answered {response.status_code}.")
    title, detail = problem.get("title"), problem.get("detail")
    message = f"{title}: {detail}" if title and detail else str(title or detail or problem)
    hint = problem.get("hint")
    after = response.headers.get("Retry-After")
    if after is not None:
        hint = f"{hint} " if hint else ""
        hint += f"Try again in {after} s."
    raise RemoteProblemError(message, hint=hint, details=problem)


def _reason(state: dict[str, Any]) -> str:
    error = state.get("error")
    if isinstance(error, dict):
        return str(error.get("detail") or error.get("title") or error)
    return str(error or "no reason was given.")


def _segment(job_id: str) -> str:
    """Refuse what would lead to another path than a job's."""
    if not job_id or not all(character.isalnum() or character in "-_" for character in job_id):
        raise InvalidConfigError(f"{job_id!r} is no job id.")
    return job_id
