"""A request can be followed by its id: every stage names it beside the job's."""

from __future__ import annotations

import io
import logging
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from deployments.joblog import job_fields, log_finish, log_stage
from deployments.messages import Done, Failed, FinishRequest, Progress, Rejected, StageRequest
from deployments.model import ModelReplica
from deployments.stages import MeshFinisher
from dream_cad.log import LOGGER_NAMES, configure_logging
from dream_cad.models.base import GenerationResult
from dream_cad.queue import GenerationJob

IDS = "job_id=job-1 request_id=req-1"
MESH = GenerationResult(
    vertices=np.eye(3, dtype=np.float32), faces=np.array([[0, 1, 2]], np.int32), model_name="echo"
)


@pytest.fixture
def log() -> Iterator[io.StringIO]:
    """What is logged from the moment on at which a test calls ``configure_logging(log)``."""
    loggers = [logging.getLogger(name) for name in LOGGER_NAMES]
    before = [(one, one.level, one.propagate, list(one.handlers)) for one in loggers]
    yield io.StringIO()
    for one, level, propagate, handlers in before:
        one.setLevel(level)
        one.propagate, one.handlers = propagate, handlers


def finish_request(**fields: Any) -> FinishRequest:
    return FinishRequest(
        "job-1", "key", MESH, picture=None, options={}, receipt={}, request_id="req-1", **fields
    )


def test_a_job_names_the_request_that_queued_it() -> None:
    job = GenerationJob(prompt="x", model_name="echo", policy={"request_id": "req-1"})
    assert job_fields(job) == {"job_id": job.id, "request_id": "req-1"}
    assert job_fields(GenerationJob(prompt="x", model_name="echo"))["request_id"] == ""


async def test_the_model_says_what_it_has_done_and_for_whom(
    tmp_path: Path, log: io.StringIO
) -> None:
    replica = ModelReplica("echo", {}, ["tests.cluster.echo_model"], str(tmp_path), 0.0)
    configure_logging(log)
    for options in ({}, {"fail": "error"}):
        request = StageRequest("job-1", "a cube", options, request_id="req-1")
        async for _ in replica.generate(request):
            pass
    done, failed = log.getvalue().splitlines()
    assert f"INFO deployments.joblog: model echo done {IDS} seconds=" in done
    assert f"WARNING deployments.joblog: model echo failed {IDS} problem=" in failed
    assert "came out round" in failed


async def test_the_finisher_says_what_it_published_or_refused(
    tmp_path: Path, log: io.StringIO
) -> None:
    finisher = MeshFinisher(str(tmp_path), 1, 16)
    configure_logging(log)
    await finisher.finish(finish_request())
    await finisher.finish(finish_request(require={"watertight": True}))
    published, refused = log.getvalue().splitlines()
    assert f"result published {IDS} seconds=" in published
    assert f"result refused {IDS} gates=watertight" in refused


def test_progress_is_no_line_and_a_cancellation_no_warning(log: io.StringIO) -> None:
    configure_logging(log)
    request = StageRequest("job-1", request_id="req-1")
    log_stage("model", request, Progress(0.5, "sampling"))
    log_stage("model", request, Failed({}, is_retryable=False, is_cancelled=True))
    log_stage("model", request, Done(MESH, 1.23456))
    log_finish(finish_request(), Rejected([{"gate": "a"}, {"gate": "b"}]))
    lines = [line.partition(" ")[2] for line in log.getvalue().splitlines()]
    assert lines == [
        f"INFO deployments.joblog: model cancelled {IDS}",
        f"INFO deployments.joblog: model done {IDS} seconds=1.235",
        f"INFO deployments.joblog: result refused {IDS} gates=a,b",
    ]
