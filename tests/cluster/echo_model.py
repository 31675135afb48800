"""A real custom model for the cluster tests: a cube, at once, slowly, or with a crash."""

from __future__ import annotations

import os
import signal
import time
import zlib
from pathlib import Path
from typing import Any, Literal

import numpy as np
from pydantic import BaseModel, ConfigDict, Field

from dream_cad.exceptions import GenerationError
from dream_cad.models.base import (
    GenerationResult,
    Model3D,
    ModelCapabilities,
    ProgressCallback,
    ignore_progress,
)
from dream_cad.models.factory import register_model

_CORNERS = np.array(
    [[x, y, z] for x in (-0.5, 0.5) for y in (-0.5, 0.5) for z in (-0.5, 0.5)], dtype=np.float32
)
_QUADS = np.array(
    [[0, 1, 3, 2], [4, 6, 7, 5], [0, 4, 5, 1], [2, 3, 7, 6], [0, 2, 6, 4], [1, 5, 7, 3]]
)
_FACES = np.concatenate([_QUADS[:, [0, 1, 2]], _QUADS[:, [0, 2, 3]]]).astype(np.int32)


class EchoOptions(BaseModel):
    """What the cube model can be told."""

    model_config = ConfigDict(extra="forbid", allow_inf_nan=False)

    seed: int | None = Field(None, ge=0, lt=2**32)
    brightness: float = Field(1.0, ge=0.0, le=1.0)
    hold: str | None = Field(None, description="Work until this file is gone.")
    crash: Literal["once", "always"] | None = None
    marker: str | None = Field(None, description="File that remembers the first crash.")
    fail: Literal["error", "bug"] | None = None
    log: str | None = Field(None, description="Append the prompt to this file.")
    half: bool = Field(False, description="Leave three sides of the cube away.")


def _crash_as_told(wishes: EchoOptions) -> None:
    has_crashed = wishes.marker is not None and Path(wishes.marker).exists()
    if wishes.crash is None or (wishes.crash == "once" and has_crashed):
        return
    if wishes.marker is not None:
        Path(wishes.marker).touch()
    os.kill(os.getpid(), signal.SIGKILL)


@register_model("echo", ModelCapabilities(min_vram_gb=0.0, recommended_vram_gb=0.0))
class EchoModel(Model3D):
    """Makes a cube whose colour follows from the prompt."""

    def __init__(self) -> None:
        super().__init__("echo")

    @classmethod
    def options_model(cls) -> type[BaseModel]:
        return EchoOptions

    def generate_from_text(
        self, prompt: str, *, progress: ProgressCallback = ignore_progress, **options: Any
    ) -> GenerationResult:
        wishes = EchoOptions.model_validate(options)
        if wishes.log is not None:
            with Path(wishes.log).open("a") as log:
                log.write(f"{prompt}\n")
        _crash_as_told(wishes)
        while wishes.hold is not None and Path(wishes.hold).exists():
            progress(0.5, "holding")
            time.sleep(0.02)
        if wishes.fail == "error":
            raise GenerationError("The cube came out round.", hint="Try another prompt.")
        if wishes.fail == "bug":
            raise ZeroDivisionError("a bug in the model")
        progress(1.0, "cube")
        return self._cube(zlib.crc32(prompt.encode()), wishes)

    def generate_from_image(
        self, image: Any, *, progress: ProgressCallback = ignore_progress, **options: Any
    ) -> GenerationResult:
        progress(1.0, "cube")
        pixels = np.asarray(image.convert("RGB"))
        return self._cube(zlib.crc32(pixels.tobytes()), EchoOptions.model_validate(options))

    def _cube(self, code: int, wishes: EchoOptions) -> GenerationResult:
        color = np.array([code & 255, code >> 8 & 255, code >> 16 & 255]) * wishes.brightness
        return GenerationResult(
            vertices=_CORNERS.copy(),
            faces=_FACES[::2].copy() if wishes.half else _FACES.copy(),
            vertex_colors=np.tile(color.astype(np.uint8), (8, 1)),
            metadata={"seed": wishes.seed},
            model_name=self.name,
        )
