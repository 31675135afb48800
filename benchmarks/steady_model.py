"""A model that takes a fixed time and makes a tetrahedron: for measuring what is around it."""

from __future__ import annotations

import time
from typing import Any

import numpy as np
from pydantic import BaseModel, ConfigDict, Field

from dream_cad.models.base import GenerationResult, Model3D, ModelCapabilities
from dream_cad.models.factory import register_model

_VERTICES = np.array([[0, 0, 0], [1, 0, 0], [0, 1, 0], [0, 0, 1]], np.float32) - 0.5
_FACES = np.array([[0, 2, 1], [0, 1, 3], [0, 3, 2], [1, 2, 3]], np.int32)


class SteadyOptions(BaseModel):
    """What it can be told."""

    model_config = ConfigDict(extra="forbid", allow_inf_nan=False)

    seconds: float = Field(0.0, ge=0.0, le=3600.0)


@register_model("steady", ModelCapabilities(min_vram_gb=0.0, recommended_vram_gb=0.0))
class SteadyModel(Model3D):
    """Sleeps, then returns a tetrahedron."""

    def __init__(self) -> None:
        super().__init__("steady")

    @classmethod
    def options_model(cls) -> type[BaseModel]:
        """Return its options."""
        return SteadyOptions

    def generate_from_text(self, prompt: str, **options: Any) -> GenerationResult:
        """Take the seconds that the options say."""
        time.sleep(SteadyOptions.model_validate(options).seconds)
        return GenerationResult(_VERTICES.copy(), _FACES.copy(), model_name=self.name)

    def generate_from_image(self, image: Any, **options: Any) -> GenerationResult:
        """Do the same for a picture."""
        return self.generate_from_text("", **options)
