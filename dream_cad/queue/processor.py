"""Batch processing without a cluster: worker processes on this machine work off a queue."""

from __future__ import annotations

import threading
from collections.abc import Sequence
from typing import Any

from dream_cad.artifacts import ArtifactStore
from dream_cad.exceptions import (
    DreamCadError,
    GenerationCancelledError,
    InvalidConfigError,
    JobStateError,
    LeaseLostError,
)
from dream_cad.queue.entry import CREATE_MODEL
from dream_cad.queue.generation import ModelHolder, ModelSource, Stopwatch, problem_of
from dream_cad.queue.job_queue import JobQueue
from dream_cad.queue.jobs import GenerationJob
from dream_cad.queue.resources import ResourceManager
from dream_cad.queue.results import default_artifacts_root, publish_result
from dream_cad.queue.slots import Slot, Workshop

_MOST_WORKERS = 64


class BatchProcessor:
    """Works off a queue in background processes, each of which owns one model.

    This process claims the jobs, keeps their leases alive and records how they end; a worker
    process that dies costs its job one attempt. At the end of the program the jobs that wait are
    worked off first, unless ``stop_processing`` was called.

    Args:
        queue: the queue.
        resource_manager: divides the GPUs.
        create: ``module:name`` of the function that makes a model by name.
        modules: modules imported first, here and in workers, for their ``@register_model``.
        artifacts: where results go; by default where servers put theirs.
    """

    def __init__(
        self,
        queue: JobQueue,
        resource_manager: ResourceManager | None = None,
        *,
        create: str = CREATE_MODEL,
        modules: Sequence[str] = (),
        artifacts: str | None = None,
    ) -> None:
        self._queue = queue
        self._source = ModelSource(create, tuple(modules))
        self._source.import_modules()  # what a model needs of a GPU is asked here
        root = artifacts or default_artifacts_root()
        self._artifacts = ArtifactStore(root)
        self._workshop = Workshop(
            queue=queue,
            resources=resource_manager or ResourceManager(),
            source=self._source,
            artifacts=root,
        )
        self._slots: list[Slot] = []
        self._holder: ModelHolder | None = None
        self._local = threading.Lock()

    @property
    def is_processing(self) -> bool:
        """Whether workers are at work or wait for it."""
        return any(slot.is_alive() for slot in self._slots)

    def start_processing(self, num_workers: int = 1) -> None:
        """Start working off the queue in the background; returns at once.

        Args:
            num_workers: processes at most; each starts with its first job.

        Raises:
            InvalidConfigError: ``num_workers`` is not 1 to 64.
            JobStateError: it works already.
        """
        if not 1 <= num_workers <= _MOST_WORKERS:
            raise InvalidConfigError(f"num_workers is {num_workers}; it must be 1-{_MOST_WORKERS}.")
        if self.is_processing:
            raise JobStateError("The processor works already.", hint="Call stop_processing first.")
        self._workshop.stop.clear()
        self._slots = [Slot(f"worker-{number}", self._workshop) for number in range(num_workers)]
        for slot in self._slots:
            slot.start()

    def stop_processing(self, timeout_s: float | None = None) -> None:
        """Start no further job, let those under way end, and return when all have.

        Args:
            timeout_s: after so many seconds the jobs under way are put back and their processes
                killed; None to wait for them.
        """
        self._workshop.stop.set()
        for slot in self._slots:
            slot.join(timeout_s)
        for slot in self._slots:
            if slot.is_alive():
                self._workshop.abandon.set()
                slot.join()
        self._workshop.abandon.clear()
        self._slots = []

    def process_job(self, job: GenerationJob) -> Any:
        """Process one job in this process and return its GenerationResult.

        A job of the queue is claimed unless the caller did (``get_next_job``), and its end is
        recorded. The model of the last job is kept.

        Raises:
            JobStateError: the job is not pending and not claimed by the caller.
            LeaseLostError: another worker has the job now.
            DreamCadError: the generation failed; the job says so too.
        """
        if job.lease_token is None:
            claimed = self._queue.claim_job(job.id)
            if claimed is None:
                raise JobStateError(f"Job {job.id} is not pending.", hint="Add it to the queue.")
            job = claimed
        with self._local:
            return self._process(job, job.lease_token or "")

    def _process(self, job: GenerationJob, token: str) -> Any:
        if self._holder is None:
            self._holder = ModelHolder(self._source, self._artifacts)
        watch = Stopwatch()

        def progress(fraction: float, stage: str) -> None:
            if self._queue.report_progress(job.id, token, fraction, stage[:128]):
                raise GenerationCancelledError(f"Job {job.id} was cancelled.")

        try:
            with _Heartbeat(self._queue, job.id, token):
                result = self._holder.generate(job, progress)
                made_s = watch.seconds
                uri = publish_result(self._artifacts, job, result)
        except GenerationCancelledError:
            self._queue.confirm_cancelled(job.id, token, gpu_seconds=watch.seconds)
            raise
        except LeaseLostError:
            raise
        except DreamCadError as error:
            self._queue.fail(job.id, token, problem_of(error), gpu_seconds=watch.seconds)
            raise
        self._queue.complete(
            job.id,
            token,
            uri,
            {"model_s": round(made_s, 4)},
            gpu_seconds=made_s,
            peak_memory_bytes=watch.peak_memory_bytes,
        )
        return result


class _Heartbeat:
    """Keeps the lease of a job alive while this thread works on it."""

    def __init__(self, queue: JobQueue, job_id: str, token: str) -> None:
        self._queue, self._job_id, self._token = queue, job_id, token
        self._done = threading.Event()
        self._thread = threading.Thread(target=self._beat, daemon=True)

    def __enter__(self) -> None:
        self._thread.start()

    def __exit__(self, *_: object) -> None:
        self._done.set()
        self._thread.join()

    def _beat(self) -> None:
        while not self._done.wait(self._queue.lease_s / 3):
            try:
                self._queue.report_progress(self._job_id, self._token)
            except DreamCadError as error:
                if not error.retryable:
                    return  # the lease is lost: the next progress of the work says so
