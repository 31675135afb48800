"""Models without weights for worker processes; made by ``create``, named in the tests as text."""

from __future__ import annotations

import os
import signal
import threading
from pathlib import Path
from typing import Any

import numpy as np

from dream_cad.exceptions import CheckpointError, ModelNotFoundError
from dream_cad.models.base import GenerationResult

CREATE = "tests.unit.queue.worker_models:create"


class BoxModel:
    """Makes a tetrahedron; the prompt's first word says what else it does."""

    def __init__(self, name: str) -> None:
        self.name = name

    def generate_from_text(self, prompt: str, *, progress: Any, **config: Any) -> GenerationResult:
        verb, _, path = prompt.partition(" ")
        print("models may print")  # noqa: T201
        progress(0.5, "halfway")
        if verb == "crash-once" and not Path(path).exists():
            Path(path).touch()
            os.kill(os.getpid(), signal.SIGKILL)
        if verb == "crash":
            os.kill(os.getpid(), signal.SIGKILL)
        if verb == "break":
            raise ValueError("not my day")
        if verb == "refuse":
            raise CheckpointError("The weights are damaged.")
        if verb == "until-cancelled":
            Path(path).touch()
            while True:
                threading.Event().wait(0.01)
                progress(0.6, "still")
        return tetrahedron(self.name, config)

    def unload_model(self) -> None:
        """Nothing to free."""


def tetrahedron(name: str, config: dict[str, Any]) -> GenerationResult:
    points = [[0, 0, 0], [1, 0, 0], [0, 1, 0], [0, 0, 1]]
    return GenerationResult(
        vertices=np.array(points, np.float32),
        faces=np.array([[0, 2, 1], [0, 1, 3], [0, 3, 2], [1, 2, 3]], np.int32),
        metadata={"pid": os.getpid(), "gpu": os.environ.get("CUDA_VISIBLE_DEVICES"), **config},
        generation_time=0.1,
        model_name=name,
    )


def create(name: str) -> BoxModel:
    if name == "missing":
        raise ModelNotFoundError("There is no model 'missing'.")
    return BoxModel(name)
