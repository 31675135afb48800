"""What the routes share: the door to the router, the artifacts, and the rules of intake."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import re
from collections.abc import AsyncIterator, Callable, Coroutine, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Any

from deployments.args import AppArgs
from deployments.gateway_client import GatewayClient
from deployments.http.auth import Authenticator, Principal
from deployments.http.batch_body import BatchSubmission
from deployments.http.body import Submission
from deployments.http.detached import Detached
from deployments.http.fetching import ImageFetcher
from deployments.http.intake import Intake, Prepared
from deployments.http.request_id import request_id_var
from deployments.http.results import ResultReader
from deployments.http.views import input_names
from deployments.messages import JobView
from deployments.plan import ModelPlan
from dream_cad.artifacts import ArtifactStore
from dream_cad.exceptions import DreamCadError, InvalidConfigError, JobNotFoundError
from dream_cad.queue import GenerationJob
from dream_cad.queue.jobs import BatchView

logger = logging.getLogger(__name__)

_PAGE = 200
_LOOK_AGAIN_S = 0.1
_ID = re.compile(r"[A-Za-z0-9_-]{1,64}")


@dataclass
class Services:
    """Everything a route needs; one for each gateway replica."""

    args: AppArgs
    plans: dict[str, ModelPlan]
    router: GatewayClient
    artifacts: ArtifactStore
    results: ResultReader
    intake: Intake
    auth: Authenticator
    fetcher: ImageFetcher
    data_folder: Path | None = None  # beside the results, where those are on a disk
    detached: Detached = field(default_factory=Detached)

    async def submit(
        self, submission: Submission, who: Principal, idempotency_key: str | None = None
    ) -> JobView:
        """Check a request, store its picture and queue it; durable when this returns."""
        prepared = await self._checked(submission, who, idempotency_key)
        return await self.add(prepared.job, prepared.files)

    async def _checked(
        self, submission: Submission, who: Principal, idempotency_key: str | None
    ) -> Prepared:
        url = submission.request.image_url
        if url is not None:
            others = submission.image, submission.request.prompt, submission.views or None
            if others != (None, None, None):
                raise InvalidConfigError("Give one of prompt, image, images and image_url.")
            submission = replace(submission, image=await self.fetcher.fetch(url))
        prepared = await self._prepare(submission, who, idempotency_key)
        await self._check_dependencies(prepared.job, who)
        return prepared

    async def make(
        self,
        submission: Submission,
        who: Principal,
        wait_s: float,
        idempotency_key: str | None = None,
    ) -> JobView:
        """Queue a request and return its job once it has ended or time is up.

        A client that hangs up cancels the job, unless it gave an idempotency key, with which it can
        come back for the result.
        """
        prepared = await self._checked(submission, who, idempotency_key)
        queue_and_wait = partial(self.router.make, timeout_s=wait_s)
        making = self.detached.start(self._queue(prepared.job, prepared.files, queue_and_wait))
        try:
            return await asyncio.shield(making)
        except asyncio.CancelledError:
            if idempotency_key is None:
                self.detached.start(self._cancel_when_queued(prepared.job.id, making))
            raise

    async def _cancel_when_queued(self, job_id: str, making: asyncio.Task[JobView]) -> None:
        while not making.done():
            try:
                await self.router.cancel(job_id)
            except JobNotFoundError:  # on its way into the queue
                await asyncio.wait({making}, timeout=_LOOK_AGAIN_S)
            except DreamCadError as error:
                logger.warning("not cancelled after a hang-up", extra={"reason": str(error)})
                return
            else:
                return

    async def _prepare(
        self, submission: Submission, who: Principal, idempotency_key: str | None
    ) -> Prepared:
        make_job = self.intake.make_job
        if submission.image is None and not submission.views and submission.mesh is None:
            # Checking a prompt takes less than a change of threads.
            return make_job(submission, who.id, idempotency_key)
        return await asyncio.to_thread(make_job, submission, who.id, idempotency_key)

    async def add(self, job: GenerationJob, files: dict[str, bytes]) -> JobView:
        """Store a job's pictures and queue the job."""
        return await self._queue(job, files, self.router.submit)

    async def _queue(
        self,
        job: GenerationJob,
        files: dict[str, bytes],
        verb: Callable[[GenerationJob], Coroutine[Any, Any, JobView]],
    ) -> JobView:
        if job.input_uri is not None:
            await asyncio.to_thread(self.artifacts.publish, job.input_uri, files)
        try:
            view = await verb(job)
        except DreamCadError:
            await self._forget_input(job)
            raise
        if view.job.id != job.id:
            await self._forget_input(job)
        return view

    async def pictures_of(self, submission: BatchSubmission) -> list[bytes | None]:
        """Return the picture of each item of a batch, fetched where it is a URL."""
        items = submission.request.items or []
        urls = [item.image_url for item in items]
        for index, item in enumerate(items):
            if item.image_url is not None and (item.image is not None or item.prompt is not None):
                raise InvalidConfigError(f"items.{index}: give one of prompt, image and image_url.")
        wanted = [url for url in urls if url is not None]
        if not wanted:
            return submission.images
        found = await self.fetcher.fetch_all(wanted, self.args.limits.max_body_bytes)
        return [
            image if url is None else found[url]
            for url, image in zip(urls, submission.images, strict=True)
        ]

    async def submit_batch(
        self, prepared: Sequence[Prepared], name: str, who: Principal
    ) -> BatchView:
        """Store the pictures of a batch and queue it, all or nothing."""
        jobs = [entry.job for entry in prepared]
        if jobs:
            await self._check_dependencies(jobs[0], who)  # they are the batch's, the same for all
        try:
            for entry in prepared:
                uri = entry.job.input_uri
                if uri is not None:
                    await asyncio.to_thread(self.artifacts.publish, uri, entry.files)
            view = await self.router.submit_batch(jobs, name, who.id)
            is_replay = jobs[0].idempotency_key is not None and not await self._is_known(jobs[0].id)
        except DreamCadError:
            for job in jobs:
                await self._forget_input(job)
            raise
        if is_replay:
            for job in jobs:
                await self._forget_input(job)
        logger.info(
            "batch accepted",
            extra={"batch_id": view.id, "jobs": len(jobs), "request_id": request_id_var.get()},
        )
        return view

    async def job(self, job_id: str, who: Principal) -> JobView:
        """Return a job of one's own; another's is as unknown as one that never was.

        Raises:
            JobNotFoundError: no such job.
        """
        view = await self.router.get(job_id) if _ID.fullmatch(job_id) else None
        if view is None or not who.may_see(view.job.owner):
            raise JobNotFoundError(f"There is no job {job_id[:80]!r}.", hint="Check the id.")
        return view

    async def batch(self, batch_id: str, who: Principal) -> BatchView:
        """Return a batch of one's own.

        Raises:
            JobNotFoundError: no such batch.
        """
        view = await self.router.batch(batch_id) if _ID.fullmatch(batch_id) else None
        if view is None or not who.may_see(view.owner):
            raise JobNotFoundError(f"There is no batch {batch_id[:80]!r}.", hint="Check the id.")
        return view

    async def jobs_of_batch(self, batch_id: str) -> AsyncIterator[GenerationJob]:
        """Yield a batch's jobs in order."""
        cursor: str | None = None
        while True:
            views, cursor = await self.router.batch_items(batch_id, cursor, _PAGE)
            for view in views:
                yield view.job
            if cursor is None:
                return

    async def rerun(
        self, job_id: str, who: Principal, idempotency_key: str | None = None
    ) -> JobView:
        """Queue the same receipt again: input, model, options and seed of an earlier job."""
        old = (await self.job(job_id, who)).job
        if old.model_name not in self.plans or not self.plans[old.model_name].is_deployed:
            raise InvalidConfigError(
                f"Model {old.model_name!r} of that job is not served here any more.",
                hint="GET /v1/models lists what is.",
            )
        new = self.intake.again(old, who.id, idempotency_key)
        files = {}
        if old.input_uri is not None:
            for name in input_names(old.policy):
                files[name] = await asyncio.to_thread(self.artifacts.read, old.input_uri, name)
        return await self.add(new, files)

    async def _is_known(self, job_id: str) -> bool:
        try:
            await self.router.get(job_id)
        except JobNotFoundError:
            return False
        return True

    async def _check_dependencies(self, job: GenerationJob, who: Principal) -> None:
        for needed in job.depends_on:
            try:
                await self.job(needed, who)
            except JobNotFoundError as error:
                raise InvalidConfigError(
                    f"The job {needed!r} that this one depends on does not exist."
                ) from error

    async def _forget_input(self, job: GenerationJob) -> None:
        if job.input_uri is not None:
            with contextlib.suppress(DreamCadError):
                await asyncio.to_thread(self.artifacts.delete, job.input_uri)
