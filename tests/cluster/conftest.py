"""One Ray cluster with the whole application, for all cluster tests."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import sys
import time
import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

import httpx
import psutil
import pytest

T = TypeVar("T")

APP = "tests"
MAX_PENDING = 12
MAX_BODY_BYTES = 2 * 2**20
DEADLINE_S = 240.0
WEBHOOK_SECRET = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw"


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        if Path(__file__).parent in item.path.parents:
            item.add_marker(pytest.mark.cluster)
            item.add_marker(pytest.mark.timeout(900))  # Ray's start on a busy machine included


@dataclass
class Server:
    """The running application, and what tests do to it."""

    client: httpx.Client
    folder: Path
    disk: Path | None
    pid: int

    def submit(self, prompt: str = "a cube", priority: str = "normal", **options: Any) -> str:
        body = {"prompt": prompt, "priority": priority, "options": options}
        answer = self.client.post("/v1/jobs", json=body)
        assert answer.status_code == 202, answer.text
        return str(answer.json()["id"])

    def get(self, job_id: str) -> dict[str, Any]:
        answer = self.client.get(f"/v1/jobs/{job_id}")
        assert answer.status_code == 200, answer.text
        return dict(answer.json())

    def until(self, job_id: str, *statuses: str, stage: str = "") -> dict[str, Any]:
        """Poll until the job has one of the states (and its stage holds a text)."""

        def reached() -> dict[str, Any] | None:
            job = self.get(job_id)
            return job if job["status"] in statuses and stage in job["stage"] else None

        return until(reached, f"job {statuses} {stage}")

    def ended(self, job_id: str) -> dict[str, Any]:
        return self.until(job_id, "completed", "failed", "cancelled")

    def new_path(self) -> Path:
        return self.folder / uuid.uuid4().hex

    def hold(self) -> Path:
        """Return a file that keeps a job with ``hold=<it>`` at work until it is removed."""
        path = self.new_path()
        path.touch()
        return path

    def occupy(self) -> tuple[str, Path]:
        """Keep the only slot busy; returns the job and the file that holds it."""
        hold = self.hold()
        job_id = self.submit("holder", "urgent", hold=str(hold))
        self.until(job_id, "running", stage="holding")
        return job_id, hold

    def find_replicas(self, deployment: str) -> list[int]:
        """Return the processes of a deployment's replicas, in this cluster alone."""
        found = []
        for process in psutil.Process(self.pid).children(recursive=True):
            try:
                title = " ".join(process.cmdline())
            except psutil.Error:
                continue
            if f"ServeReplica:{APP}:{deployment}" in title:
                found.append(process.pid)
        return found

    def kill_replica(self, deployment: str) -> int:
        """kill -9 the replica of a deployment; returns its pid."""
        (victim,) = self.find_replicas(deployment)
        os.kill(victim, signal.SIGKILL)
        return victim

    def kill_everything(self) -> None:
        """kill -9 the whole cluster at once, as a power cut would."""
        root = psutil.Process(self.pid)
        victims = [root, *root.children(recursive=True)]
        for victim in victims:
            with contextlib.suppress(psutil.NoSuchProcess):
                victim.kill()
        psutil.wait_procs(victims)


def until(condition: Callable[[], T | None], what: str) -> T:
    deadline = time.monotonic() + DEADLINE_S
    while True:
        value = condition()
        if value:
            return value
        assert time.monotonic() < deadline, f"not within {DEADLINE_S} s: {what}"
        time.sleep(0.05)


@pytest.fixture(scope="session")
def small_disk(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path | None]:
    """A file system of 64 MiB for results; None where mounting is not allowed."""
    folder = tmp_path_factory.mktemp("disk")
    mount = ["mount", "-t", "tmpfs", "-o", "size=64m", "tmpfs", str(folder)]
    if os.geteuid() != 0 or subprocess.run(mount, capture_output=True, check=False).returncode:
        yield None
        return
    yield folder
    subprocess.run(["umount", "--lazy", str(folder)], check=True)


def app_args(folder: Path, **changes: Any) -> dict[str, Any]:
    """Return the arguments of an application that serves the cube model from a folder."""
    args: dict[str, Any] = {
        "models": [{"name": "echo"}],
        "modules": ["tests.cluster.echo_model"],
        "output_dir": str(folder / "outputs"),
        "database_url": f"sqlite:///{folder}/jobs.sqlite3",
        "finisher": {"preview_size": 32},
        "edge": {"key_cache_s": 0},
        "queue": {"lease_s": 9, "retry_backoff_s": 0.2, "cancel_grace_s": 300},
    }
    return {**args, **changes}


@contextmanager
def serving(folder: Path, args: dict[str, Any], disk: Path | None = None) -> Iterator[Server]:
    """Run an application on a Ray of its own until the end of the block."""
    for name in [name for name in os.environ if name.startswith("DREAM_CAD_")]:
        del os.environ[name]
    settings = json.dumps({"name": APP, "args": args})
    command = [sys.executable, "-W", "ignore", "-m", "tests.cluster.run_server", settings]
    # A process of its own: Ray's warnings stay there, and its end takes all of Ray with it.
    with (
        (folder / "server.log").open("a") as log,
        subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=log, text=True
        ) as process,
    ):
        assert process.stdin is not None
        assert process.stdout is not None
        url = process.stdout.readline().strip()
        assert url.startswith("http"), (folder / "server.log").read_text()[-3000:]
        with httpx.Client(base_url=url, timeout=DEADLINE_S) as client:
            until(lambda: client.get("/readyz").status_code == 200, "ready")
            yield Server(client, folder, disk, process.pid)
        with contextlib.suppress(BrokenPipeError):  # a test may have killed it
            process.stdin.close()
        process.wait(60)


@pytest.fixture(scope="session")
def server(tmp_path_factory: pytest.TempPathFactory, small_disk: Path | None) -> Iterator[Server]:
    folder = tmp_path_factory.mktemp("cluster")
    args = app_args(
        folder,
        output_dir=str(small_disk or folder / "outputs"),
        limits={"max_pending": MAX_PENDING, "max_body_bytes": MAX_BODY_BYTES},
        webhooks={
            "allowed_hosts": ["127.0.0.1"],
            "allowed_networks": ["127.0.0.0/8"],
            "secret": WEBHOOK_SECRET,
        },
    )
    with serving(folder, args, small_disk) as running:
        yield running
