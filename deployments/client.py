"""Calls from a gateway to the router that outlive a restart of the router."""

from __future__ import annotations

import asyncio
import time
from typing import Any

from ray.serve.handle import DeploymentHandle

from deployments.failures import CLUSTER_ERRORS, is_cluster_trouble, root_cause
from deployments.grouping import Grouping
from deployments.http.detached import Detached
from deployments.messages import JobView, ModelInfo
from dream_cad.exceptions import DreamCadError, ServiceUnavailableError
from dream_cad.queue import GenerationJob, JobFilter

_PATIENCE_S = 45.0
_PAUSE_S = 0.25
_MOST_TOGETHER = 256


class RouterClient:
    """The router's methods, repeated while it restarts: each of them may be called twice.

    Adding a job is repeatable because the gateway gives the id.
    """

    def __init__(self, handle: DeploymentHandle[Any], patience_s: float = _PATIENCE_S) -> None:
        self._handle = handle
        self._patience_s = patience_s
        self._submit: Grouping[GenerationJob, JobView] = Grouping(
            self._submit_many, _MOST_TOGETHER, Detached().start
        )

    async def submit(self, job: GenerationJob) -> JobView:
        """Add a job, together with others that come at the same time; see Router.submit_many."""
        return await self._submit(job)

    async def _submit_many(self, jobs: list[GenerationJob]) -> list[JobView | Exception]:
        outcomes: list[JobView | Exception] = await self._call("submit_many", jobs)
        return outcomes

    async def make(self, job: GenerationJob, timeout_s: float) -> JobView:
        """Add a job and wait for its end, with one call of the router; see Router.make."""
        deadline = time.monotonic() + timeout_s
        view: JobView = await self._call("make", job, min(timeout_s, _PATIENCE_S))
        left = deadline - time.monotonic()
        return view if view.job.status.is_final or left <= 0 else await self.wait(view.job.id, left)

    async def get(self, job_id: str) -> JobView:
        """See Router.get."""
        view: JobView = await self._call("get", job_id)
        return view

    async def cancel(self, job_id: str) -> JobView:
        """See Router.cancel."""
        view: JobView = await self._call("cancel", job_id)
        return view

    async def wait(self, job_id: str, timeout_s: float) -> JobView:
        """See Router.wait."""
        deadline = time.monotonic() + timeout_s
        while True:
            left = max(deadline - time.monotonic(), 0.0)
            # Short waits: one that a dying router swallowed is asked again.
            view: JobView = await self._call("wait", job_id, min(left, _PATIENCE_S))
            if view.job.status.is_final or left <= _PATIENCE_S:
                return view

    async def list_jobs(
        self, wanted: JobFilter, cursor: str | None, limit: int
    ) -> tuple[list[JobView], str | None]:
        """See Router.list_jobs."""
        page: tuple[list[JobView], str | None] = await self._call(
            "list_jobs", wanted, cursor, limit
        )
        return page

    async def models(self) -> dict[str, ModelInfo]:
        """See Router.models."""
        infos: dict[str, ModelInfo] = await self._call("models")
        return infos

    async def _call(self, method: str, *args: Any) -> Any:
        deadline = time.monotonic() + self._patience_s
        while True:
            try:
                return await getattr(self._handle, method).remote(*args)
            except (*CLUSTER_ERRORS, DreamCadError) as error:
                if not is_cluster_trouble(error):
                    raise root_cause(error) from None
                if time.monotonic() >= deadline:
                    raise ServiceUnavailableError(
                        "The router does not answer.", hint="Try again in a few seconds."
                    ) from error
            await asyncio.sleep(_PAUSE_S)
