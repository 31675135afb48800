"""BatchProcessor with real worker processes and models without weights."""

from __future__ import annotations

import os
import subprocess
import sys
import textwrap
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import psutil
import pytest

from dream_cad.exceptions import (
    CheckpointError,
    GenerationError,
    InvalidConfigError,
    JobStateError,
    StorageError,
)
from dream_cad.models.base import GenerationResult
from dream_cad.queue import (
    BatchProcessor,
    GenerationJob,
    GPUInfo,
    JobPriority,
    JobQueue,
    JobStatus,
    ResourceManager,
)
from tests.unit.queue.conftest import make_job
from tests.unit.queue.worker_models import CREATE

MakeProcessor = Callable[..., BatchProcessor]
NO_GPU = ResourceManager(discover=lambda: [], memory_of=lambda _: 6.0)
PATIENCE_S = 120.0


@pytest.fixture
def queue(sqlite_url: str) -> Iterator[JobQueue]:
    queue = JobQueue(sqlite_url)
    yield queue
    queue.close()


@pytest.fixture
def make_processor(queue: JobQueue) -> Iterator[MakeProcessor]:
    made: list[BatchProcessor] = []

    def make(resources: ResourceManager = NO_GPU) -> BatchProcessor:
        made.append(BatchProcessor(queue, resources, create=CREATE))
        return made[-1]

    yield make
    for processor in made:
        processor.stop_processing(timeout_s=1.0)


def end_of(queue: JobQueue, job_id: str) -> GenerationJob:
    job = queue.wait(job_id, PATIENCE_S)
    assert job.status.is_final
    return job


def test_a_batch_is_worked_off_in_the_background(
    queue: JobQueue, make_processor: MakeProcessor
) -> None:
    ids = queue.create_batch(["a", "b", "c"], "box", seed=7)
    processor = make_processor()
    processor.start_processing(num_workers=2)
    assert processor.is_processing
    jobs = [end_of(queue, job_id) for job_id in ids]
    assert [job.status for job in jobs] == [JobStatus.COMPLETED] * 3
    results = [job.result for job in jobs]
    assert all(isinstance(result, GenerationResult) for result in results)
    assert all(result.faces.shape == (4, 3) for result in results)
    assert all(result.metadata["seed"] == 7 for result in results)
    pids = {result.metadata["pid"] for result in results}
    assert 1 <= len(pids) <= 2
    assert os.getpid() not in pids
    assert all(job.timings["model_s"] >= 0 for job in jobs)
    processor.stop_processing()
    assert not processor.is_processing
    assert not [pid for pid in pids if psutil.pid_exists(pid)]


def test_a_worker_keeps_its_model_and_a_new_model_gets_a_new_one(
    queue: JobQueue, make_processor: MakeProcessor
) -> None:
    ids = [queue.add_job(make_job(name, model_name=name)) for name in ("x", "y", "x")]
    make_processor().start_processing()
    first, other, second = (end_of(queue, job_id).result.metadata["pid"] for job_id in ids)
    assert first == second != other


def test_a_worker_that_dies_costs_an_attempt(
    queue: JobQueue, make_processor: MakeProcessor, tmp_path: Path
) -> None:
    once = queue.add_job(make_job(f"crash-once {tmp_path / 'crashed'}"))
    poison = queue.add_job(make_job("crash", max_attempts=1))
    good = queue.add_job(make_job("good"))
    make_processor().start_processing()
    job = end_of(queue, once)
    assert (job.status, job.attempts) == (JobStatus.COMPLETED, 2)
    lost = end_of(queue, poison)
    assert lost.status is JobStatus.FAILED
    assert lost.problem is not None
    assert lost.problem["type"] == "worker-lost"
    assert end_of(queue, good).status is JobStatus.COMPLETED


def test_failures_are_told(queue: JobQueue, make_processor: MakeProcessor) -> None:
    broken = queue.add_job(make_job("break"))
    refused = queue.add_job(make_job("refuse"))
    missing = queue.add_job(make_job("a", model_name="missing"))
    make_processor().start_processing(num_workers=2)
    jobs = [end_of(queue, job_id) for job_id in (broken, refused, missing)]
    assert [job.status for job in jobs] == [JobStatus.FAILED] * 3
    types = [job.problem["type"] for job in jobs if job.problem]
    assert types == ["generation-failed", "checkpoint-invalid", "model-not-found"]
    assert "ValueError: not my day" in str(jobs[0].error)
    assert jobs[0].result is None


