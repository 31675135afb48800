"""The router's methods for gateways that need no dispatch: batches, events, keys, switches."""

from __future__ import annotations

import asyncio
import hashlib
import hmac
from collections.abc import AsyncIterator, Callable
from contextlib import AbstractContextManager
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from deployments.endings import add_batch, cancel_batch
from deployments.jobrun import JobRun
from deployments.messages import JobEventView, JobView
from deployments.watching import Watchers, wait_for
from dream_cad.exceptions import JobNotFoundError, QueueFullError
from dream_cad.queue import GenerationJob, JobQueue, JobStatus
from dream_cad.queue.jobs import BatchView, JobEvent
from dream_cad.queue.keys import ApiKey
from dream_cad.queue.licenses import AcceptedLicense
from dream_cad.queue.state import Switches
from dream_cad.queue.webhooks import Delivery

_LOOK_AGAIN_S = 1.0
_STATES = frozenset(status.value for status in JobStatus)


class GatewayDesk:
    """Part of the Router: what gateways ask of the queue alone."""

    _queue: JobQueue
    _watchers: Watchers

    if TYPE_CHECKING:

        async def get(self, job_id: str) -> JobView:
            """See Router.get."""

        async def _database(self, verb: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
            """See Router._database."""

        def _watching(self, job_id: str) -> AbstractContextManager[asyncio.Event]:
            """See Router._watching."""

        def _find_run(self, job_id: str) -> JobRun | None:
            """See Router._find_run."""

        async def _until_begun(self, jobs: list[GenerationJob]) -> None:
            """See Router._until_begun."""

        def _wake_all(self) -> None:
            """See Router._wake_all."""

        def _require_license(self, job: GenerationJob) -> None:
            """See Router._require_license."""

        def _retry_after_s(self, model_name: str) -> float:
            """See Router._retry_after_s."""

    # Batches

    async def submit_batch(self, jobs: list[GenerationJob], name: str, owner: str) -> BatchView:
        """Add jobs as one batch, all or none; adding the same jobs again gives the batch there.

        Jobs whose result is known already (same ``cache_key``) are completed at once.

        Raises:
            IdempotencyConflictError: the first job's key was used for another request.
            QueueFullError: they do not fit; with ``retry_after_s`` in its details.
            ModelUnavailableError: a model's licence has not been accepted.
        """
        for job in {job.model_name: job for job in jobs}.values():
            self._require_license(job)
        known = await self._database(self._queue.get_job, jobs[0].id) if jobs else None
        if known is not None and known.batch_id is not None:
            return await self.batch(known.batch_id)
        key = await self._database(self._queue.keys.get, owner) if owner else None
        limit = None if key is None else key.max_pending
        try:
            batch_id = await self._database(add_batch, self._queue, jobs, owner, name, limit)
        except QueueFullError as error:
            error.details["retry_after_s"] = self._retry_after_s(jobs[0].model_name)
            raise
        self._wake_all()
        await self._until_begun(jobs)
        return await self.batch(batch_id)

    async def batch(self, batch_id: str) -> BatchView:
        """Return a batch and how many of its jobs are in which state.

        Raises:
            JobNotFoundError: no such batch.
        """
        found: BatchView | None = await self._database(self._queue.get_batch, batch_id)
        if found is None:
            raise JobNotFoundError(f"There is no batch {batch_id!r}.", hint="Check the id.")
        return found

    async def batch_items(
        self, batch_id: str, cursor: str | None, limit: int
    ) -> tuple[list[JobView], str | None]:
        """Return a page of a batch's jobs in order, and the next page's cursor."""
        page = await self._database(self._queue.list_batch, batch_id, cursor, limit)
        return [JobView(job, None, None) for job in page.jobs], page.next_cursor

    async def pause_batch(self, batch_id: str) -> None:
        """Start no more of a batch's jobs."""
        await self._database(self._queue.pause_batch, batch_id)

    async def resume_batch(self, batch_id: str) -> None:
        """Let a paused batch go on."""
        await self._database(self._queue.resume_batch, batch_id)
        self._wake_all()

    async def cancel_batch(self, batch_id: str) -> None:
        """Cancel a batch's jobs: waiting ones at once, running ones at their next step.

        Raises:
            JobNotFoundError: no such batch.
        """
        for job in await self._database(cancel_batch, self._queue, batch_id):
            if job.status is JobStatus.RUNNING and (run := self._find_run(job.id)) is not None:
                run.stop()
            self._watchers.changed(job.id)

    async def retry_failed(
        self, batch_id: str, key: str | None = None, request_hash: str | None = None
    ) -> list[str]:
        """Put fresh jobs in the places of a batch's failed ones; returns their ids."""
        ids: list[str] = await self._database(self._queue.retry_failed, batch_id, key, request_hash)
        self._wake_all()
        return ids

    # Following

    async def follow(self, job_id: str, after: int | None) -> AsyncIterator[JobEventView]:
        """Yield a job's changes of state after an event, then those to come, until it has ended.

        Nothing is left out and nothing comes twice for a client that returns with the number of
        the last change it saw; progress in between has no number and is not repeated.

        Args:
            job_id: the job.
            after: number of the last change that the client saw.
        """
        seen = after or 0
        last: tuple[Any, ...] | None = None
        with self._watching(job_id) as changed:
            while True:
                changed.clear()
                view = await self.get(job_id)
                events: list[JobEvent] = await self._database(
                    self._queue.events_after, job_id, seen
                )
                for event in events:
                    seen = event.seq
                    yield JobEventView(event.seq, event.kind, _as_of(event, view))
                state = (view.job.stage, view.job.progress, view.position)
                if not events and not view.job.status.is_final and state != last:
                    yield JobEventView(None, "progress", view)
                last = state
                if view.job.status.is_final and not events:
                    return
                if not events:
                    await wait_for(changed, _LOOK_AGAIN_S)

    # Switches

    async def pause(self, model: str | None) -> None:
        """Start no job of a model, or none at all."""
        await self._database(self._queue.pause, model)

    async def resume(self, model: str | None) -> None:
        """Undo ``pause`` with the same argument."""
        await self._database(self._queue.resume, model)
        self._wake_all()

    async def drain(self) -> None:
        """Start nothing more until the upgrade is done."""
        await self._database(self._queue.drain)

    async def undrain(self) -> None:
        """End draining."""
        await self._database(self._queue.undrain)
        self._wake_all()

    async def switches(self) -> Switches:
        """Return what is paused, and whether the queue drains."""
        found: Switches = await self._database(self._queue.switches)
        return found

    # Keys, licences, webhooks

    async def verify_key(self, plaintext: str) -> ApiKey | None:
        """Return what is known of a valid key, without its secrets; None for any other."""
        key: ApiKey | None = await self._database(self._queue.keys.verify, plaintext)
        return None if key is None else replace(key, webhook_secret="")

    async def any_key(self) -> bool:
        """Return whether a valid key exists."""
        return bool(await self._database(self._queue.keys.any_key))

    async def keys(self) -> list[ApiKey]:
        """Return all keys without their secrets."""
        keys: list[ApiKey] = await self._database(self._queue.keys.list_keys)
        return [replace(key, webhook_secret="") for key in keys]

    async def link_secret(self, owner: str) -> str | None:
        """Return what links to an owner's results are signed with; None without a valid key."""
        key: ApiKey | None = await self._database(self._queue.keys.get, owner) if owner else None
        if key is None or key.revoked_at is not None or not key.webhook_secret:
            return None
        # Not the secret itself: that one signs webhooks, and stays here.
        return hmac.new(key.webhook_secret.encode(), b"links", hashlib.sha256).hexdigest()

    async def licenses(self) -> list[AcceptedLicense]:
        """Return the licences that were accepted."""
        found: list[AcceptedLicense] = await self._database(self._queue.licenses.list)
        return found

    async def accept_license(self, model: str, license: str, by: str) -> None:
        """Record that an administrator accepts a model's licence."""
        await self._database(self._queue.licenses.accept, model, license, by)
        self._wake_all()

    async def deliveries(self, job_id: str) -> list[Delivery]:
        """Return the webhook calls of a job, oldest first."""
        found: list[Delivery] = await self._database(self._queue.webhooks.list_for, job_id)
        return found


def _as_of(event: JobEvent, view: JobView) -> JobView:
    """Show a job in the state of an earlier event, so that a replay reads in order."""
    if event.kind not in _STATES or event.kind == view.job.status.value:
        return view
    job = replace(view.job, status=JobStatus(event.kind), problem=event.data.get("problem"))
    return JobView(job, None, None)
