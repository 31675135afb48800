"""Generation options of Stable Fast 3D."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, ClassVar, Literal, Self

from pydantic import Field

from dream_cad.exceptions import InvalidConfigError
from dream_cad.models.image_options import OnePassOptions

if TYPE_CHECKING:
    from dream_cad.models.stable_fast_3d.config import StableFast3DConfig


class StableFast3DOptions(OnePassOptions):
    """Options of one generation with Stable Fast 3D."""

    model_title: ClassVar[str] = "Stable Fast 3D"

    resolution: int | None = Field(
        None,
        ge=16,
        le=192,
        multiple_of=4,
        description="Cells a side of the tetrahedral grid; by default the checkpoint's own.",
    )
    threshold: float | None = Field(
        None,
        gt=0.0,
        le=1e6,
        description="Density of the surface, by default 10: lower is thicker, higher thinner.",
    )
    texture: bool = Field(
        True, description="Bake base colour and normal map; false gives vertex colours."
    )
    normal_map: bool = Field(True, description="Bake the fine normals that the model predicts.")
    unwrap: Literal["packed", "box"] = Field(
        "packed",
        description="UV layout: packed charts of one texel density, or the published projection "
        "on a box, which uses about a third of the texture.",
    )
    remesh: Literal["none", "triangle", "quad"] = Field(
        "none", description="New triangles of even size; quad is refused with the reason."
    )
    target_vertices: int | None = Field(
        None, ge=4, le=500_000, description="Vertices that remesh aims for."
    )
    estimate_illumination: bool = Field(
        False, description="Also estimate the picture's light, as sg_amplitudes in the metadata."
    )

    @classmethod
    def parse(cls, options: dict[str, Any]) -> Self:
        """Validate keyword arguments.

        Raises:
            InvalidConfigError: names the first wrong option and what is accepted.
        """
        parsed = super().parse(options)
        if parsed.target_vertices is not None and parsed.remesh == "none":
            raise InvalidConfigError(
                "target_vertices concerns remeshing, which is 'none'.",
                hint="Set remesh to 'triangle', or use target_faces to simplify.",
                details={"option": "target_vertices"},
            )
        return parsed

    def resolve(self, config: StableFast3DConfig) -> Self:
        """Fill what depends on the checkpoint: resolution and threshold."""
        return self.model_copy(
            update={
                "resolution": self.resolution or config.isosurface_resolution,
                "threshold": self.threshold or config.isosurface_threshold,
            }
        )
