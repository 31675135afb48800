"""The threads of a BatchProcessor: each keeps one worker process busy."""

from __future__ import annotations

import logging
import threading
import time
from dataclasses import dataclass, field
from typing import Any

from dream_cad.exceptions import DreamCadError, JobNotFoundError, LeaseLostError
from dream_cad.queue.generation import ModelSource, problem_of
from dream_cad.queue.job_queue import JobQueue
from dream_cad.queue.jobs import GenerationJob
from dream_cad.queue.problems import WORKER_LOST
from dream_cad.queue.resources import ResourceManager
from dream_cad.queue.worker_process import WorkerProcess

logger = logging.getLogger(__name__)

_IDLE_S = 0.2
_CANCEL_GRACE_S = 30.0
_REPORT_EVERY_S = 0.5
_LOST_DELAY_S = 1.0
_STOPPED = {"type": "worker-stopped", "title": "Worker stopped", "detail": "Processing stopped."}


@dataclass
class Workshop:
    """What the slots of a processor share.

    Attributes:
        queue: the queue.
        resources: divides the GPUs.
        source: how workers make models.
        artifacts: root of the results.
        stop: set when no further job is to be started.
        abandon: set when jobs under way are to be put back.
        gpu_wanted: set while a job waits for a GPU that idle workers hold.
    """

    queue: JobQueue
    resources: ResourceManager
    source: ModelSource
    artifacts: str
    stop: threading.Event = field(default_factory=threading.Event)
    abandon: threading.Event = field(default_factory=threading.Event)
    gpu_wanted: threading.Event = field(default_factory=threading.Event)


class Slot(threading.Thread):
    """Claims jobs and runs them in its worker process, one at a time.

    Not a daemon: the interpreter waits for it, and it ends once the main thread has ended and
    nothing waits any more.
    """

    def __init__(self, name: str, workshop: Workshop) -> None:
        super().__init__(name=name, daemon=False)
        self._shop = workshop
        self._queue = workshop.queue
        self._process: WorkerProcess | None = None
        self._gpu_id: int | None = None

    def run(self) -> None:
        """Work until told to stop."""
        try:
            while not self._shop.stop.is_set():
                try:
                    is_idle = not self._work_once()
                except DreamCadError as error:  # the database is away: its jobs wait for it
                    logger.error("%s: %s", self.name, error)
                    is_idle = True
                if is_idle:
                    if not threading.main_thread().is_alive():
                        return
                    self._rest()
        finally:
            self._dismiss()

    def _work_once(self) -> bool:
        """Run the next job to its end; False if there was none."""
        model = self._process.model_name if self._process is not None else None
        job = self._queue.get_next_job(prefer_model=model)
        if job is None:
            self._queue.requeue_expired()
            return False
        token = job.lease_token or ""
        try:
            process = self._worker_for(job, token)
        except DreamCadError as error:
            self._queue.fail(job.id, token, problem_of(error), gpu_seconds=0.0)
            return True
        if process is None:
            return True
        try:
            process.start(job)
            self._follow(process, job, token)
        except EOFError as error:
            logger.warning("job %s: %s", job.id, error)
            self._dismiss()
            self._queue.retry(job.id, token, WORKER_LOST, _LOST_DELAY_S * job.attempts)
        except (LeaseLostError, JobNotFoundError) as error:
            logger.warning("job %s: %s", job.id, error)
            self._dismiss(at_once=True)
        return True

    def _follow(self, process: WorkerProcess, job: GenerationJob, token: str) -> None:
        """Pass on what the worker says until the job has ended.

        Raises:
            EOFError: the worker died.
            LeaseLostError: the job is somebody else's now.
        """
        reported, kill_at = time.monotonic(), float("inf")
        patience_s = min(self._queue.lease_s / 3, 1.0)
        latest: dict[str, Any] = {"fraction": None, "stage": None}
        while True:
            answer = process.next_answer(min(patience_s, _REPORT_EVERY_S))
            if answer is not None and answer["kind"] != "progress":
                self._record(job, token, answer)
                return
            if self._shop.abandon.is_set():
                self._dismiss(at_once=True)
                self._queue.retry(job.id, token, _STOPPED)
                return
            latest = answer or latest
            now = time.monotonic()
            if now >= kill_at:
                self._dismiss(at_once=True)
                self._queue.confirm_cancelled(job.id, token)
                return
            if now - reported >= _REPORT_EVERY_S or latest["fraction"] == 1.0:
                reported = now
                stage = None if latest["stage"] is None else latest["stage"][:128]
                is_unwanted = self._queue.report_progress(job.id, token, latest["fraction"], stage)
                if is_unwanted and kill_at == float("inf"):
                    process.cancel(job.id)
                    kill_at = now + _CANCEL_GRACE_S

    def _record(self, job: GenerationJob, token: str, answer: dict[str, Any]) -> None:
        seconds = answer["gpu_seconds"]
        if answer["kind"] == "done":
            self._queue.complete(
                job.id,
                token,
                answer["artifact_uri"],
                answer["timings"],
                gpu_seconds=seconds,
                peak_memory_bytes=answer["peak_memory_bytes"],
            )
        elif answer["kind"] == "cancelled":
            self._queue.confirm_cancelled(job.id, token, gpu_seconds=seconds)
        elif answer["is_retryable"]:
            delay_s = _LOST_DELAY_S * job.attempts
            self._queue.retry(job.id, token, answer["problem"], delay_s, gpu_seconds=seconds)
        else:
            self._queue.fail(job.id, token, answer["problem"], gpu_seconds=seconds)

    def _worker_for(self, job: GenerationJob, token: str) -> WorkerProcess | None:
        """Return a worker that has the job's model; None if the job had to be put back."""
        if self._process is not None:
            if self._process.model_name == job.model_name and self._process.is_alive:
                return self._process
            self._dismiss()
        if not self._find_gpu(job, token):
            self._queue.retry(job.id, token, _STOPPED)
            return None
        self._process = WorkerProcess(
            job.model_name, self._shop.source, self._shop.artifacts, self._gpu_id
        )
        return self._process

    def _find_gpu(self, job: GenerationJob, token: str) -> bool:
        """Wait for room on a GPU where there can be some; False if told to stop meanwhile.

        Where no GPU is large enough the model itself decides whether it runs without one.
        """
        resources = self._shop.resources
        while True:
            self._gpu_id = resources.assign_job_to_gpu(self.name, job.model_name)
            if self._gpu_id is not None or not resources.fits_an_empty_gpu(job.model_name):
                return True
            self._shop.gpu_wanted.set()
            if self._shop.stop.wait(_IDLE_S):
                return False
            self._queue.report_progress(job.id, token, 0.0, "waiting for a GPU")

    def _rest(self) -> None:
        if self._shop.gpu_wanted.is_set() and self._process is not None:
            self._dismiss()
        self._shop.stop.wait(_IDLE_S)

    def _dismiss(self, *, at_once: bool = False) -> None:
        """End the worker process and give its GPU back."""
        if self._process is not None:
            if at_once:
                self._process.kill()
            self._process.close()
            self._process = None
        if self._gpu_id is not None:
            self._shop.resources.release_gpu(self._gpu_id, self.name)
            self._shop.gpu_wanted.clear()
            self._gpu_id = None
