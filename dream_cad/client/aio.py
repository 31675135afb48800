"""The client to await."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import suppress
from pathlib import Path
from types import TracebackType
from typing import Any, Self, Unpack

import httpx

from dream_cad.client import calls
from dream_cad.client.connection import Address, AsyncConnection
from dream_cad.client.deadline import Deadline
from dream_cad.client.documents import (
    Batch,
    BatchItem,
    Cluster,
    Job,
    JobEvent,
    Models,
    ResultFile,
)
from dream_cad.client.events import POLL_S, Following
from dream_cad.client.fields import BatchItemFields, Image, Images, JobFields
from dream_cad.client.files import format_of
from dream_cad.client.problems import completed
from dream_cad.exceptions import DreamCadError, GenerationTimeoutError


class AsyncClient:
    """Talks to one server; use it as an async context manager. The methods are those of ``Client``.

    Callbacks are plain functions; errors, patience and arguments are as described there.

    Args:
        server: base URL; ``DREAM_CAD_SERVER`` if None.
        api_key: sent as a bearer token; ``DREAM_CAD_API_KEY`` if None.
        patience_s: how long the server may be away; ``DREAM_CAD_PATIENCE_S`` if None.
        transport: replaces the network, for tests.
        sleep: waits the given seconds.

    Raises:
        InvalidConfigError: ``server`` is no http or https URL.
    """

    def __init__(
        self,
        server: str | None = None,
        api_key: str | None = None,
        *,
        patience_s: float | None = None,
        transport: httpx.AsyncBaseTransport | None = None,
        sleep: Callable[[float], Awaitable[None]] = asyncio.sleep,
    ) -> None:
        address = Address(server, api_key, patience_s)
        self.server = address.server
        self._connection = AsyncConnection(address, transport, sleep)
        self._patience = address.patience
        self._sleep = sleep

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self,
        exc_type: type[BaseException] | None,
        exc: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        await self.aclose()

    async def aclose(self) -> None:
        """Close the connections."""
        await self._connection.close()

    # Jobs

    async def submit(
        self,
        prompt: str | None = None,
        *,
        image: Image | None = None,
        images: Images | None = None,
        mesh: Image | None = None,
        image_url: str | None = None,
        idempotency_key: str | None = None,
        **fields: Unpack[JobFields],
    ) -> Job:
        """Queue a job; it is durable when this returns.

        Args:
            prompt: what to make; or give ``image`` (path or bytes), ``images`` or ``image_url``.
            image: a picture to start from.
            images: several of one object, in any order or by view, for models that take them.
            mesh: a GLB (path or bytes) to texture or vary, beside the prompt or image.
            image_url: of a picture, on a host that the server lists.
            idempotency_key: the same key never makes a second job; one is made if None.
            **fields: model, options, priority, tags and so on, see ``JobFields``.
        """
        return await self._connection.send(
            calls.submit(prompt, image, images, mesh, image_url, idempotency_key, fields)
        )

    async def get(self, job_id: str) -> Job:
        """Return a job as it stands."""
        return await self._connection.send(calls.get_job(job_id))

    async def cancel(self, job_id: str) -> Job:
        """Cancel a job: at once if it waits, at its next step if it runs.

        Raises:
            JobStateError: it has ended otherwise.
        """
        return await self._connection.send(calls.cancel_job(job_id))

    async def rerun(self, job_id: str, *, idempotency_key: str | None = None) -> Job:
        """Queue a job's receipt again, seed included; it never comes from the cache."""
        return await self._connection.send(calls.rerun(job_id, idempotency_key))

    async def jobs(
        self,
        *,
        status: str | None = None,
        model: str | None = None,
        batch: str | None = None,
        tag: str | None = None,
    ) -> AsyncIterator[Job]:
        """Yield jobs, newest first, fetched by the page."""
        wanted = {"status": status, "model": model, "batch": batch, "tag": tag}
        cursor: str | None = None
        while True:
            page = await self._connection.send(calls.list_jobs(wanted, cursor))
            for job in page.jobs:
                yield job
            cursor = page.next_cursor
            if cursor is None:
                return

    async def events(
        self, job_id: str, *, after: str | None = None, timeout_s: float | None = None
    ) -> AsyncIterator[JobEvent]:
        """Yield every change of a job's state, and progress in between, until it has ended.

        A connection that breaks is resumed after the last event seen. Where events do not come
        through (a proxy that collects them), the job is asked for every second, with a warning.

        Args:
            job_id: the job.
            after: id of an event seen before; only later ones come.
            timeout_s: how long; None for ever.

        Raises:
            GenerationTimeoutError: it has not ended in time; it goes on all the same.
        """
        following = Following(job_id, timeout_s, self._patience, after)
        while not following.is_done:
            if following.is_polling or following.is_in_doubt:
                yield following.polled(await self.get(job_id))
                following.check_time()
                if following.is_polling and not following.is_done:
                    await self._sleep(following.poll_pause_s())
                continue
            try:
                async for event in self._connection.stream_events(job_id, following):
                    yield event
            except DreamCadError as error:
                await self._sleep(following.lost(error))
            else:
                if not (following.is_done or following.is_polling or following.is_short()):
                    await self._sleep(following.lost(None))

    async def wait(
        self,
        job_id: str,
        on_progress: Callable[[Job], object] | None = None,
        *,
        timeout_s: float | None = None,
    ) -> Job:
        """Wait until a job has completed, and return it.

        Args:
            job_id: the job.
            on_progress: called with the job at every change of state, progress or place.
            timeout_s: how long; None for ever.

        Raises:
            GenerationError: it failed; of the class that its problem names.
            GenerationCancelledError: it was cancelled.
            GenerationTimeoutError: it has not ended in time; it goes on all the same.
        """
        return completed(await self._last_state(job_id, on_progress, timeout_s))

    async def generate(
        self,
        prompt: str | None = None,
        *,
        image: Image | None = None,
        images: Images | None = None,
        mesh: Image | None = None,
        image_url: str | None = None,
        on_progress: Callable[[Job], object] | None = None,
        timeout_s: float | None = None,
        **fields: Unpack[JobFields],
    ) -> bytes:
        """Queue a job, wait for it and return the mesh's bytes in ``format`` ("glb").

        The job is cancelled if the wait is interrupted; past ``timeout_s`` it goes on, and the
        error's ``details["job_id"]`` names it. Otherwise as ``submit`` and ``wait``.
        """
        job = await self.submit(
            prompt, image=image, images=images, mesh=mesh, image_url=image_url, **fields
        )
        try:
            ended = await self._last_state(job.id, on_progress, timeout_s)
        except GenerationTimeoutError:
            raise
        except BaseException:
            with suppress(DreamCadError):
                await self.cancel(job.id)
            raise
        return await self.read_result(completed(ended).id)

    # Files

    async def read_result(self, job_id: str, format: str | None = None) -> bytes:
        """Return a job's mesh; in the format that the job named if None."""
        return await self._connection.read(calls.result(job_id, format))

    async def read_preview(self, job_id: str) -> bytes:
        """Return a job's turntable sheet, a PNG."""
        return await self._connection.read(calls.preview(job_id))

    async def receipt(self, job_id: str) -> dict[str, Any]:
        """Return how a job's result was made: seed, weights, versions, options, licence, tries."""
        receipt: dict[str, Any] = json.loads(await self._connection.read(calls.receipt(job_id)))
        return receipt

    async def fetch_result(self, job_id: str, path: str | Path, format: str | None = None) -> Path:
        """Write a job's mesh to a file, which appears only when it is whole.

        Args:
            job_id: the job.
            path: file; its suffix is the format if none is given.
            format: glb, obj, ply, stl and so on.
        """
        target = Path(path)
        return await self._connection.download(
            calls.result(job_id, format_of(target, format)), target
        )

    async def fetch_preview(self, job_id: str, path: str | Path) -> Path:
        """Write a job's turntable sheet to a PNG file."""
        return await self._connection.download(calls.preview(job_id), Path(path))

    async def files(self, job_id: str) -> tuple[ResultFile, ...]:
        """Return what is stored of a job's result: mesh, pictures, what else the model made."""
        return (await self._connection.send(calls.list_files(job_id))).files

    async def read_file(self, job_id: str, name: str) -> bytes:
        """Return one of the files that ``files`` lists."""
        return await self._connection.read(calls.file(job_id, name))

    async def fetch_file(self, job_id: str, name: str, path: str | Path) -> Path:
        """Write one of the files that ``files`` lists to a file of this machine."""
        return await self._connection.download(calls.file(job_id, name), Path(path))

    async def fetch_receipt(self, job_id: str, path: str | Path) -> Path:
        """Write a job's receipt to a JSON file."""
        return await self._connection.download(calls.receipt(job_id), Path(path))

    # Batches

    async def submit_batch(
        self,
        prompts: Sequence[str] | None = None,
        *,
        items: Sequence[BatchItemFields] | None = None,
        name: str = "",
        idempotency_key: str | None = None,
        **fields: Unpack[JobFields],
    ) -> Batch:
        """Queue many jobs, all or none: prompts that share everything, or items that differ."""
        return await self._connection.send(
            calls.submit_batch(prompts, items, name, idempotency_key, fields)
        )

    async def submit_batch_file(
        self,
        path: str | Path,
        *,
        name: str | None = None,
        idempotency_key: str | None = None,
        **fields: Unpack[JobFields],
    ) -> Batch:
        """Queue the rows of a CSV or JSON lines file; the file's name names the batch if None."""
        return await self._connection.send(
            calls.submit_batch_file(path, name, idempotency_key, fields)
        )

    async def get_batch(self, batch_id: str) -> Batch:
        """Return how many of a batch's jobs are in which state."""
        return await self._connection.send(calls.get_batch(batch_id))

    async def batch_items(self, batch_id: str) -> AsyncIterator[BatchItem]:
        """Yield a batch's items in order, fetched by the page."""
        cursor: str | None = None
        while True:
            page = await self._connection.send(calls.list_batch(batch_id, cursor))
            for item in page.items:
                yield item
            cursor = page.next_cursor
            if cursor is None:
                return

    async def wait_batch(
        self,
        batch_id: str,
        on_progress: Callable[[Batch], object] | None = None,
        *,
        timeout_s: float | None = None,
    ) -> Batch:
        """Ask every second until all jobs of a batch have ended, well or not, and return it.

        Raises:
            GenerationTimeoutError: they have not in time; they go on all the same.
        """
        deadline = Deadline(timeout_s)
        while True:
            batch = await self.get_batch(batch_id)
            if on_progress is not None:
                on_progress(batch)
            if batch.is_final:
                return batch
            deadline.check(f"Batch {batch_id}", "Wait again; it is kept.", batch_id=batch_id)
            await self._sleep(deadline.at_most(POLL_S))

    async def retry_batch(
        self, batch_id: str, *, idempotency_key: str | None = None
    ) -> tuple[str, ...]:
        """Queue a batch's failed items again; returns the ids of the jobs in their places."""
        return (await self._connection.send(calls.retry_batch(batch_id, idempotency_key))).jobs

    async def pause_batch(self, batch_id: str) -> Batch:
        """Start no more of a batch's jobs; those that run go on."""
        return await self._connection.send(calls.pause_batch(batch_id))

    async def resume_batch(self, batch_id: str) -> Batch:
        """Start a batch's jobs again."""
        return await self._connection.send(calls.resume_batch(batch_id))

    async def cancel_batch(self, batch_id: str) -> Batch:
        """Cancel all jobs of a batch that have not ended."""
        return await self._connection.send(calls.cancel_batch(batch_id))

    async def fetch_archive(self, batch_id: str, path: str | Path, format: str = "glb") -> Path:
        """Write what is done of a batch to a zip file: meshes, contact sheets, manifest.json."""
        return await self._connection.download(calls.archive(batch_id, format), Path(path))

    # Server

    async def models(self) -> Models:
        """Return the server's models, whether each takes jobs, and the schema of its options."""
        return await self._connection.send(calls.list_models())

    async def cluster(self) -> Cluster:
        """Return GPUs, replicas and the queue's depth; ``as_sent()`` is the document."""
        return await self._connection.send(calls.get_cluster())

    async def _last_state(
        self, job_id: str, on_progress: Callable[[Job], object] | None, timeout_s: float | None
    ) -> Job:
        last: Job | None = None
        async for event in self.events(job_id, timeout_s=timeout_s):
            last = event.job
            if on_progress is not None:
                on_progress(last)
        return last or await self.get(job_id)
