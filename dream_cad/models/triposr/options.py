"""Generation options of TripoSR: one place of truth for library, command line and HTTP."""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar, Self

from pydantic import Field

from dream_cad.models.image_options import OnePassOptions

if TYPE_CHECKING:
    from dream_cad.models.triposr.config import TripoSRConfig


class TripoSROptions(OnePassOptions):
    """Options of one generation with TripoSR."""

    model_title: ClassVar[str] = "TripoSR"

    resolution: int | None = Field(
        None, ge=32, le=512, description="Grid points a side; by default the checkpoint's own."
    )
    threshold: float | None = Field(
        None,
        gt=0.0,
        le=1e6,
        description="Density of the surface, by default 25: lower is thicker and more closed, "
        "higher thinner.",
    )
    chunk_size: int | None = Field(
        None, ge=1_024, le=4_194_304, description="Points a field query; by default by device."
    )
    texture: bool = Field(False, description="Bake a UV texture instead of vertex colours.")

    def resolve(self, config: TripoSRConfig) -> Self:
        """Fill what depends on the checkpoint: resolution and threshold."""
        return self.model_copy(
            update={
                "resolution": self.resolution or config.default_resolution,
                "threshold": self.threshold or config.threshold,
            }
        )
