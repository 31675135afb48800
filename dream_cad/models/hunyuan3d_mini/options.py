"""Generation options of Hunyuan3D-2mini."""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar, Literal, Self

from pydantic import Field

from dream_cad.models.image_options import ImageModelOptions

if TYPE_CHECKING:
    from dream_cad.models.hunyuan3d_mini.config import Hunyuan3DConfig


VIEWS = ("front", "left", "back", "right")
"""Names of the pictures that generate_from_views takes, in the conditioner's order."""


class Hunyuan3DOptions(ImageModelOptions):
    """Options of one generation with Hunyuan3D-2mini."""

    model_title: ClassVar[str] = "Hunyuan3D-2mini"
    text_options: ClassVar[dict[str, str]] = {
        "picture_steps": "num_inference_steps",
        "picture_guidance_scale": "guidance_scale",
        "negative_prompt": "negative_prompt",
    }

    num_inference_steps: int | None = Field(
        None, ge=1, le=100, description="Denoising steps; by default 50, turbo 5."
    )
    guidance_scale: float = Field(
        5.0, ge=0.0, le=50.0, description="How closely the shape follows the picture."
    )
    seed: int | None = Field(
        None, ge=0, le=2**32 - 1, description="Seed of the noise, and of a picture made from text."
    )
    octree_resolution: int | None = Field(
        None, ge=16, le=512, description="Cells a side of the volume; by default 384."
    )
    num_latents: int | None = Field(
        None, ge=16, le=8192, description="Tokens of the shape; by default the checkpoint's."
    )
    mc_level: float = Field(0.0, ge=-10.0, le=10.0, description="Logit of the surface.")
    volume: Literal["adaptive", "flash", "dense"] = Field(
        "adaptive",
        description="How the volume is evaluated: adaptive is exact near the surface, flash "
        "approximates the attention (FlashVDM), dense evaluates every point.",
    )
    floater_ratio: float = Field(
        0.005,
        ge=0.0,
        le=1.0,
        description="Drop loose parts with fewer faces than this share of the largest part's.",
    )
    fill_holes: int = Field(
        32, ge=0, le=256, description="Close holes of at most so many edges; 0 closes none."
    )
    texture: bool = Field(
        False, description="Paint a texture with Hunyuan3D-Paint, whose weights are its own."
    )
    texture_size: int = Field(
        2048, ge=512, le=4096, description="Side of the painted texture in pixels."
    )
    view_size: int = Field(
        512,
        ge=64,
        le=1024,
        multiple_of=64,
        description="Side of the six views that are painted; the networks were trained on 512.",
    )
    paint_steps: int | None = Field(
        None,
        ge=1,
        le=200,
        description="Denoising steps of the views; by default 30, with the turbo weights 10 (at "
        "most 30).",
    )
    delight: bool = Field(
        True,
        description="Take light and shadow out of the picture before painting after it; without, "
        "fine details stay.",
    )
    keep_uvs: bool = Field(
        False, description="Paint on the UVs that a given mesh has, instead of unwrapping it anew."
    )
    picture_steps: int | None = Field(
        None, ge=1, le=200, description="Denoising steps of the picture (text only)."
    )
    picture_guidance_scale: float | None = Field(
        None, ge=0.0, le=50.0, description="Guidance of the picture (text only)."
    )

    def resolve(self, config: Hunyuan3DConfig) -> Self:
        """Fill what depends on the checkpoint."""
        return self.model_copy(
            update={
                "num_inference_steps": self.num_inference_steps or config.num_inference_steps,
                "octree_resolution": self.octree_resolution or config.octree_resolution,
                "num_latents": self.num_latents or config.vae.num_latents,
            }
        )
