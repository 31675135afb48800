"""The program of a worker process: owns one model, takes jobs on stdin, answers on stdout.

Both directions are lines of JSON. It never touches the database: its parent does, so that a
worker that is killed leaves nothing behind. It ends when its stdin closes, however its parent died.
"""

from __future__ import annotations

import json
import os
import sys
import threading
from queue import Queue
from typing import Any, TextIO

from dream_cad.artifacts import ArtifactStore
from dream_cad.exceptions import DreamCadError, GenerationCancelledError
from dream_cad.log import configure_logging
from dream_cad.queue.generation import ModelHolder, ModelSource, Stopwatch, problem_of
from dream_cad.queue.jobs import GenerationJob
from dream_cad.queue.results import publish_result

_JOB_FIELDS = ("id", "prompt", "model_name", "config", "input_uri", "attempts")


def order_of(job: GenerationJob) -> dict[str, Any]:
    """Return what a worker must know of a job."""
    return {name: getattr(job, name) for name in _JOB_FIELDS}


class Worker:
    """Works off orders, one at a time.

    Args:
        source: how to make the model.
        artifacts: where results go.
        answers: the stream of answers.
    """

    def __init__(self, source: ModelSource, artifacts: ArtifactStore, answers: TextIO) -> None:
        self._holder = ModelHolder(source, artifacts)
        self._artifacts = artifacts
        self._answers = answers
        self._orders: Queue[dict[str, Any] | None] = Queue()
        self._unwanted: set[str] = set()

    def serve(self, lines: TextIO) -> None:
        """Work until ``lines`` ends."""
        threading.Thread(target=self._listen, args=(lines,), daemon=True).start()
        while (order := self._orders.get()) is not None:
            self._work(GenerationJob(**order))
        self._holder.close()

    def _listen(self, lines: TextIO) -> None:
        for line in lines:
            message = json.loads(line)
            if "cancel" in message:
                self._unwanted.add(message["cancel"])
            else:
                self._orders.put(message["job"])
        # The parent is gone: what is under way helps nobody, and another may begin it anew.
        self._orders.put(None)
        self._unwanted.add("*")

    def _work(self, job: GenerationJob) -> None:
        watch = Stopwatch()
        try:
            result = self._holder.generate(job, lambda done, at: self._progress(job.id, done, at))
            made_s = watch.seconds
            uri = publish_result(self._artifacts, job, result)
        except GenerationCancelledError:
            self._answer(kind="cancelled", gpu_seconds=watch.seconds)
        except DreamCadError as error:
            self._answer(
                kind="failed",
                problem=problem_of(error),
                is_retryable=error.retryable,
                gpu_seconds=watch.seconds,
            )
        else:
            timings = {"model_s": round(made_s, 4), "publish_s": round(watch.seconds - made_s, 4)}
            self._answer(
                kind="done",
                artifact_uri=uri,
                timings=timings,
                gpu_seconds=made_s,
                peak_memory_bytes=watch.peak_memory_bytes,
            )

    def _progress(self, job_id: str, fraction: float, stage: str) -> None:
        if not self._unwanted.isdisjoint((job_id, "*")):
            raise GenerationCancelledError("The job was cancelled.")
        self._answer(kind="progress", fraction=fraction, stage=stage)

    def _answer(self, **message: Any) -> None:
        self._answers.write(json.dumps(message, default=str) + "\n")
        self._answers.flush()


def main() -> None:
    """Serve the parent on the pipes that it gave."""
    configure_logging()
    answers = os.fdopen(os.dup(sys.stdout.fileno()), "w", encoding="utf-8")
    # What models print must not get between the answers.
    os.dup2(sys.stderr.fileno(), sys.stdout.fileno())
    source = json.loads(sys.argv[1])
    worker = Worker(
        ModelSource(source["create"], source["modules"]),
        ArtifactStore(source["artifacts"]),
        answers,
    )
    worker.serve(sys.stdin)


if __name__ == "__main__":
    main()
