"""Generation options of TripoSR: one place of truth for library, command line and HTTP."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from dream_cad.exceptions import InvalidConfigError

if TYPE_CHECKING:
    from dream_cad.models.triposr.config import TripoSRConfig

TEXT_ONLY = frozenset({"num_inference_steps", "guidance_scale", "negative_prompt"})
"""Options of the picture that text is first made into."""


class TripoSROptions(BaseModel):
    """Options of one generation; unknown names, NaN and infinity are refused."""

    model_config = ConfigDict(extra="forbid", allow_inf_nan=False, frozen=True)

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
    remove_background: bool = Field(
        True,
        description="Cut the object out and crop to it; false takes the picture as it is, on its "
        "own (ideally grey) background.",
    )
    matting: Literal["auto", "alpha", "grabcut", "model"] = Field(
        "auto", description="How the background is removed."
    )
    chunk_size: int | None = Field(
        None, ge=1_024, le=4_194_304, description="Points a field query; by default by device."
    )
    texture: bool = Field(False, description="Bake a UV texture instead of vertex colours.")
    texture_size: int = Field(1024, ge=256, le=4096, description="Side of the texture in pixels.")
    target_faces: int | None = Field(
        None, ge=100, le=5_000_000, description="Simplify to about this many triangles."
    )
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
    negative_prompt: str | None = Field(
        None, max_length=2_000, description="What the picture shall not show (text only)."
    )

    @classmethod
    def parse(cls, options: dict[str, Any]) -> Self:
        """Validate keyword arguments.

        Raises:
            InvalidConfigError: names the first wrong option and what is accepted.
        """
        try:
            return cls.model_validate(options)
        except ValidationError as error:
            raise _explain(error, cls) from error

    def resolve(self, config: TripoSRConfig) -> Self:
        """Fill what depends on the checkpoint: resolution and threshold."""
        return self.model_copy(
            update={
                "resolution": self.resolution or config.default_resolution,
                "threshold": self.threshold or config.threshold,
            }
        )

    def for_image(self) -> Self:
        """Return the options, refusing those that only text takes.

        Raises:
            InvalidConfigError: one of them is set.
        """
        given = sorted(name for name in TEXT_ONLY if getattr(self, name) is not None)
        if given:
            raise InvalidConfigError(
                f"{', '.join(given)} only concern generation from text.",
                hint="Leave them out when the input is an image.",
                details={"options": given},
            )
        return self


def _explain(error: ValidationError, model: type[BaseModel]) -> InvalidConfigError:
    first = error.errors(include_url=False)[0]
    name = ".".join(str(part) for part in first["loc"])
    if first["type"] == "extra_forbidden":
        message = f"TripoSR has no option {name!r}."
    else:
        message = f"Option {name} is {first['input']!r}: {first['msg']}."
    return InvalidConfigError(
        message,
        hint=f"Options: {', '.join(model.model_fields)}.",
        details={"option": name, "allowed": list(model.model_fields)},
    )
