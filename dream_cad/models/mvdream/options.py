"""Generation options of MVDream: one place of truth for library, command line and HTTP."""

from __future__ import annotations

from typing import ClassVar, Literal

from pydantic import Field

from dream_cad.models.image_options import ImageModelOptions

Reconstruction = Literal["lgm", "sds"]

PROMPT_SUFFIX = ", 3d asset"
"""What the captions of the 3D training data ended with."""

LGM_NEGATIVE_PROMPT = (
    "ugly, blurry, pixelated obscure, unnatural colors, poor lighting, dull, unclear, cropped, "
    "lowres, low quality, artifacts, duplicate"
)
SDS_NEGATIVE_PROMPT = (
    "ugly, bad anatomy, blurry, pixelated obscure, unnatural colors, poor lighting, dull, and "
    "unclear, cropped, lowres, low quality, artifacts, duplicate, morbid, mutilated, poorly drawn "
    "face, deformed, dehydrated, bad proportions"
)


class MVDreamOptions(ImageModelOptions):
    """Options of one generation with MVDream."""

    model_title: ClassVar[str] = "MVDream"
    text_options: ClassVar[dict[str, str]] = {}

    reconstruction: Reconstruction = Field(
        "lgm",
        description="lgm: four views, then Gaussians in one pass (seconds). sds: a radiance field "
        "is optimised against the views' model (hours on a GPU).",
    )
    num_inference_steps: int = Field(30, ge=1, le=1000, description="Denoising steps of the views.")
    guidance_scale: float | None = Field(
        None,
        ge=0.0,
        le=200.0,
        description="How closely the views follow the prompt: 7.5 (lgm), 50 (sds). At 1 or less "
        "the negative prompt has no say.",
    )
    scheduler: Literal["ddim", "dpm++", "unipc", "euler"] = Field(
        "ddim", description="Sampler; dpm++ and unipc need 15 to 20 steps."
    )
    seed: int | None = Field(
        None, ge=0, le=2**32 - 1, description="Seed of the noise; drawn and told if not given."
    )
    prompt_suffix: bool | None = Field(
        None,
        description=f"Append {PROMPT_SUFFIX!r}, as the captions of the training data ended: by "
        "default yes (lgm), no (sds).",
    )
    elevation_deg: float = Field(
        0.0, ge=-30.0, le=60.0, description="Height of the views' cameras above the horizon."
    )
    resolution: int | None = Field(
        None, ge=32, le=512, description="Grid points a side of the mesh: 256."
    )
    density_threshold: float | None = Field(
        None, gt=0.0, le=1e4, description="Density of the surface: 1 (lgm), 25 (sds)."
    )
    closing: int | None = Field(
        None,
        ge=0,
        le=16,
        description="Grid points by which gaps in the skin are closed (lgm): 2 at 256.",
    )
    min_component: float = Field(
        0.01,
        ge=0.0,
        le=1.0,
        description="Drop loose parts with fewer faces than this share of the largest part's.",
    )
    texture: bool = Field(False, description="Bake a UV texture instead of vertex colours.")
    texture_size: int = Field(1024, ge=256, le=4096, description="Side of the texture in pixels.")
    sds_steps: int = Field(10_000, ge=1, le=100_000, description="Optimisation steps (sds).")
    sds_shading: bool = Field(
        False,
        description="Light the field while it is optimised (sds): smoother surfaces for several "
        "times the memory.",
    )
    sds_checkpoint_every: int = Field(
        250, ge=1, le=100_000, description="Steps between two checkpoints (sds)."
    )
    sds_checkpoint: str | None = Field(
        None,
        max_length=4096,
        description="File that the optimisation is kept in and taken up from (sds); pictures of "
        "how far it is come beside it, as .png.",
        # a path: no server takes it from a client; a server gives each job its own
        json_schema_extra={"local": True, "checkpoint": True},
    )

    @property
    def guidance(self) -> float:
        """The guidance scale in force."""
        if self.guidance_scale is not None:
            return self.guidance_scale
        return 7.5 if self.reconstruction == "lgm" else 50.0

    @property
    def negative(self) -> str:
        """The negative prompt in force."""
        if self.negative_prompt is not None:
            return self.negative_prompt
        return LGM_NEGATIVE_PROMPT if self.reconstruction == "lgm" else SDS_NEGATIVE_PROMPT

    @property
    def suffix(self) -> str:
        """What is appended to the prompt."""
        is_on = self.prompt_suffix
        return PROMPT_SUFFIX if is_on or (is_on is None and self.reconstruction == "lgm") else ""