def test_a_running_job_can_be_cancelled(
    queue: JobQueue, make_processor: MakeProcessor, tmp_path: Path
) -> None:
    job_id = queue.add_job(make_job(f"until-cancelled {tmp_path / 'began'}"))
    make_processor().start_processing()
    while queue.get_job_status(job_id) is not JobStatus.RUNNING:
        os.sched_yield()
    queue.cancel(job_id)
    job = end_of(queue, job_id)
    assert (job.status, job.attempts) == (JobStatus.CANCELLED, 1)


def test_stopping_in_time_puts_the_job_back(
    queue: JobQueue, make_processor: MakeProcessor, tmp_path: Path
) -> None:
    began = tmp_path / "began"
    job_id = queue.add_job(make_job(f"until-cancelled {began}"))
    processor = make_processor()
    processor.start_processing()
    while not began.exists():
        os.sched_yield()
    processor.stop_processing(timeout_s=0.0)
    job = queue.get_job(job_id)
    assert job is not None
    assert (job.status, job.error) == (JobStatus.PENDING, "Processing stopped.")


def test_process_job_works_here(queue: JobQueue, make_processor: MakeProcessor) -> None:
    processor = make_processor()
    job = make_job("a", JobPriority.HIGH)
    queue.add_job(job)
    result = processor.process_job(job)
    assert result.metadata["pid"] == os.getpid()
    stored = queue.get_job(job.id)
    assert stored is not None
    assert stored.status is JobStatus.COMPLETED
    assert stored.result.model_name == "triposr"
    with pytest.raises(JobStateError, match="not pending"):
        processor.process_job(job)


@pytest.mark.parametrize(
    ("prompt", "error"), [("break", GenerationError), ("refuse", CheckpointError)]
)
def test_process_job_records_and_raises(
    queue: JobQueue, make_processor: MakeProcessor, prompt: str, error: type[Exception]
) -> None:
    queue.add_job(make_job(prompt))
    job = queue.get_next_job()
    assert job is not None
    with pytest.raises(error):
        make_processor().process_job(job)
    assert queue.get_job_status(job.id) is JobStatus.FAILED


def test_bad_use_is_refused(make_processor: MakeProcessor) -> None:
    processor = make_processor()
    for number in (0, 65):
        with pytest.raises(InvalidConfigError):
            processor.start_processing(number)
    processor.start_processing()
    with pytest.raises(JobStateError):
        processor.start_processing()


def test_workers_see_the_gpu_that_they_were_given(
    queue: JobQueue, make_processor: MakeProcessor
) -> None:
    gpus = [GPUInfo(number, "card", 10.0, 1.0, 0.0, 40.0) for number in range(2)]
    resources = ResourceManager(discover=lambda: gpus, memory_of=lambda _: 6.0)
    ids = queue.create_batch(["a", "b"], "box")
    processor = make_processor(resources)
    processor.start_processing(num_workers=1)
    assert {end_of(queue, job_id).result.metadata["gpu"] for job_id in ids} == {"0"}
    processor.stop_processing()
    assert resources.can_model_run("box", 0)


def test_a_deleted_artifact_is_an_error_not_a_lie(
    queue: JobQueue, make_processor: MakeProcessor
) -> None:
    job = make_job("a")
    queue.add_job(job)
    make_processor().process_job(job)
    queue.forget_result(job.id)
    stored = queue.get_job(job.id)
    assert stored is not None
    with pytest.raises(StorageError, match="expired"):
        _ = stored.result


SCRIPT = """
from dream_cad.queue import BatchProcessor, JobQueue, ResourceManager
queue = JobQueue({url!r})
queue.create_batch(["a", "b"], "box")
BatchProcessor(queue, ResourceManager(discover=lambda: []), create={create!r}).start_processing(2)
print("started")
"""


def test_a_script_ends_when_its_jobs_have(queue: JobQueue, tmp_path: Path) -> None:
    """Without a main guard, as the API reference shows it."""
    path = tmp_path / "script.py"
    path.write_text(textwrap.dedent(SCRIPT.format(url=queue.database_url, create=CREATE)))
    environment = {**os.environ, "PYTHONPATH": str(Path(__file__).parents[3])}
    subprocess.run([sys.executable, str(path)], check=True, env=environment, timeout=PATIENCE_S)
    assert queue.count(JobStatus.COMPLETED) == 2
    assert threading.active_count() >= 1
