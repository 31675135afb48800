"""One model in this process, and the generation of one job with it."""

from __future__ import annotations

import importlib
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from dream_cad.artifacts import ArtifactStore
from dream_cad.exceptions import DreamCadError, GenerationError, InvalidConfigError
from dream_cad.queue.entry import CREATE_MODEL, resolve
from dream_cad.queue.jobs import GenerationJob
from dream_cad.queue.problems import Problem

INPUT_FILE = "input"

Progress = Callable[[float, str], None]


@dataclass(frozen=True)
class ModelSource:
    """How models come into being: an entry that makes one by name, and modules imported before."""

    create: str = CREATE_MODEL
    modules: Sequence[str] = ()

    def make(self, model_name: str) -> Any:
        """Import what registers models and create one.

        Raises:
            InvalidConfigError: a module cannot be imported.
            DreamCadError: the model cannot be created; see ModelFactory.create_model.
        """
        self.import_modules()
        return resolve(self.create)(model_name)

    def import_modules(self) -> None:
        """Import the modules, so that the models that they register are known here.

        Raises:
            InvalidConfigError: one cannot be imported.
        """
        for module in self.modules:
            try:
                importlib.import_module(module)
            except ImportError as error:
                raise InvalidConfigError(
                    f"The module {module!r} cannot be imported: {error}."
                ) from error


class ModelHolder:
    """Keeps the model of the last job, so that one of the same model need not load it."""

    def __init__(self, source: ModelSource, artifacts: ArtifactStore) -> None:
        self._source = source
        self._artifacts = artifacts
        self._name: str | None = None
        self._model: Any = None

    def generate(self, job: GenerationJob, progress: Progress) -> Any:
        """Return the GenerationResult of a job.

        Raises:
            DreamCadError: the model could not be made, or failed; other errors of a model become
                GenerationError.
        """
        model = self._model_for(job.model_name)
        try:
            if job.input_uri is None:
                return model.generate_from_text(job.prompt, progress=progress, **job.config)
            from dream_cad.images.loading import load_image

            image = load_image(self._artifacts.read(job.input_uri, INPUT_FILE))
            return model.generate_from_image(image, progress=progress, **job.config)
        except DreamCadError:
            raise
        except Exception as error:  # a model is foreign code: whatever it raises ends this job only
            raise GenerationError(
                f"The model {job.model_name} failed: {type(error).__name__}: {error}"
            ) from error

    def close(self) -> None:
        """Unload the model."""
        if self._model is not None:
            self._model.unload_model()
        self._name = self._model = None

    def _model_for(self, name: str) -> Any:
        if name != self._name:
            self.close()
            self._model = self._source.make(name)
            self._name = name
        return self._model


class Stopwatch:
    """Seconds since it was made, and the GPU memory peak of this process since then."""

    def __init__(self) -> None:
        self._start = time.monotonic()
        if (cuda := _cuda()) is not None:
            cuda.reset_peak_memory_stats()

    @property
    def seconds(self) -> float:
        """Seconds so far."""
        return time.monotonic() - self._start

    @property
    def peak_memory_bytes(self) -> int | None:
        """Peak so far; None without a GPU."""
        cuda = _cuda()
        return None if cuda is None else int(cuda.max_memory_allocated())


def _cuda() -> Any:
    torch = sys.modules.get("torch")  # a model without torch needs no GPU memory of torch
    return torch.cuda if torch is not None and torch.cuda.is_initialized() else None


def problem_of(error: DreamCadError) -> Problem:
    """Return an error as the problem document that a job keeps."""
    return {
        "type": error.code,
        "title": error.title,
        "detail": str(error),
        **({"details": error.details} if error.details else {}),
    }
