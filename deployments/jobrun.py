"""One attempt at one job: text stage, model, finisher, and stopping in the middle."""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from ray.serve.handle import DeploymentHandle, DeploymentResponseGenerator

from deployments.calls import cancel_stream, stream_of
from deployments.failures import CLUSTER_ERRORS, failure_of, problem_of
from deployments.gate import PriorityGate
from deployments.messages import Busy, Done, Failed, Finished, FinishRequest, Picture, StageRequest
from deployments.options import split_options
from dream_cad.exceptions import (
    DreamCadError,
    GenerationCancelledError,
    GenerationTimeoutError,
    ServiceUnavailableError,
)
from dream_cad.models.base import GenerationResult
from dream_cad.queue import GenerationJob

_BUSY_PAUSE_S = 0.05


@dataclass(frozen=True)
class Stages:
    """The deployments and limits that the jobs of one model share.

    Attributes:
        model: handle of the model's deployment.
        text: handle of the text stage, for models that need a picture made first.
        text_gate: the text stage's slots.
        finisher: handle of the finisher.
        gate: the model's slots.
        finishing: room for meshes that wait for the finisher; holds the model back beyond it.
        timeout_s: working time of one attempt.
        grace_s: time to stop before it is forced.
        backoff_s: rest of a slot after its replica was lost, times the attempt.
        finish_options: names of the options that the finisher reads.
        receipt: what each result.json says of the server.
    """

    model: DeploymentHandle[Any]
    text: DeploymentHandle[Any] | None
    text_gate: PriorityGate
    finisher: DeploymentHandle[Any]
    gate: PriorityGate
    finishing: asyncio.Semaphore
    timeout_s: float
    grace_s: float
    backoff_s: float
    finish_options: frozenset[str]
    receipt: dict[str, Any]


class StageFailedError(Exception):
    """A stage ended without a product."""

    def __init__(self, failed: Failed) -> None:
        super().__init__(failed.problem.get("detail"))
        self.failed = failed


