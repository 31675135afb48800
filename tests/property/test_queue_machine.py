"""The queue against a model of itself: any order of verbs, clock jumps and restarts."""

from __future__ import annotations

import shutil
import tempfile
from dataclasses import dataclass
from pathlib import Path

import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    Bundle,
    RuleBasedStateMachine,
    invariant,
    multiple,
    precondition,
    rule,
)

from dream_cad.exceptions import JobStateError, LeaseLostError
from dream_cad.queue import GenerationJob, JobPriority, JobQueue, JobStatus

LEASE_S = 30.0
MEMORY = "/dev/shm" if Path("/dev/shm").is_dir() else None  # hundreds of fsyncs, none of interest
MODELS = ["triposr", "trellis"]
PROBLEM = {"type": "worker-lost", "detail": "lost"}


@dataclass
class Expected:
    """What the queue must say about one job."""

    model: str
    priority: int
    order: int
    max_attempts: int
    status: JobStatus = JobStatus.PENDING
    attempts: int = 0
    token: str | None = None
    lease_until: float = 0.0
    is_cancelled: bool = False
    results: int = 0


class QueueMachine(RuleBasedStateMachine):
    claims: Bundle[tuple[str, str]] = Bundle("claims")

    def __init__(self) -> None:
        super().__init__()
        self.now = 1_800_000_000.0
        self.folder = tempfile.mkdtemp(prefix="queue-machine-", dir=MEMORY)
        self.expected: dict[str, Expected] = {}
        self.is_paused = False
        self.queue = self.open()

    def open(self) -> JobQueue:
        url = f"sqlite:///{Path(self.folder) / 'jobs.sqlite3'}"
        return JobQueue(url, lease_s=LEASE_S, clock=lambda: self.now)

    def teardown(self) -> None:
        self.queue.close()
        shutil.rmtree(self.folder)

    @rule(
        model=st.sampled_from(MODELS),
        priority=st.sampled_from(JobPriority),
        max_attempts=st.integers(1, 3),
    )
    def add(self, model: str, priority: JobPriority, max_attempts: int) -> None:
        job = GenerationJob(
            prompt="x", model_name=model, priority=priority, max_attempts=max_attempts
        )
        self.queue.add_job(job)
        self.expected[job.id] = Expected(model, priority.value, len(self.expected), max_attempts)

    @rule(target=claims, model=st.sampled_from([None, *MODELS]))
    def claim(self, model: str | None) -> object:
        job = self.queue.get_next_job(model)
        waiting = [
            (-row.priority, row.order, job_id)
            for job_id, row in self.expected.items()
            if row.status is JobStatus.PENDING and model in (None, row.model)
        ]
        if job is None:
            assert waiting == [] or self.is_paused
            return multiple()
        assert not self.is_paused
        assert job.id == min(waiting)[2]
        assert job.lease_token is not None
        row = self.expected[job.id]
        assert job.lease_token != row.token
        row.status, row.token = JobStatus.RUNNING, job.lease_token
        row.attempts += 1
        row.lease_until = self.now + LEASE_S
        return job.id, job.lease_token

    def holds(self, claim: tuple[str, str]) -> bool:
        row = self.expected[claim[0]]
        return row.status is JobStatus.RUNNING and row.token == claim[1]

    @rule(claim=claims, progress=st.floats(0, 1))
    def report(self, claim: tuple[str, str], progress: float) -> None:
        if not self.holds(claim):
            with pytest.raises(LeaseLostError):
                self.queue.report_progress(*claim, progress)
            return
        row = self.expected[claim[0]]
        assert self.queue.report_progress(*claim, progress) is row.is_cancelled
        row.lease_until = self.now + LEASE_S

    @rule(claim=claims, verb=st.sampled_from(["complete", "fail", "confirm_cancelled"]))
    def end(self, claim: tuple[str, str], verb: str) -> None:
        arguments = {"complete": ["key"], "fail": [PROBLEM], "confirm_cancelled": []}[verb]
        if not self.holds(claim):
            with pytest.raises(LeaseLostError):
                getattr(self.queue, verb)(*claim, *arguments)
            return
        getattr(self.queue, verb)(*claim, *arguments)
        row = self.expected[claim[0]]
        row.status = {
            "complete": JobStatus.COMPLETED,
            "fail": JobStatus.FAILED,
            "confirm_cancelled": JobStatus.CANCELLED,
        }[verb]
        row.results += verb == "complete"

    def take_back(self, row: Expected) -> None:
        row.token = None
        if row.is_cancelled:
            row.status = JobStatus.CANCELLED
        else:
            again = row.attempts < row.max_attempts
            row.status = JobStatus.PENDING if again else JobStatus.FAILED

    @rule(claim=claims)
    def retry(self, claim: tuple[str, str]) -> None:
        if not self.holds(claim):
            with pytest.raises(LeaseLostError):
                self.queue.retry(*claim, PROBLEM)
            return
        status = self.queue.retry(*claim, PROBLEM)
        self.take_back(self.expected[claim[0]])
        assert status is self.expected[claim[0]].status

    @rule()
    def switch(self) -> None:
        self.is_paused = not self.is_paused
        (self.queue.pause if self.is_paused else self.queue.resume)()

    @rule(seconds=st.sampled_from([1.0, 20.0, 31.0]))
    def pass_time(self, seconds: float) -> None:
        self.now += seconds

    @rule()
    def sweep(self) -> None:
        taken = {job.id for job in self.queue.requeue_expired()}
        for job_id, row in self.expected.items():
            lapsed = row.status is JobStatus.RUNNING and row.lease_until < self.now
            assert (job_id in taken) is lapsed
            if lapsed:
                self.take_back(row)

    @rule()
    def restart(self) -> None:
        self.queue.close()
        self.queue = self.open()
        taken = {job.id for job in self.queue.recover()}
        running = {i for i, row in self.expected.items() if row.status is JobStatus.RUNNING}
        assert taken == running
        for job_id in running:
            self.take_back(self.expected[job_id])

    @precondition(lambda self: self.expected)
    @rule(data=st.data())
    def cancel(self, data: st.DataObject) -> None:
        job_id = data.draw(st.sampled_from(sorted(self.expected)))
        row = self.expected[job_id]
        if row.status is JobStatus.PENDING:
            row.status = JobStatus.CANCELLED
        elif row.status is JobStatus.RUNNING:
            row.is_cancelled = True
        assert self.queue.cancel(job_id) is row.status

    @precondition(lambda self: any(row.status.is_final for row in self.expected.values()))
    @rule(data=st.data(), status=st.sampled_from(JobStatus))
    def disturb_an_ended_job(self, data: st.DataObject, status: JobStatus) -> None:
        ended = sorted(i for i, row in self.expected.items() if row.status.is_final)
        with pytest.raises(JobStateError):
            self.queue.update_job_status(data.draw(st.sampled_from(ended)), status)

    @invariant()
    def the_queue_agrees(self) -> None:
        stored = {job.id: job for job in self.queue.list_jobs(limit=1000).jobs}
        assert stored.keys() == self.expected.keys()
        for job_id, row in self.expected.items():
            job = stored[job_id]
            assert (job.status, job.attempts) == (row.status, row.attempts)
            assert (job.lease_token is not None) is (row.status is JobStatus.RUNNING)
            assert row.results <= 1
            kinds = [event.kind for event in self.queue.events_after(job_id)]
            assert kinds.count("running") == row.attempts
            assert kinds.count("completed") == row.results
            assert kinds[-1] == row.status.value
            assert (job.artifact_uri is not None) is (row.results == 1)


TestQueueMachine = QueueMachine.TestCase
TestQueueMachine.settings = settings(
    max_examples=25,
    stateful_step_count=30,
    deadline=None,
    suppress_health_check=[HealthCheck.too_slow],
)
