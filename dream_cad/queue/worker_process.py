"""The parent's end of a worker process."""

from __future__ import annotations

import contextlib
import json
import os
import select
import subprocess
import sys
import time
from typing import Any

from dream_cad.queue.generation import ModelSource
from dream_cad.queue.jobs import GenerationJob
from dream_cad.queue.worker import order_of

_STOP_GRACE_S = 10.0
_CHUNK = 65536


class WorkerProcess:
    """A process that owns one model; see worker.py for what is said on its pipes.

    It runs the module ``dream_cad.queue.worker`` and not the caller's program, so scripts need no
    ``if __name__ == "__main__"``.

    Args:
        model_name: the model that its jobs will name.
        source: how it makes the model.
        artifacts: root of its artifact store.
        gpu_id: the GPU that it may see; None leaves the environment as it is.
    """

    def __init__(
        self, model_name: str, source: ModelSource, artifacts: str, gpu_id: int | None
    ) -> None:
        self.model_name = model_name
        given = {
            "create": source.create,
            "modules": list(source.modules),
            "artifacts": artifacts,
        }
        self._process = subprocess.Popen(
            [sys.executable, "-m", "dream_cad.queue.worker", json.dumps(given)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            env=_environment(gpu_id),
            bufsize=0,
            start_new_session=True,  # Ctrl-C is for the parent, which decides what becomes of us
        )
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._orders, self._answers = self._process.stdin, self._process.stdout
        self._buffer = b""

    @property
    def pid(self) -> int:
        """Its process id."""
        return self._process.pid

    @property
    def is_alive(self) -> bool:
        """Whether it runs."""
        return self._process.poll() is None

    def start(self, job: GenerationJob) -> None:
        """Give it a job; read its answers with ``next_answer``."""
        self._tell({"job": order_of(job)})

    def cancel(self, job_id: str) -> None:
        """Ask it to stop a job at the next step."""
        self._tell({"cancel": job_id})

    def next_answer(self, timeout_s: float) -> dict[str, Any] | None:
        """Wait for its next answer; None if there was none in time.

        Raises:
            EOFError: it has died.
        """
        deadline = time.monotonic() + timeout_s
        while b"\n" not in self._buffer:
            left = deadline - time.monotonic()
            if left <= 0 or not select.select([self._answers], [], [], left)[0]:
                return None
            chunk = os.read(self._answers.fileno(), _CHUNK)
            if not chunk:
                raise EOFError(f"Worker {self.pid} has died.")
            self._buffer += chunk
        line, _, self._buffer = self._buffer.partition(b"\n")
        answer: dict[str, Any] = json.loads(line)
        return answer

    def close(self) -> None:
        """Let it end, kill it if it does not, and collect it."""
        with contextlib.suppress(BrokenPipeError):
            self._orders.close()
        try:
            self._process.wait(_STOP_GRACE_S)
        except subprocess.TimeoutExpired:
            self.kill()
        self._answers.close()

    def kill(self) -> None:
        """End it at once."""
        self._process.kill()
        self._process.wait()

    def _tell(self, message: dict[str, Any]) -> None:
        # A worker that has died is noticed where its answers are read.
        with contextlib.suppress(BrokenPipeError):
            self._orders.write(json.dumps(message).encode() + b"\n")


def _environment(gpu_id: int | None) -> dict[str, str]:
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(path for path in sys.path if path)}
    if gpu_id is not None:
        # NVML numbers GPUs by their bus; within the worker its GPU is number 0.
        environment |= {
            "CUDA_DEVICE_ORDER": "PCI_BUS_ID",
            "CUDA_VISIBLE_DEVICES": str(gpu_id),
            "DREAM_CAD_GPU_ID": "0",
        }
    return environment
