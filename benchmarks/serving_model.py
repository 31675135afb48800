"""The model that serving is measured with: one triangle, after so many seconds of nothing."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

import numpy as np
from pydantic import BaseModel, ConfigDict, Field

from dream_cad.models.base import (
    GenerationResult,
    Model3D,
    ModelCapabilities,
    ProgressCallback,
    ignore_progress,
)
from dream_cad.models.factory import register_model

NAME = "noop"


class NoopOptions(BaseModel):
    """What the model can be told."""

    model_config = ConfigDict(extra="forbid", allow_inf_nan=False)

    work_s: float = Field(0.0, ge=0.0, le=60.0, description="Seconds to take.")
    log: str | None = Field(None, description="File that takes a line for each start.")
    steps: int = Field(0, ge=0, le=1000, description="Reports of progress, evenly over the work.")
    step_log: str | None = Field(None, description="File that takes a line for each report.")


@register_model(NAME, ModelCapabilities(min_vram_gb=0.0, recommended_vram_gb=0.0))
class NoopModel(Model3D):
    """Makes a triangle."""

    def __init__(self) -> None:
        super().__init__(NAME)

    @classmethod
    def options_model(cls) -> type[BaseModel]:
        """Return the options."""
        return NoopOptions

    def generate_from_text(
        self, prompt: str, *, progress: ProgressCallback = ignore_progress, **options: Any
    ) -> GenerationResult:
        """Note the start (monotonic time, prompt), then rest."""
        wishes = NoopOptions.model_validate(options)
        if wishes.log is not None:
            with Path(wishes.log).open("a") as log:
                log.write(f"{time.monotonic():.6f} {wishes.work_s} {prompt}\n")
        for step in range(1, wishes.steps + 1):
            time.sleep(wishes.work_s / wishes.steps)
            if wishes.step_log is not None:
                with Path(wishes.step_log).open("a") as log:
                    log.write(f"{time.monotonic():.6f} {step}\n")
            progress(step / wishes.steps, f"step {step}/{wishes.steps}")
        if not wishes.steps:
            time.sleep(wishes.work_s)
        return GenerationResult(
            vertices=np.eye(3, dtype=np.float32),
            faces=np.array([[0, 1, 2]], dtype=np.int32),
            model_name=self.name,
        )

    def generate_from_image(self, image: Any, **options: Any) -> GenerationResult:
        """Do the same for a picture."""
        return self.generate_from_text("", **options)
