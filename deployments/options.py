"""Which stage an option belongs to. On the wire they are one flat object."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Self

from pydantic import BaseModel, ConfigDict, Field, model_validator

from dream_cad.models.image_options import ImageModelOptions
from dream_cad.profiles.profile import MAX_SIZE, ProfileName

TEXT_OPTIONS = {
    "num_inference_steps": "num_inference_steps",
    "guidance_scale": "guidance_scale",
    "negative_prompt": "negative_prompt",
}
"""Options of the text stage for models that do not say otherwise, and its argument that each
becomes; ``seed`` goes to it and to the model."""


class FinishOptions(BaseModel):
    """Options of the finishing stage, given beside the model's own."""

    model_config = ConfigDict(extra="forbid", allow_inf_nan=False)

    target_faces: int | None = Field(
        None, ge=4, le=10_000_000, description="Simplify to about so many triangles."
    )
    min_component: float = Field(
        0.0, ge=0.0, le=1.0, description="Drop loose parts below this share of the faces."
    )
    profile: ProfileName | None = Field(
        None,
        description="Also make the files that an engine, a web page or a printer wants: a zip.",
    )
    profile_size: float | None = Field(
        None,
        gt=0,
        le=MAX_SIZE,
        description="Longest side in the profile's unit: metres, millimetres for print-fdm.",
    )
    profile_name: str | None = Field(
        None,
        min_length=1,
        max_length=200,
        description="Names the profile's files; else the prompt.",
    )

    @model_validator(mode="after")
    def _concerns_a_profile(self) -> Self:
        if self.profile is None and (self.profile_size or self.profile_name):
            raise ValueError("profile_size and profile_name need a profile")
        return self


@dataclass
class SplitOptions:
    """The options of one job by stage; ``seed`` goes to both text and model."""

    text: dict[str, Any]
    model: dict[str, Any]
    finish: dict[str, Any]


def finisher_options(model_options: type[BaseModel] | None) -> frozenset[str]:
    """Return the finishing options that the finisher reads: those the model has not itself.

    A model that bakes a texture must simplify before it, so it takes them over.
    """
    own = model_options.model_fields.keys() if model_options is not None else set()
    return frozenset(FinishOptions.model_fields.keys() - own)


def text_options(model_options: type[BaseModel] | None) -> dict[str, str]:
    """Return the text stage's options under the names that a model gives them."""
    if model_options is not None and issubclass(model_options, ImageModelOptions):
        return dict(model_options.text_options)
    return dict(TEXT_OPTIONS)


def split_options(
    options: dict[str, Any], finish_names: frozenset[str], text_names: dict[str, str]
) -> SplitOptions:
    """Sort a job's flat options by the stage that reads them.

    Args:
        options: as submitted.
        finish_names: what ``finisher_options`` says for the model.
        text_names: what ``text_options`` says for it.
    """
    text = {text_names[name]: value for name, value in options.items() if name in text_names}
    finish = {name: value for name, value in options.items() if name in finish_names}
    model = {
        name: value
        for name, value in options.items()
        if name not in text_names and name not in finish
    }
    if "seed" in options:
        text["seed"] = options["seed"]
    return SplitOptions(text, model, finish)
