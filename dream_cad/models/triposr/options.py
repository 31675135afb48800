"""Generation options of TripoSR: one place of truth for library, command line and HTTP."""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar, Self

from pydantic import Field

from dream_cad.models.image_options import ImageModelOptions

if TYPE_CHECKING:
    from dream_cad.models.triposr.config import TripoSRConfig


class TripoSROptions(ImageModelOptions):
    """Options of one generation with TripoSR."""

    model_title: ClassVar[str] = "TripoSR"
    text_options: ClassVar[dict[str, str]] = {
        "num_inference_steps": "num_inference_steps",
        "guidance_scale": "guidance_scale",
        "negative_prompt": "negative_prompt",
    }

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
    foreground_ratio: float = Field(
        0.85, ge=0.5, le=1.0, description="Longest side of the object over the input image's."
    )
    chunk_size: int | None = Field(
        None, ge=1_024, le=4_194_304, description="Points a field query; by default by device."
    )
    texture: bool = Field(False, description="Bake a UV texture instead of vertex colours.")
    texture_size: int = Field(1024, ge=256, le=4096, description="Side of the texture in pixels.")
    min_component: float = Field(
        0.01,
        ge=0.0,
        le=1.0,
        description="Drop loose parts with less than this share of the faces.",
    )
    seed: int | None = Field(
        None,
        ge=0,
        le=2**32 - 1,
        description="Seed of the picture made from text; the mesh follows from the picture alone.",
    )
    num_inference_steps: int | None = Field(
        None, ge=1, le=200, description="Denoising steps of the picture (text only)."
    )
    guidance_scale: float | None = Field(
        None, ge=0.0, le=50.0, description="Guidance of the picture (text only)."
    )

    def resolve(self, config: TripoSRConfig) -> Self:
        """Fill what depends on the checkpoint: resolution and threshold."""
        return self.model_copy(
            update={
                "resolution": self.resolution or config.default_resolution,
                "threshold": self.threshold or config.threshold,
            }
        )
