"""What log lines say of the job that they are about, so that a request can be followed by grep."""

from __future__ import annotations

import logging
from typing import Any

from deployments.messages import (
    Done,
    Event,
    Failed,
    Finished,
    FinishRequest,
    Rejected,
    StageRequest,
)
from dream_cad.queue import GenerationJob

logger = logging.getLogger(__name__)


def job_fields(job: GenerationJob) -> dict[str, Any]:
    """Return the ``extra`` of a line about a job: its id, and that of the request that made it."""
    return {"job_id": job.id, "request_id": job.policy.get("request_id") or ""}


def log_stage(stage: str, request: StageRequest, event: Event) -> None:
    """Write a line when a stage has ended, well or not; progress is no line.

    Args:
        stage: what was at work, for example "model triposr".
        request: what it was asked.
        event: what it says.
    """
    fields: dict[str, Any] = {"job_id": request.job_id, "request_id": request.request_id}
    if isinstance(event, Done):
        logger.info("%s done", stage, extra={**fields, "seconds": round(event.seconds, 3)})
    elif isinstance(event, Failed) and event.is_cancelled:
        logger.info("%s cancelled", stage, extra=fields)
    elif isinstance(event, Failed):
        logger.warning("%s failed", stage, extra={**fields, "problem": event.problem["detail"]})


def log_finish(request: FinishRequest, outcome: Finished | Rejected) -> None:
    """Write a line when the finisher has published a result, or refused it."""
    fields: dict[str, Any] = {"job_id": request.job_id, "request_id": request.request_id}
    if isinstance(outcome, Finished):
        seconds = round(sum(outcome.timings.values()), 3)
        logger.info("result published", extra={**fields, "seconds": seconds})
    else:
        gates = ",".join(gate["gate"] for gate in outcome.gates)
        logger.info("result refused", extra={**fields, "gates": gates})
