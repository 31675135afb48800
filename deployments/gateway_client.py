"""The gateway's calls to the router; each of them may be repeated while the router restarts."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import Any

from deployments.calls import stream_of
from deployments.client import RouterClient
from deployments.failures import CLUSTER_ERRORS, is_cluster_trouble, root_cause
from deployments.messages import JobEventView, JobView
from dream_cad.exceptions import DreamCadError
from dream_cad.queue import GenerationJob
from dream_cad.queue.jobs import BatchView
from dream_cad.queue.keys import ApiKey
from dream_cad.queue.licenses import AcceptedLicense
from dream_cad.queue.state import Switches
from dream_cad.queue.webhooks import Delivery

_PAUSE_S = 0.25


class GatewayClient(RouterClient):
    """See GatewayDesk and Router for what the methods do."""

    async def submit_batch(self, jobs: list[GenerationJob], name: str, owner: str) -> BatchView:
        """Add a batch; repeatable because its jobs have their ids."""
        view: BatchView = await self._call("submit_batch", jobs, name, owner)
        return view

    async def batch(self, batch_id: str) -> BatchView:
        """Return a batch."""
        view: BatchView = await self._call("batch", batch_id)
        return view

    async def batch_items(
        self, batch_id: str, cursor: str | None, limit: int
    ) -> tuple[list[JobView], str | None]:
        """Return a page of a batch's jobs."""
        page: tuple[list[JobView], str | None] = await self._call(
            "batch_items", batch_id, cursor, limit
        )
        return page

    async def pause_batch(self, batch_id: str) -> None:
        """Start no more of a batch's jobs."""
        await self._call("pause_batch", batch_id)

    async def resume_batch(self, batch_id: str) -> None:
        """Let a paused batch go on."""
        await self._call("resume_batch", batch_id)

    async def cancel_batch(self, batch_id: str) -> None:
        """Cancel what has not ended of a batch."""
        await self._call("cancel_batch", batch_id)

    async def retry_failed(self, batch_id: str, key: str, request_hash: str) -> list[str]:
        """Replace a batch's failed jobs; repeated with its key it answers the same."""
        ids: list[str] = await self._call("retry_failed", batch_id, key, request_hash)
        return ids

    async def follow(self, job_id: str, after: int | None) -> AsyncIterator[JobEventView]:
        """Follow a job; goes on with the next router, after the last event, if one dies."""
        while True:
            try:
                async for event in stream_of(self._handle, "follow", job_id, after):
                    after = event.event_id or after
                    yield event
            except (*CLUSTER_ERRORS, DreamCadError) as error:
                if not is_cluster_trouble(error):
                    raise root_cause(error) from None
                await asyncio.sleep(_PAUSE_S)
            else:
                return

    async def pause(self, model: str | None) -> None:
        """Start no job of a model, or none at all."""
        await self._call("pause", model)

    async def resume(self, model: str | None) -> None:
        """Undo ``pause``."""
        await self._call("resume", model)

    async def drain(self) -> None:
        """Start nothing more."""
        await self._call("drain")

    async def undrain(self) -> None:
        """End draining."""
        await self._call("undrain")

    async def switches(self) -> Switches:
        """Return what is paused."""
        switches: Switches = await self._call("switches")
        return switches

    async def cluster(self) -> dict[str, Any]:
        """Return GPUs, replicas, depth and switches."""
        found: dict[str, Any] = await self._call("cluster")
        return found

    async def verify_key(self, plaintext: str) -> ApiKey | None:
        """Return what is known of a valid key."""
        key: ApiKey | None = await self._call("verify_key", plaintext)
        return key

    async def any_key(self) -> bool:
        """Return whether a valid key exists."""
        return bool(await self._call("any_key"))

    async def keys(self) -> list[ApiKey]:
        """Return all keys."""
        keys: list[ApiKey] = await self._call("keys")
        return keys

    async def link_secret(self, owner: str) -> str | None:
        """Return what links to an owner's results are signed with."""
        secret: str | None = await self._call("link_secret", owner)
        return secret

    async def licenses(self) -> list[AcceptedLicense]:
        """Return accepted licences."""
        found: list[AcceptedLicense] = await self._call("licenses")
        return found

    async def accept_license(self, model: str, license: str, by: str) -> None:
        """Accept a model's licence."""
        await self._call("accept_license", model, license, by)

    async def deliveries(self, job_id: str) -> list[Delivery]:
        """Return the webhook calls of a job."""
        found: list[Delivery] = await self._call("deliveries", job_id)
        return found
