"""A Ray of its own with the application and, beside it, a bare HTTP -> handle deployment.

Run as a module it is the server: it prints its URL and ends with its standard input.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import psutil
from ray import serve

from benchmarks.serving_bare import bare_app
from benchmarks.serving_load import Target
from deployments.args import AppArgs
from deployments.local import serve_locally

APP = "bench"
_START_S = 120.0


@dataclass
class Cluster:
    """The running server."""

    url: str
    pid: int

    def target(self, key: str | None = None) -> Target:
        """Return the door for HTTP calls."""
        return Target(self.url, {} if key is None else {"Authorization": f"Bearer {key}"})

    def find(self, deployment: str) -> psutil.Process | None:
        """Return the process of a deployment's replica."""
        for process in psutil.Process(self.pid).children(recursive=True):
            try:
                if f"ServeReplica:{APP}:{deployment}" in " ".join(process.cmdline()):
                    return process
            except psutil.Error:
                continue
        return None

    def memory_mib(self, deployment: str) -> float:
        """Return the resident memory of a replica."""
        process = self.find(deployment)
        if process is None:
            raise RuntimeError(f"no replica of {deployment}")
        return round(process.memory_info().rss / 2**20, 1)

    def kill(self, deployment: str) -> None:
        """Kill a replica at once."""
        process = self.find(deployment)
        if process is not None:
            os.kill(process.pid, signal.SIGKILL)


@contextmanager
def start_cluster(database_url: str, folder: Path) -> Iterator[Cluster]:
    """Start the server in a process of its own and wait until it is ready."""
    args = {
        "models": [{"name": "noop"}],
        "modules": ["benchmarks.serving_model"],
        "output_dir": str(folder / "outputs"),
        "database_url": database_url,
        "finisher": {"preview_size": 16},
        "limits": {"max_pending": 400_000},
    }
    command = [sys.executable, "-W", "ignore", "-m", "benchmarks.serving_cluster", json.dumps(args)]
    with (
        (folder / "server.log").open("w") as log,
        subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=log, text=True
        ) as process,
    ):
        assert process.stdin is not None
        assert process.stdout is not None
        try:
            url = process.stdout.readline().strip()
            if not url:
                raise RuntimeError((folder / "server.log").read_text()[-3000:])
            cluster = Cluster(url, process.pid)
            wait_ready(cluster.target())
            yield cluster
        finally:
            process.stdin.close()
            process.wait(60)


def wait_ready(target: Target) -> None:
    """Wait until a model can take jobs."""
    deadline = time.monotonic() + _START_S
    while target.get("/readyz")[0] != 200:
        if time.monotonic() > deadline:
            raise RuntimeError("the server does not become ready")
        time.sleep(0.05)


def main() -> None:
    """Serve until standard input is closed."""
    args = AppArgs.model_validate(json.loads(sys.argv[1]))
    with serve_locally(args, APP) as url:
        serve.run(bare_app(), name="bare", route_prefix="/bare")
        sys.stdout.write(f"{url}\n")
        sys.stdout.flush()
        sys.stdin.read()


if __name__ == "__main__":
    main()