class JobRun:
    """Works one claimed job through its stages.

    Args:
        job: the job, with its lease token.
        stages: what it runs on.
        on_change: called when progress, stage or slot changed.
    """

    def __init__(self, job: GenerationJob, stages: Stages, on_change: Callable[[], None]) -> None:
        self.job = job
        self._on_change = on_change
        self.has_slot = False
        self.is_abandoned = False
        self.timings: dict[str, float] = {}
        self._stages = stages
        self._stop = asyncio.Event()
        self._at_work: DeploymentHandle[Any] | None = None
        self._started = time.monotonic()

    def stop(self) -> None:
        """Ask the attempt to end at its next step."""
        self._stop.set()

    def abandon(self) -> None:
        """End the attempt without a word to the queue: the lease is another's."""
        self.is_abandoned = True
        self._stop.set()

    @property
    def elapsed_s(self) -> float:
        """Seconds since the claim."""
        return time.monotonic() - self._started

    async def run(self) -> Finished | Failed:
        """Work until the result is published, or say why it is not."""
        work = asyncio.create_task(self._work())
        stop = asyncio.create_task(self._stop.wait())
        try:
            await asyncio.wait(
                {work, stop},
                timeout=self._stages.timeout_s,
                return_when=asyncio.FIRST_COMPLETED,
            )
            if not work.done():
                await self._halt(work)
            elif not self._stop.is_set():
                return work.result()
            return self._stopped()
        finally:
            stop.cancel()
            work.cancel()

    def _stopped(self) -> Failed:
        if self._stop.is_set():
            error: DreamCadError = GenerationCancelledError("The job was cancelled.")
            return Failed(problem_of(error), is_retryable=False, is_cancelled=True)
        error = GenerationTimeoutError(
            f"The job ran past its {self._stages.timeout_s:g} s.",
            hint="Ask for a lower resolution, or raise limits.job_timeout_s.",
        )
        return Failed(problem_of(error), is_retryable=False)

    async def _halt(self, work: asyncio.Task[Finished | Failed]) -> None:
        """Let the stage at work stop by itself; force it after the grace time."""
        if self._at_work is not None:
            with contextlib.suppress(*CLUSTER_ERRORS, TimeoutError):
                cancelled = self._at_work.broadcast("cancel", self.job.id)
                await cancelled.results_async(timeout_s=self._stages.grace_s)
                await asyncio.wait({work}, timeout=self._stages.grace_s)
        work.cancel()
        await asyncio.wait({work})

    async def _work(self) -> Finished | Failed:
        try:
            return await self._through_stages()
        except StageFailedError as error:
            return error.failed

    async def _through_stages(self) -> Finished:
        options = split_options(self.job.config, self._stages.finish_options)
        picture: Picture | None = None
        if self.job.input_uri is None and self._stages.text is not None:
            picture = await self._make_picture(self._stages.text, options.text)
        elif self.job.input_uri is None:
            options.model.update(options.text)
        request = StageRequest(
            self.job.id, self.job.prompt, options.model, self.job.input_uri, picture
        )
        self._tell(self.job.progress, "waiting for the model")
        async with self._stages.gate.slot(self.rank):
            self.has_slot = True
            self._on_change()
            generated = await self._generate(request)
            await self._stages.finishing.acquire()
        try:
            return await self._finish(generated, picture, options.finish)
        finally:
            self._stages.finishing.release()

    @property
    def rank(self) -> tuple[int, int]:
        """Order among waiting jobs: the more urgent, then the older."""
        return -self.job.priority.value, self.job.seq or 0

    async def _make_picture(self, text: DeploymentHandle[Any], options: dict[str, Any]) -> Picture:
        request = StageRequest(self.job.id, self.job.prompt, options)
        async with self._stages.text_gate.slot(self.rank):
            done = await self._stage(text, request, "text to image", (0.0, 0.4))
        self.timings["text_to_image_s"] = round(done.seconds, 4)
        picture: Picture = done.product
        return picture

    async def _generate(self, request: StageRequest) -> GenerationResult:
        begin = 0.0 if request.picture is None else 0.4
        try:
            done = await self._stage(self._stages.model, request, "model", (begin, 0.9))
        except StageFailedError as error:
            # Serve needs seconds to replace a replica; this slot rests, others go on.
            await self._rest_before_retry(error.failed)
            raise
        self.timings["model_s"] = round(done.seconds, 4)
        generated: GenerationResult = done.product
        return generated

    async def _finish(
        self, generated: GenerationResult, picture: Picture | None, options: dict[str, Any]
    ) -> Finished:
        self._tell(0.9, "finishing")
        request = FinishRequest(
            job_id=self.job.id,
            key=f"{self.job.id}-{self.job.attempts}",
            result=generated,
            picture=picture,
            options=options,
            receipt={**self._stages.receipt, "prompt": self.job.prompt, "options": self.job.config},
        )
        try:
            finished: Finished = await self._stages.finisher.finish.remote(request)
        except (*CLUSTER_ERRORS, DreamCadError) as error:
            failed = failure_of(error, "the finisher")
            await self._rest_before_retry(failed)
            raise StageFailedError(failed) from error
        self.timings |= finished.timings
        return finished

    async def _stage(
        self,
        handle: DeploymentHandle[Any],
        request: StageRequest,
        name: str,
        span: tuple[float, float],
    ) -> Done:
        """Run one streaming stage; its progress fills ``span`` of the job's."""
        while True:
            self._tell(span[0], name)
            self._at_work = handle
            try:
                done = await self._follow(stream_of(handle, "generate", request), name, span)
            except (*CLUSTER_ERRORS, DreamCadError) as error:
                raise StageFailedError(failure_of(error, name)) from error
            finally:
                self._at_work = None
            if done is not None:
                return done
            await asyncio.sleep(_BUSY_PAUSE_S)

    async def _follow(
        self, stream: DeploymentResponseGenerator[Any], name: str, span: tuple[float, float]
    ) -> Done | None:
        """Follow a stage to its end; None if the replica was busy and has not begun."""
        begin, end = span
        try:
            async for event in stream:
                if isinstance(event, Busy):
                    return None
                if isinstance(event, Done):
                    return event
                if isinstance(event, Failed):
                    raise StageFailedError(event)
                label = f"{name}: {event.stage}" if event.stage else name
                self._tell(begin + (end - begin) * event.fraction, label)
        finally:
            cancel_stream(stream)
        ended = ServiceUnavailableError(f"The stage {name} ended without a result.")
        raise StageFailedError(Failed(problem_of(ended), is_retryable=True))

    async def _rest_before_retry(self, failed: Failed) -> None:
        if failed.is_retryable:
            await asyncio.sleep(self._stages.backoff_s * self.job.attempts)

    def _tell(self, progress: float, stage: str) -> None:
        self.job.progress = progress
        self.job.stage = stage[:128]
        self._on_change()
