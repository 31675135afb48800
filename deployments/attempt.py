"""One try at a job on one model: text stage, model, finisher."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass, field
from typing import Any, Protocol

from ray.serve.handle import DeploymentHandle, DeploymentResponseGenerator

from deployments.acceptance import Try
from deployments.calls import cancel_stream, stream_of
from deployments.failures import CLUSTER_ERRORS, failure_of, problem_of
from deployments.gate import PriorityGate, Rank
from deployments.joblog import job_fields
from deployments.messages import (
    Busy,
    Done,
    Failed,
    Finished,
    FinishRequest,
    Picture,
    Rejected,
    StageRequest,
)
from deployments.options import split_options
from dream_cad.exceptions import DreamCadError, ServiceUnavailableError
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
        text_options: options of the text stage, and its argument that each becomes.
        receipt: what each result.json says of the server.
        gpu_share: GPUs that a second of the model costs; 1 without a GPU.
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
    text_options: dict[str, str]
    receipt: dict[str, Any]
    gpu_share: float = 1.0


class StageFailedError(Exception):
    """A stage ended without a product."""

    def __init__(self, failed: Failed) -> None:
        super().__init__(failed.problem.get("detail"))
        self.failed = failed


class Worker(Protocol):
    """What a try needs of the run that it is part of."""

    job: GenerationJob
    usage: Usage
    at_work: DeploymentHandle[Any] | None
    begun: asyncio.Event

    @property
    def rank(self) -> Rank:
        """Order among waiting jobs."""

    def tell(self, progress: float, stage: str) -> None:
        """Note progress."""


@dataclass
class Usage:
    """What a run has cost so far."""

    timings: dict[str, float] = field(default_factory=dict)
    gpu_seconds: float = 0.0
    peak_memory_bytes: int | None = None

    def add(self, name: str, done: Done, share: float) -> None:
        """Count the seconds and memory of a stage."""
        self.timings[name] = round(self.timings.get(name, 0.0) + done.seconds, 4)
        self.gpu_seconds += done.seconds * share
        if done.peak_memory_bytes is not None:
            self.peak_memory_bytes = max(self.peak_memory_bytes or 0, done.peak_memory_bytes)


HoldSlot = Callable[[], AbstractAsyncContextManager[None]]


class Attempt:
    """Works one try through the stages of its model.

    Args:
        worker: the run that it is part of.
        stages: of the try's model.
        hold_slot: gives a slot of the model for the length of a block.
        key: where the result is published.
        pictures: pictures made for this job, by seed; shared by its tries.
    """

    def __init__(
        self,
        worker: Worker,
        stages: Stages,
        hold_slot: HoldSlot,
        key: str,
        pictures: dict[int | None, Picture],
    ) -> None:
        self._worker = worker
        self._job = worker.job
        self._stages = stages
        self._hold_slot = hold_slot
        self._key = key
        self._pictures = pictures
        self._request_id: str = job_fields(self._job)["request_id"]

    async def work(self, chosen: Try, *, is_ranked: bool) -> Finished | Rejected:
        """Work until the result is published or did not pass the job's gates.

        Raises:
            StageFailedError: a stage failed.
        """
        config = dict(self._job.config)
        if chosen.seed is not None:
            config["seed"] = chosen.seed
        stages = self._stages
        options = split_options(config, stages.finish_options, stages.text_options)
        picture: Picture | None = None
        if stages.text is not None and not self._has_picture():
            picture = await self._picture(stages.text, options.text, chosen.seed)
        request = StageRequest(
            self._job.id,
            self._job.prompt,
            options.model,
            self._job.input_uri,
            bool(self._job.policy.get("mesh")),
            tuple(self._job.policy.get("views") or ()),
            picture,
            request_id=self._request_id,
        )
        self._worker.tell(self._job.progress, "waiting for the model")
        async with self._hold_slot():
            generated = await self._generate(request)
            await stages.finishing.acquire()
        try:
            return await self._finish(generated, picture, options.finish, config, is_ranked)
        finally:
            stages.finishing.release()

    def _has_picture(self) -> bool:
        """Whether a picture came with the request; a mesh to texture may come without."""
        policy = self._job.policy
        return self._job.input_uri is not None and (
            not policy.get("mesh") or bool(policy.get("picture"))
        )

    async def _picture(
        self, text: DeploymentHandle[Any], options: dict[str, Any], seed: int | None
    ) -> Picture:
        if seed in self._pictures:
            return self._pictures[seed]
        request = StageRequest(self._job.id, self._job.prompt, options, request_id=self._request_id)
        async with self._stages.text_gate.slot(self._worker.rank):
            done = await self._stage(text, request, "text to image", (0.0, 0.4))
        self._worker.usage.add("text_to_image_s", done, self._stages.gpu_share)
        picture: Picture = done.product
        self._pictures[seed] = picture
        return picture

    async def _generate(self, request: StageRequest) -> GenerationResult:
        begin = 0.0 if request.picture is None else 0.4
        started = time.monotonic()
        try:
            done = await self._stage(self._stages.model, request, "model", (begin, 0.9))
        except StageFailedError as error:
            # Nobody measured it, but the slot was taken: a job that fails is not for free.
            self._worker.usage.gpu_seconds += (time.monotonic() - started) * self._stages.gpu_share
            # Serve needs seconds to replace a replica; this slot rests, others go on.
            await self._rest_before_retry(error.failed)
            raise
        self._worker.usage.add("model_s", done, self._stages.gpu_share)
        generated: GenerationResult = done.product
        return generated

    async def _finish(
        self,
        generated: GenerationResult,
        picture: Picture | None,
        options: dict[str, Any],
        config: dict[str, Any],
        is_ranked: bool,
    ) -> Finished | Rejected:
        self._worker.tell(0.9, "finishing")
        request = FinishRequest(
            job_id=self._job.id,
            key=self._key,
            result=generated,
            picture=picture,
            options=options,
            receipt={**self._stages.receipt, "prompt": self._job.prompt, "options": config},
            require=dict(self._job.policy.get("require") or {}),
            is_ranked=is_ranked,
            request_id=self._request_id,
        )
        try:
            finished: Finished | Rejected = await self._stages.finisher.finish.remote(request)
        except (*CLUSTER_ERRORS, DreamCadError) as error:
            failed = failure_of(error, "the finisher")
            await self._rest_before_retry(failed)
            raise StageFailedError(failed) from error
        if isinstance(finished, Finished):
            self._worker.usage.timings |= finished.timings
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
            self._worker.tell(span[0], name)
            self._worker.at_work = handle
            try:
                done = await self._follow(stream_of(handle, "generate", request), name, span)
            except (*CLUSTER_ERRORS, DreamCadError) as error:
                raise StageFailedError(failure_of(error, name)) from error
            finally:
                self._worker.at_work = None
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
                self._worker.begun.set()
                if isinstance(event, Done):
                    return event
                if isinstance(event, Failed):
                    raise StageFailedError(event)
                label = f"{name}: {event.stage}" if event.stage else name
                self._worker.tell(begin + (end - begin) * event.fraction, label)
        finally:
            cancel_stream(stream)
        ended = ServiceUnavailableError(f"The stage {name} ended without a result.")
        raise StageFailedError(Failed(problem_of(ended), is_retryable=True))

    async def _rest_before_retry(self, failed: Failed) -> None:
        if failed.is_retryable:
            await asyncio.sleep(self._stages.backoff_s * self._job.attempts)
