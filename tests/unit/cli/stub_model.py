"""A real, tiny Model3D for the command line's tests: a tetrahedron whose size is an option."""

from __future__ import annotations

from typing import Any

import numpy as np
from pydantic import BaseModel, ConfigDict, Field

from dream_cad.models.base import (
    GenerationResult,
    Model3D,
    ProgressCallback,
    ignore_progress,
)


class TetrahedronOptions(BaseModel):
    model_config = ConfigDict(extra="forbid", allow_inf_nan=False)

    seed: int | None = Field(None, ge=0)
    resolution: int = Field(32, ge=8, le=64)
    guidance_scale: float = 1.0
    scale: float = Field(1.0, gt=0)


class Tetrahedron(Model3D):
    def __init__(self, **kwargs: Any) -> None:
        super().__init__("tetrahedron", **kwargs)

    @classmethod
    def options_model(cls) -> type[BaseModel]:
        return TetrahedronOptions

    def generate_from_text(
        self, prompt: str, progress: ProgressCallback = ignore_progress, **kwargs: Any
    ) -> GenerationResult:
        return self._make({"prompt": prompt, **kwargs}, progress)

    def generate_from_image(
        self, image: Any, progress: ProgressCallback = ignore_progress, **kwargs: Any
    ) -> GenerationResult:
        return self._make({"image": str(image), **kwargs}, progress)

    def _make(self, receipt: dict[str, Any], progress: ProgressCallback) -> GenerationResult:
        progress(0.5, "decode")
        size = receipt.get("scale", 1.0)
        vertices = np.array([[0, 0, 0], [1, 0, 0], [0, 1, 0], [0, 0, 1]], np.float32) * size
        faces = np.array([[0, 2, 1], [0, 1, 3], [0, 3, 2], [1, 2, 3]], np.int32)
        files = {"note.txt": b"x"}
        return GenerationResult(
            vertices, faces, metadata=receipt, model_name=self.name, files=files
        )


class Silent(Tetrahedron):
    """Returns nothing and takes no progress callback, like the example of the API reference."""

    def generate_from_text(self, prompt: str, **kwargs: Any) -> GenerationResult:
        return None  # type: ignore[return-value]
