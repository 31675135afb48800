"""The verbs of JobQueue that add jobs."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

from dream_cad.exceptions import (
    DreamCadError,
    IdempotencyConflictError,
    InvalidConfigError,
    JobNotFoundError,
    QueueFullError,
)
from dream_cad.queue.base import QueueBase
from dream_cad.queue.jobs import (
    BatchView,
    GenerationJob,
    JobPage,
    JobPriority,
    JobStatus,
    new_job_id,
)
from dream_cad.queue.problems import validate_new_job
from dream_cad.queue.rows import instant
from dream_cad.queue.schema import jobs

_LONGEST_BATCH_NAME = 200
_OF_ONE_JOB = (InvalidConfigError, IdempotencyConflictError, QueueFullError)


class Adding(QueueBase):
    """Adding jobs singly, in groups and in batches."""

    def add_job(self, job: GenerationJob, *, max_pending: int | None = None) -> str:
        """Add a job and return its id.

        With an ``idempotency_key`` that its owner used before, nothing is added and the first
        job's id comes back, provided that ``request_hash`` is the same.

        Args:
            job: a pending job.
            max_pending: refuse it if its owner has so many waiting ones.

        Raises:
            InvalidConfigError: the job has neither prompt nor input, or an unsafe or known id.
            IdempotencyConflictError: the key was used for another request.
            QueueFullError: the queue's or the owner's ``max_pending`` jobs wait already.
        """
        validate_new_job(job)
        if (known := self._replay(job)) is not None:
            return known
        try:
            self._insert([job], None if max_pending is None else {job.owner: max_pending})
        except InvalidConfigError:
            # Another caller may have used the key since we looked.
            if (known := self._replay(job)) is not None:
                return known
            raise
        return job.id

    def add_jobs(
        self, new_jobs: Sequence[GenerationJob], *, max_pending: Mapping[str, int] | None = None
    ) -> list[str]:
        """Add jobs in one transaction, all or none, and return their ids in order.

        Jobs whose idempotency key is known are not added; see ``add_job``, also for the errors.

        Args:
            new_jobs: the jobs.
            max_pending: limit of waiting jobs by owner.
        """
        for job in new_jobs:
            validate_new_job(job)
        ids: list[str] = []
        fresh: list[GenerationJob] = []
        first_of_key: dict[tuple[str, str], GenerationJob] = {}
        for job in new_jobs:
            known = self._replay(job)
            twin = None if known is not None else self._twin(job, first_of_key)
            if known is None and twin is None:
                fresh.append(job)
            ids.append(known or (job.id if twin is None else twin.id))
        if fresh:
            self._insert(fresh, max_pending)
        return ids

    def add_each(
        self, new_jobs: Sequence[GenerationJob], *, max_pending: Mapping[str, int] | None = None
    ) -> list[str | DreamCadError]:
        """Add unrelated jobs with one commit: each becomes an id or its own error, in order.

        For group commit: one caller's bad job leaves the others alone.

        Args:
            new_jobs: the jobs.
            max_pending: limit of waiting jobs by owner.

        Raises:
            StorageError: the database failed; nothing was added.
        """
        try:
            return list(self.add_jobs(new_jobs, max_pending=max_pending))
        except _OF_ONE_JOB:
            pass  # find out whose fault it is
        limits = max_pending or {}
        outcomes: list[str | DreamCadError] = []
        with self.grouped():
            for job in new_jobs:
                try:
                    outcomes.append(self.add_job(job, max_pending=limits.get(job.owner)))
                except _OF_ONE_JOB as error:
                    outcomes.append(error)
        return outcomes

    def add_cached(self, job: GenerationJob, source: GenerationJob) -> str:
        """Add a job that is completed at once with the result of an identical one.

        Raises:
            InvalidConfigError: ``source`` has no result; else as ``add_job``.
        """
        validate_new_job(job)
        if source.status is not JobStatus.COMPLETED or source.artifact_uri is None:
            raise InvalidConfigError(f"Job {source.id} has no result to share.")
        if (known := self._replay(job)) is not None:
            return known
        self._share(job, source)
        self._store.insert([job], self._clock())
        self._notify()
        return job.id

    def _share(self, job: GenerationJob, source: GenerationJob) -> None:
        """Complete a new job with another's result."""
        job.status, job.progress = JobStatus.COMPLETED, 1.0
        job.cached_from, job.artifact_uri = source.id, source.artifact_uri
        job.completed_at = job.created_at
        if self._result_ttl_s is not None:
            job.expires_at = instant(self._clock() + self._result_ttl_s)

    def create_batch(
        self,
        prompts: Sequence[str],
        model_name: str,
        *,
        priority: JobPriority = JobPriority.NORMAL,
        **kwargs: Any,
    ) -> list[str]:
        """Add one job a prompt, all or none, and return their ids in order.

        Args:
            prompts: the text prompts.
            model_name: the model to use.
            priority: urgency of all of them.
            **kwargs: generation options, the same for each.
        """
        batch = [
            GenerationJob(
                prompt=prompt, model_name=model_name, config=dict(kwargs), priority=priority
            )
            for prompt in prompts
        ]
        if batch:
            self.add_batch(batch)
        return [job.id for job in batch]

    def add_batch(
        self,
        new_jobs: Sequence[GenerationJob],
        *,
        owner: str = "",
        name: str = "",
        max_pending: int | None = None,
        sources: Mapping[str, GenerationJob] | None = None,
    ) -> str:
        """Add jobs as one batch, all or none, and return the batch's id.

        The first job's ``idempotency_key`` and ``request_hash`` stand for the whole batch: where
        its owner used the key before, nothing is added and the first batch's id comes back.

        Args:
            new_jobs: the jobs; their batch, place in it and owner are set here.
            owner: API key id that the batch belongs to.
            name: what to call it.
            max_pending: refuse it if its owner would have more waiting jobs.
            sources: completed jobs by ``cache_key``, whose results jobs of that key share; see
                ``find_cached_all``.

        Raises:
            InvalidConfigError: no jobs, a bad one among them, or an overlong name.
            IdempotencyConflictError: the key was used for another request.
            QueueFullError: it does not fit.
        """
        if not new_jobs or len(name) > _LONGEST_BATCH_NAME:
            raise InvalidConfigError(
                f"A batch needs jobs, and a name of at most {_LONGEST_BATCH_NAME} characters."
            )
        batch_id = new_job_id()
        for index, job in enumerate(new_jobs):
            job.batch_id, job.batch_index, job.owner = batch_id, index, owner
            validate_new_job(job)
        if (known := self._replayed_batch(new_jobs[0])) is not None:
            return known
        for job in new_jobs:
            source = (sources or {}).get(job.cache_key or "")
            if source is not None:
                self._share(job, source)
        pending = [job for job in new_jobs if job.status is JobStatus.PENDING]
        self._require_room(pending, None if max_pending is None else {owner: max_pending})
        self._batches.insert(batch_id, owner, name, list(new_jobs), self._clock())
        self._room.note_added(len(pending), owner)
        self._notify()
        return batch_id

    def _replayed_batch(self, first: GenerationJob) -> str | None:
        known_id = self._replay(first)
        known = None if known_id is None else self._store.get(known_id)
        return None if known is None else known.batch_id

    def get_batch(self, batch_id: str) -> BatchView | None:
        """Return a batch and how many of its jobs are in which state; None if unknown."""
        return self._batches.get(batch_id)

    def list_batch(self, batch_id: str, cursor: str | None = None, limit: int = 100) -> JobPage:
        """Return a page of a batch's jobs in order, those replaced by ``retry_failed`` left out.

        Raises:
            InvalidConfigError: the cursor is not one that a page gave.
        """
        after = -1 if cursor is None else parse_cursor(cursor)
        found = self._batches.items(batch_id, after, limit + 1)
        page = [self._bound(job) for job in found[:limit]]
        return JobPage(page, str(page[-1].batch_index) if len(found) > limit else None)

    def pause_batch(self, batch_id: str) -> None:
        """Let none of a batch's waiting jobs start; running ones go on.

        Raises:
            JobNotFoundError: no such batch.
        """
        self._set_batch_paused(batch_id, True)

    def resume_batch(self, batch_id: str) -> None:
        """Let a paused batch go on; see ``pause_batch``."""
        self._set_batch_paused(batch_id, False)

    def cancel_batch(self, batch_id: str) -> list[GenerationJob]:
        """Cancel a batch's jobs: waiting ones at once, running ones at their next step.

        Returns:
            The jobs that this concerned, as they now are; a RUNNING one will stop.

        Raises:
            JobNotFoundError: no such batch.
        """
        if self._batches.get(batch_id) is None:
            raise batch_not_found(batch_id)
        concerned = self._store.cancel_all(jobs.c.batch_id == batch_id, self._clock())
        self._notify()
        return concerned

    def retry_failed(
        self, batch_id: str, key: str | None = None, request_hash: str | None = None
    ) -> list[str]:
        """Put a fresh job in the place of each failed one of a batch and return the new ids.

        The failed ones stay on record, marked as superseded. With an idempotency key that replaced
        some before, nothing is added and the ids of then come back.

        Raises:
            JobNotFoundError: no such batch.
            IdempotencyConflictError: the key belongs to another request.
        """
        if self._batches.get(batch_id) is None:
            raise batch_not_found(batch_id)
        ids = self._batches.retry_failed(batch_id, self._clock(), key, request_hash)
        self._notify()
        return ids

    def _set_batch_paused(self, batch_id: str, paused: bool) -> None:
        if not self._batches.set_paused(batch_id, paused, self._clock()):
            raise batch_not_found(batch_id)
        self._notify()

    def _replay(self, job: GenerationJob) -> str | None:
        if job.idempotency_key is None:
            return None
        known = self._store.get_by_key(job.owner, job.idempotency_key)
        if known is None:
            return None
        _require_same_request(job, known)
        return known.id

    @staticmethod
    def _twin(
        job: GenerationJob, first_of_key: dict[tuple[str, str], GenerationJob]
    ) -> GenerationJob | None:
        """Return the earlier job of the same group and key, if any."""
        if job.idempotency_key is None:
            return None
        first = first_of_key.setdefault((job.owner, job.idempotency_key), job)
        if first is job:
            return None
        _require_same_request(job, first)
        return first

    def _insert(
        self, new_jobs: list[GenerationJob], limits: Mapping[str, int] | None = None
    ) -> None:
        self._require_room(new_jobs, limits)
        self._store.insert(new_jobs, self._clock())
        for owner, number in Counter(job.owner for job in new_jobs).items():
            self._room.note_added(number, owner)
        self._notify()

    def _require_room(
        self, new_jobs: list[GenerationJob], limits: Mapping[str, int] | None
    ) -> None:
        self._room.require(len(new_jobs))
        if limits:
            for owner, number in Counter(job.owner for job in new_jobs).items():
                self._room.require(number, owner, limits.get(owner))


def parse_cursor(cursor: str) -> int:
    """Return the number in a page's cursor.

    Raises:
        InvalidConfigError: it is not one that a page gave.
    """
    if not (cursor.isascii() and cursor.isdigit() and len(cursor) <= 18):
        raise InvalidConfigError(
            "The cursor is not valid.", hint="Pass next_cursor of the page before."
        )
    return int(cursor)


def batch_not_found(batch_id: str) -> JobNotFoundError:
    """Return the error for an unknown batch id."""
    return JobNotFoundError(f"There is no batch {batch_id!r}.", hint="Check the id.")


def _require_same_request(job: GenerationJob, known: GenerationJob) -> None:
    if known.request_hash != job.request_hash:
        raise IdempotencyConflictError(
            f"The idempotency key {job.idempotency_key!r} belongs to another request.",
            hint="Use a new key for a new request.",
            details={"job_id": known.id},
        )
