"""Generation options of TRELLIS."""

from __future__ import annotations

from enum import StrEnum
from typing import Annotated, Any, ClassVar, Literal, Self

from pydantic import AfterValidator, BeforeValidator, Field

from dream_cad.exceptions import InvalidConfigError
from dream_cad.models.image_options import ImageModelOptions


class RepresentationType(StrEnum):
    """What TRELLIS can return."""

    MESH = "mesh"
    NERF = "nerf"
    GAUSSIAN_SPLATTING = "gaussian_splatting"
    SLAT = "slat"


def _listed(value: Any) -> Any:
    """One representation, a text with commas, or several: a list."""
    if isinstance(value, str):
        return [part.strip() for part in value.split(",")]
    return list(value) if isinstance(value, set | frozenset | tuple) else value


def _bounds(value: tuple[float, float] | None) -> tuple[float, float] | None:
    if value is not None and not 0 <= value[0] <= value[1] <= 1:
        raise ValueError("two times from 0 to 1 were expected, the lower first")
    return value


def _power_of_two(value: int) -> int:
    if value & (value - 1):
        raise ValueError("a power of two was expected")
    return value


TextureSize = Annotated[int, Field(ge=256, le=4096), AfterValidator(_power_of_two)]
Representations = Annotated[
    tuple[RepresentationType, ...],
    BeforeValidator(_listed, json_schema_input_type=list[RepresentationType] | str),
    AfterValidator(lambda value: tuple(dict.fromkeys(value))),
    Field(min_length=1, max_length=16),
]
Steps = Annotated[int, Field(ge=1, le=200)]
Strength = Annotated[float, Field(ge=0.0, le=50.0)]
Interval = Annotated[tuple[float, float], AfterValidator(_bounds)]


class TrellisOptions(ImageModelOptions):
    """Options of one generation with TRELLIS."""

    model_title: ClassVar[str] = "TRELLIS"
    text_options: ClassVar[dict[str, str]] = {
        "picture_steps": "num_inference_steps",
        "picture_guidance_scale": "guidance_scale",
        "negative_prompt": "negative_prompt",
    }

    representation: Representations = Field(
        (RepresentationType.MESH,),
        description="What to return, one or several: mesh, nerf, gaussian_splatting, slat. A mesh "
        "is always there; the others are files of the result.",
    )
    num_inference_steps: Steps | None = Field(
        None, description="Steps of both stages; by default the checkpoint's, 25."
    )
    guidance_scale: Strength | None = Field(
        None,
        description="Guidance strength of both stages, as TRELLIS counts it: 7.5 is the usual "
        "scale 8.5. By default the checkpoint's: 5 for pictures, 7.5 for text.",
    )
    structure_steps: Steps | None = Field(None, description="Steps of the structure stage.")
    structure_guidance: Strength | None = Field(
        None, description="Guidance strength of the structure stage."
    )
    structure_interval: Interval | None = Field(
        None, description="Times (1 is the start) in which the structure stage is guided."
    )
    latent_steps: Steps | None = Field(None, description="Steps of the detail stage.")
    latent_guidance: Strength | None = Field(
        None, description="Guidance strength of the detail stage."
    )
    latent_interval: Interval | None = Field(
        None, description="Times (1 is the start) in which the detail stage is guided."
    )
    rescale_t: float | None = Field(
        None, gt=0.0, le=100.0, description="Spends more steps near the start; by default 3."
    )
    multi_image: Literal["stochastic", "multidiffusion"] = Field(
        "stochastic",
        description="How several pictures guide: one after the other, or all in each step.",
    )
    seed: int | None = Field(
        None,
        ge=0,
        le=2**32 - 1,
        description="Seed of the noise, and of a picture made from text; drawn and told if not "
        "given.",
    )
    simplify: float | None = Field(
        None,
        ge=0.0,
        le=0.999,
        description="Share of the faces to take away, with a texture 0.95 if not given; "
        "target_faces comes first.",
    )
    texture: bool = Field(
        False, description="Bake a UV texture from views of the splats instead of vertex colours."
    )
    texture_size: TextureSize = Field(
        1024, description="Side of the texture in pixels, a power of two from 256 to 4096."
    )
    texture_source: Literal["gaussian_splatting", "nerf"] = Field(
        "gaussian_splatting", description="Whose views the texture is baked from."
    )
    bake: Literal["opt", "fast"] | None = Field(
        None,
        description="opt fits the texture to the views, fast averages them; by default opt on a "
        "GPU, fast on a CPU.",
    )
    fill_holes: bool = Field(
        True, description="Remove parts hidden inside and fill small holes (texture only)."
    )
    preview_size: int = Field(
        256, ge=16, le=1024, description="Height of the turntables of splats, field and latent."
    )
    picture_steps: int | None = Field(
        None, ge=1, le=200, description="Denoising steps of a picture made from text."
    )
    picture_guidance_scale: float | None = Field(
        None, ge=0.0, le=50.0, description="Guidance of a picture made from text."
    )

    def for_text(self) -> Self:
        """Return the options, refusing those of a picture where the prompt is read natively.

        Raises:
            InvalidConfigError: one of them is set.
        """
        names = ("picture_steps", "picture_guidance_scale")
        given = [name for name in names if getattr(self, name) is not None]
        if given:
            raise InvalidConfigError(
                f"{', '.join(given)} concern a picture made from text; this text variant makes "
                "none.",
                hint="Leave them out.",
                details={"options": given},
            )
        return self

    def needs(self, representation: RepresentationType) -> bool:
        """Whether a representation has to be decoded: it is wanted, or the texture's source."""
        is_source = self.texture and self.texture_source == representation
        return is_source or self.wants(representation)

    def wants(self, representation: RepresentationType) -> bool:
        """Whether a representation is asked for."""
        return representation in self.representation
