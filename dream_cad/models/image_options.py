"""What the options of every model that starts from a picture have in common."""

from __future__ import annotations

from typing import Any, ClassVar, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from dream_cad.exceptions import InvalidConfigError


class ImageModelOptions(BaseModel):
    """Options of one generation; unknown names, NaN and infinity are refused.

    Attributes:
        model_title: the model's name in messages.
        text_options: options that concern only the picture made from text, and the argument of
            the text stage that each becomes.
    """

    model_config = ConfigDict(extra="forbid", allow_inf_nan=False, frozen=True)

    model_title: ClassVar[str]
    text_options: ClassVar[dict[str, str]]

    remove_background: bool = Field(
        True,
        description="Cut the object out and crop to it; false takes the picture as it is, on its "
        "own (ideally grey) background.",
    )
    matting: Literal["auto", "alpha", "grabcut", "model"] = Field(
        "auto", description="How the background is removed."
    )
    target_faces: int | None = Field(
        None, ge=100, le=5_000_000, description="Simplify to about this many triangles."
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
            raise cls._explain(error) from error

    def for_image(self) -> Self:
        """Return the options, refusing those that only text takes.

        Raises:
            InvalidConfigError: one of them is set.
        """
        given = sorted(name for name in self.text_options if getattr(self, name) is not None)
        if given:
            raise InvalidConfigError(
                f"{', '.join(given)} only concern generation from text.",
                hint="Leave them out when the input is an image.",
                details={"options": given},
            )
        return self

    def for_text_stage(self) -> dict[str, Any]:
        """Return the arguments of the text stage that these options set."""
        return {argument: getattr(self, name) for name, argument in self.text_options.items()}

    @classmethod
    def _explain(cls, error: ValidationError) -> InvalidConfigError:
        first = error.errors(include_url=False)[0]
        name = ".".join(str(part) for part in first["loc"])
        if first["type"] == "extra_forbidden":
            message = f"{cls.model_title} has no option {name!r}."
        else:
            message = f"Option {name} is {first['input']!r}: {first['msg']}."
        return InvalidConfigError(
            message,
            hint=f"Options: {', '.join(cls.model_fields)}.",
            details={"option": name, "allowed": list(cls.model_fields)},
        )


class OnePassOptions(ImageModelOptions):
    """Options of models that sample nothing: seed and steps concern the picture made from text."""

    text_options: ClassVar[dict[str, str]] = {
        "num_inference_steps": "num_inference_steps",
        "guidance_scale": "guidance_scale",
        "negative_prompt": "negative_prompt",
    }

    foreground_ratio: float = Field(
        0.85, ge=0.5, le=1.0, description="Longest side of the object over the input image's."
    )
    texture_size: int = Field(1024, ge=256, le=4096, description="Side of a texture in pixels.")
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
