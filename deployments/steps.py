"""Run a slow synchronous function in a thread and watch it: progress, cancellation, errors."""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import AsyncIterator, Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

from deployments.failures import problem_of
from deployments.messages import Busy, Done, Event, Failed, Progress
from deployments.process import gpu_peak_bytes, reset_gpu_peak
from dream_cad.exceptions import DreamCadError, GenerationCancelledError, GenerationError
from dream_cad.models.base import ProgressCallback

Work = Callable[[ProgressCallback], Any]
_POLL_S = 0.1


class StepRunner:
    """Runs one piece of work at a time in a thread, and stops it at its next step.

    A thread cannot be killed: the work's progress callback raises GenerationCancelledError once
    the job was cancelled. Work that never calls it and outlives the cancellation by ``grace_s``
    makes ``is_stuck`` true, upon which the replica's health check lets Serve replace it.
    """

    def __init__(self, grace_s: float = 30.0) -> None:
        self._pool = ThreadPoolExecutor(1, thread_name_prefix="step")
        self._grace_s = grace_s
        self._flags: dict[str, threading.Event] = {}
        self._stopping: dict[str, float] = {}

    def cancel(self, job_id: str) -> bool:
        """Ask a job's work to stop; returns whether it was at work here."""
        flag = self._flags.get(job_id)
        if flag is None:
            return False
        flag.set()
        return True

    def cancel_all(self) -> None:
        """Ask everything to stop."""
        for flag in self._flags.values():
            flag.set()

    @property
    def is_busy(self) -> bool:
        """Whether work is under way, abandoned work included."""
        return bool(self._flags or self._stopping)

    @property
    def is_stuck(self) -> bool:
        """Whether abandoned work has not ended within the grace time."""
        oldest = min(self._stopping.values(), default=None)
        return oldest is not None and time.monotonic() - oldest > self._grace_s

    async def run(self, job_id: str, work: Work) -> AsyncIterator[Event]:
        """Run ``work``; yields its progress from 0 on, then one Done or Failed; or Busy.

        Busy, and nothing else, says that other work runs.

        Args:
            job_id: name for ``cancel``.
            work: called with the progress callback, in a thread.
        """
        if self.is_busy:
            yield Busy()
            return
        flag = self._flags[job_id] = threading.Event()
        latest: list[Progress] = [Progress(0.0, "")]

        def progress(fraction: float, stage: str) -> None:
            if flag.is_set():
                raise GenerationCancelledError(f"Job {job_id} was cancelled.")
            latest[0] = Progress(min(max(float(fraction), 0.0), 1.0), str(stage))

        told = latest[0]  # before the thread starts: its first word must not pass for told
        future = asyncio.get_running_loop().run_in_executor(self._pool, _timed, work, progress)
        try:
            yield told  # it has begun
            while not future.done():
                await asyncio.wait({future}, timeout=_POLL_S)
                if latest[0] != told:
                    told = latest[0]
                    yield told
            yield _outcome(future)
        finally:
            flag.set()
            self._flags.pop(job_id, None)
            if not future.done():
                self._stopping[job_id] = time.monotonic()
                future.add_done_callback(lambda done: self._forget(job_id, done))

    def _forget(self, job_id: str, abandoned: asyncio.Future[Any]) -> None:
        self._stopping.pop(job_id, None)
        if not abandoned.cancelled():
            abandoned.exception()  # looked at, so that asyncio does not report it as unseen


def _timed(work: Work, progress: ProgressCallback) -> Done:
    progress(0.0, "")
    reset_gpu_peak()
    started = time.monotonic()
    product = work(progress)
    return Done(product, time.monotonic() - started, gpu_peak_bytes())


def _outcome(future: asyncio.Future[Done]) -> Event:
    try:
        return future.result()
    except GenerationCancelledError as error:
        return Failed(problem_of(error), is_retryable=False, is_cancelled=True)
    except DreamCadError as error:
        return Failed(problem_of(error), error.retryable)
    except Exception as error:  # noqa: BLE001 - a model's code fails in any way: its job fails
        wrapped = GenerationError(f"The model failed: {type(error).__name__}: {error}")
        return Failed(problem_of(wrapped), is_retryable=False)
