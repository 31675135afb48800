"""Two real Ray nodes: the head here, a worker in a network namespace behind a link to cut."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

STORE_BYTES = 80 * 2**20
FAST_DEATH = {
    "health_check_initial_delay_ms": 1000,
    "health_check_period_ms": 1000,
    "health_check_timeout_ms": 2000,
    "health_check_failure_threshold": 3,
}
"""Ray's settings by which a node that is silent for some seconds counts as dead."""
_PORT = 6399
HEAD, WORKER = "10.213.77.1", "10.213.77.2"


def ip(*words: str) -> None:
    subprocess.run(["ip", *words], check=True, capture_output=True)


def why_not() -> str | None:
    """Say why this machine cannot have a network namespace; None if it can."""
    name = f"dcad-{uuid.uuid4().hex[:8]}"
    try:
        ip("netns", "add", name)
        ip("netns", "del", name)
    except FileNotFoundError:
        return "there is no program ip (iproute2)"
    except subprocess.CalledProcessError as error:
        return str(error.stderr.decode().strip())
    return None


class Link:
    """A pair of virtual network cards, one of them in a namespace of its own."""

    def __init__(self) -> None:
        number = uuid.uuid4().hex[:6]
        self.namespace, self._here, self._there = f"dcad-{number}", f"dh{number}", f"dw{number}"
        ip("netns", "add", self.namespace)
        ip("link", "add", self._here, "type", "veth", "peer", "name", self._there)
        ip("link", "set", self._there, "netns", self.namespace)
        ip("addr", "add", f"{HEAD}/30", "dev", self._here)
        ip("link", "set", self._here, "up")
        self._inside("addr", "add", f"{WORKER}/30", "dev", self._there)
        self._inside("link", "set", "lo", "up")
        self.heal()

    def _inside(self, *words: str) -> None:
        ip("-n", self.namespace, *words)

    def cut(self) -> None:
        """Let every packet be lost, without a word to either side."""
        self._inside("link", "set", self._there, "down")

    def heal(self) -> None:
        self._inside("link", "set", self._there, "up")

    def remove(self) -> None:
        ip("netns", "del", self.namespace)  # the cards go with it


class TwoNodes:
    """A head without GPUs, and a worker with one beyond the link."""

    def __init__(self, folder: Path) -> None:
        self.link = Link()
        self.address = f"{HEAD}:{_PORT}"
        self._log = (folder / "ray.log").open("a")
        self._processes: list[subprocess.Popen[bytes]] = []
        port = self.address.rpartition(":")[2]
        head = ["--head", f"--port={port}", f"--node-ip-address={HEAD}", "--num-cpus=4"]
        head += ["--include-dashboard=false", f"--system-config={json.dumps(FAST_DEATH)}"]
        self._start([], [*head, "--num-gpus=0"])
        self.start_worker()

    def start_worker(self) -> None:
        worker = [f"--address={self.address}", f"--node-ip-address={WORKER}", "--num-cpus=0"]
        inside = ["ip", "netns", "exec", self.link.namespace]
        self._start(inside, [*worker, "--num-gpus=1"])

    def _start(self, prefix: list[str], words: list[str]) -> None:
        ray = [*prefix, str(Path(sys.executable).parent / "ray"), "start", "--block"]
        self._processes.append(
            subprocess.Popen(
                [*ray, f"--object-store-memory={STORE_BYTES}", *words],
                stdout=self._log,
                stderr=self._log,
                env={**os.environ, "RAY_AUTH_MODE": "disabled"},
                start_new_session=True,
            )
        )

    def stop(self) -> None:
        for process in reversed(self._processes):
            if process.poll() is None:
                process.send_signal(signal.SIGTERM)  # it ends its node's processes
                process.wait(60)
        self._log.close()
        self.link.remove()


@contextmanager
def two_nodes(folder: Path) -> Iterator[TwoNodes]:
    nodes = TwoNodes(folder)
    try:
        yield nodes
    finally:
        nodes.stop()
