"""One claim of a job: its tries, its time limit, and stopping in the middle."""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import Callable
from contextlib import AbstractAsyncContextManager
from datetime import UTC, datetime
from functools import partial
from typing import Any, Protocol

from ray.serve.handle import DeploymentHandle

from deployments.acceptance import Try, plan_tries
from deployments.attempt import Attempt, StageFailedError, Stages, Usage
from deployments.failures import CLUSTER_ERRORS, problem_of
from deployments.gate import Rank
from deployments.messages import Failed, Finished, Picture, Rejected
from dream_cad.exceptions import (
    AcceptanceError,
    DreamCadError,
    GenerationCancelledError,
    GenerationTimeoutError,
    ServiceUnavailableError,
)
from dream_cad.queue import GenerationJob


class Site(Protocol):
    """Where jobs of one model are worked: its stages and its slots."""

    stages: Stages

    def hold_slot(self, run: JobRun) -> AbstractAsyncContextManager[None]:
        """Hold a slot of the model for the length of the block."""


class JobRun:
    """Works one claimed job until a result is published, or says why none is.

    Args:
        job: the job, with its lease token.
        site: the lane of the job's model.
        find_site: the lane of another model that the job's policy names; None if not served.
        on_change: called when progress, stage or slot changed.
    """

    def __init__(
        self,
        job: GenerationJob,
        site: Site,
        find_site: Callable[[str], Site | None],
        on_change: Callable[[], None],
    ) -> None:
        self.job = job
        self.usage = Usage()
        self.at_work: DeploymentHandle[Any] | None = None
        self.has_slot = False
        self.begun = asyncio.Event()
        self.is_reserved = False
        self.needs_slot = True
        self.is_at_gate = False
        self.is_abandoned = False
        self._site = site
        self._find_site = find_site
        self._on_change = on_change
        self._stop = asyncio.Event()
        self._started = time.monotonic()
        self._label = ""
        self._published: list[Finished] = []

    def stop(self) -> None:
        """Ask the attempt to end at its next step."""
        self._stop.set()

    def abandon(self) -> None:
        """End the attempt without a word to the queue: the lease is another's."""
        self.is_abandoned = True
        self._stop.set()

    def take_slot(self) -> None:
        """Note that the model's slot is held, for a try that has yet to begin there."""
        self.has_slot = True
        self.begun.clear()

    def leave_slot(self) -> None:
        """Note that the slot is held no more."""
        self.has_slot = False
        self.begun.set()

    @property
    def elapsed_s(self) -> float:
        """Seconds since the claim."""
        return time.monotonic() - self._started

    @property
    def level(self) -> int:
        """Effective priority: the job's own, raised by waiting."""
        return self.job.priority.value if self.job.level is None else self.job.level

    @property
    def rank(self) -> Rank:
        """Order among waiting jobs: the more urgent, then the older."""
        return -self.level, self.job.seq or 0

    def tell(self, progress: float, stage: str) -> None:
        """Note progress."""
        self.job.progress = progress
        self.job.stage = f"{self._label}{stage}"[:128]
        self._on_change()

    async def run(self) -> Finished | Failed:
        """Work until the result is published, or say why it is not."""
        work = asyncio.create_task(self._work())
        stop = asyncio.create_task(self._stop.wait())
        try:
            await asyncio.wait(
                {work, stop}, timeout=self._time_left(), return_when=asyncio.FIRST_COMPLETED
            )
            if not work.done():
                await self._halt(work)
            elif not self._stop.is_set():
                return _unless_cancelled(work.result())
            self._note_product(work)
            await self._discard_published()
            return self._stopped()
        finally:
            stop.cancel()
            work.cancel()

    def _time_left(self) -> float:
        limit = self._site.stages.timeout_s
        if self.job.deadline is None:
            return limit
        return max(min(limit, (self.job.deadline - datetime.now(UTC)).total_seconds()), 0.0)

    def _stopped(self) -> Failed:
        if self._stop.is_set():
            error: DreamCadError = GenerationCancelledError("The job was cancelled.")
            return Failed(problem_of(error), is_retryable=False, is_cancelled=True)
        if self.job.deadline is not None and datetime.now(UTC) >= self.job.deadline:
            error = GenerationTimeoutError(
                "The job did not end by its deadline.", hint="Allow more time."
            )
        else:
            error = GenerationTimeoutError(
                f"The job ran past its {self._site.stages.timeout_s:g} s.",
                hint="Ask for a lower resolution, or raise limits.job_timeout_s.",
            )
        return Failed(problem_of(error), is_retryable=False)

    async def _halt(self, work: asyncio.Task[Finished | Failed]) -> None:
        """Let the stage at work stop by itself; force it after the grace time."""
        grace_s = self._site.stages.grace_s
        if self.at_work is not None:
            with contextlib.suppress(*CLUSTER_ERRORS, TimeoutError):
                cancelled = self.at_work.broadcast("cancel", self.job.id)
                await cancelled.results_async(timeout_s=grace_s)
                await asyncio.wait({work}, timeout=grace_s)
        work.cancel()
        await asyncio.wait({work})

    async def _work(self) -> Finished | Failed:
        policy = self.job.policy
        tries = plan_tries(policy, self.job.model_name, self.job.config.get("seed"))
        is_best = policy.get("pick") == "best"
        refused: list[dict[str, Any]] = []
        pictures: dict[int | None, Picture] = {}
        for number, chosen in enumerate(tries):
            self._label = f"try {number + 1} of {len(tries)}, " if len(tries) > 1 else ""
            try:
                outcome = await self._attempt(number, chosen, pictures, is_ranked=is_best)
            except StageFailedError as error:
                failed = error.failed
                if failed.is_retryable or failed.is_cancelled or len(tries) == 1:
                    await self._discard_published()  # another attempt begins anew
                    return failed
                refused.append(_refusal(chosen, [{"gate": "generation", **failed.problem}]))
                continue
            if isinstance(outcome, Rejected):
                refused.append(_refusal(chosen, outcome.gates))
            elif not is_best:
                return outcome
            else:
                self._published.append(outcome)
        if self._published:
            return await self._best()
        return Failed(problem_of(_acceptance_error(refused)), is_retryable=False)

    async def _attempt(
        self, number: int, chosen: Try, pictures: dict[int | None, Picture], *, is_ranked: bool
    ) -> Finished | Rejected:
        site = self._site
        if chosen.model != self.job.model_name:
            other = self._find_site(chosen.model)
            if other is None:
                return Rejected([{"gate": "model", "wanted": chosen.model, "measured": "not here"}])
            site = other
        key = f"{self.job.id}-{self.job.attempts}" + (f"-{number}" if number else "")
        hold = partial(site.hold_slot, self)
        attempt = Attempt(self, site.stages, hold, key, pictures)
        return await attempt.work(chosen, is_ranked=is_ranked)

    async def _best(self) -> Finished:
        """Keep the result of the highest quality and discard the others."""
        best = max(self._published, key=lambda one: one.quality or 0.0)
        self._published.remove(best)
        await self._discard_published()
        return best

    def _note_product(self, work: asyncio.Task[Finished | Failed]) -> None:
        """Note what was published in the moment of stopping."""
        if work.cancelled() or work.exception() is not None:
            return
        outcome = work.result()
        if isinstance(outcome, Finished):
            self._published.append(outcome)

    async def _discard_published(self) -> None:
        while self._published:
            await self.discard(self._published.pop())

    async def discard(self, finished: Finished) -> None:
        """Delete a published result that is nobody's."""
        with contextlib.suppress(*CLUSTER_ERRORS, DreamCadError):
            await self._site.stages.finisher.discard.remote(finished.key)


def _unless_cancelled(outcome: Finished | Failed) -> Finished | Failed:
    """A stage that was stopped though nobody asked works for another router now: try again."""
    if isinstance(outcome, Finished) or not outcome.is_cancelled:
        return outcome
    error = ServiceUnavailableError("The work was stopped by another router that took over.")
    return Failed(problem_of(error), is_retryable=True)


def _refusal(chosen: Try, gates: list[dict[str, Any]]) -> dict[str, Any]:
    return {"model": chosen.model, "seed": chosen.seed, "failed": gates}


def _acceptance_error(refused: list[dict[str, Any]]) -> AcceptanceError:
    names = sorted({gate["gate"] for one in refused for gate in one["failed"]})
    return AcceptanceError(
        f"None of {len(refused)} tries was accepted; failed: {', '.join(names)}.",
        hint="Lower what is required, raise max_tries, or name more models.",
        details={"tries": refused},
    )
