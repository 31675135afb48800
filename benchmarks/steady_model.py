"""A model that takes a fixed CPU time and makes a tetrahedron: for measuring what is around it."""

from __future__ import annotations

import os
import time
from typing import Any

import numpy as np
from pydantic import BaseModel, ConfigDict, Field

from dream_cad.exceptions import GenerationError
from dream_cad.models.base import GenerationResult, Model3D, ModelCapabilities
from dream_cad.models.factory import register_model

_VERTICES = np.array([[0, 0, 0], [1, 0, 0], [0, 1, 0], [0, 0, 1]], np.float32) - 0.5
_FACES = np.array([[0, 2, 1], [0, 1, 3], [0, 3, 2], [1, 2, 3]], np.int32)

BEGUN, MADE = "begun ", "made "
"""How the lines of the log begin."""


class SteadyOptions(BaseModel):
    """What it can be told."""

    model_config = ConfigDict(extra="forbid", allow_inf_nan=False)

    cpu_s: float = Field(0.0, ge=0.0, le=3600.0, description="CPU seconds to burn.")
    log: str | None = Field(
        None, description="File to which each begun and each made prompt is appended."
    )
    empty: bool = Field(False, description="Make nothing: the row ends in the manifest alone.")


@register_model("steady", ModelCapabilities(min_vram_gb=0.0, recommended_vram_gb=0.0))
class SteadyModel(Model3D):
    """Burns the CPU time asked for, then returns a tetrahedron."""

    def __init__(self) -> None:
        super().__init__("steady")

    @classmethod
    def options_model(cls) -> type[BaseModel]:
        """Return its options."""
        return SteadyOptions

    def generate_from_text(self, prompt: str, **options: Any) -> GenerationResult:
        """Take the CPU time that the options say."""
        wishes = SteadyOptions.model_validate(options)
        if wishes.log is not None:
            _append(wishes.log, f"{BEGUN}{prompt}")
        burn(wishes.cpu_s)
        if wishes.log is not None:
            _append(wishes.log, f"{MADE}{prompt}")
        if wishes.empty:
            raise GenerationError("Nothing was to be made.")
        return GenerationResult(_VERTICES.copy(), _FACES.copy(), model_name=self.name)

    def generate_from_image(self, image: Any, **options: Any) -> GenerationResult:
        """Do the same for a picture."""
        return self.generate_from_text("", **options)


def burn(cpu_s: float) -> None:
    """Keep this thread's CPU busy for ``cpu_s`` seconds of its own time."""
    end = time.thread_time() + cpu_s
    while time.thread_time() < end:
        pass


def _append(path: str, line: str) -> None:
    """Append whole lines only, whoever else does and whenever this process is killed."""
    handle = os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o644)
    try:
        os.write(handle, f"{line}\n".encode())
    finally:
        os.close(handle)
