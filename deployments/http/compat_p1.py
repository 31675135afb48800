"""Wire format P1 (Hunyuan3D's API server): its fields as a request of ours."""

from __future__ import annotations

from typing import Any

from pydantic import BaseModel, ConfigDict, Field

from deployments.http.body import Submission, decode_image
from deployments.http.checks import takes_option
from deployments.http.schemas import JobRequest
from deployments.plan import ModelPlan
from dream_cad.exceptions import InvalidConfigError

_RESOLUTION_NAMES = ("octree_resolution", "resolution")
_TARGET_FACES = "target_faces"


class P1Request(BaseModel):
    """What clients of that server send; fields it does not know are ignored, as it does."""

    model_config = ConfigDict(extra="ignore", allow_inf_nan=False)

    image: str | None = Field(None, description="A picture, base64.")
    text: str | None = Field(None, description="A prompt.")
    mesh: str | None = Field(None, description="A GLB to texture, base64; not supported yet.")
    texture: bool = Field(False, description="Bake a texture, where the model can.")
    seed: int = Field(1234, ge=0, lt=2**32)
    octree_resolution: int = Field(128, ge=16, le=1024)
    num_inference_steps: int = Field(5, ge=1, le=1000)
    guidance_scale: float = Field(5.0, ge=0, le=100)
    face_count: int = Field(40_000, ge=100, le=10_000_000)
    type: str = Field("glb", description="Format of the mesh.")


def as_submission(fields: P1Request, plan: ModelPlan) -> Submission:
    """Return the request of ours that asks for the same.

    ``seed``, ``face_count`` (as target_faces) and ``texture`` go to models that have such an
    option. ``octree_resolution``, ``num_inference_steps`` and ``guidance_scale`` go there only
    when the client gave them, since their defaults are those of another model; steps and guidance
    of a model that draws a picture first concern prompts alone.

    Raises:
        InvalidConfigError: a mesh to texture, or neither or both of prompt and image.
    """
    if fields.mesh is not None:
        raise InvalidConfigError(
            "Texturing an uploaded mesh is not supported by this server.",
            hint="Send text or image, without mesh.",
        )
    if (fields.image is None) == (fields.text is None):
        raise InvalidConfigError("Send either text or image.")
    image = None if fields.image is None else decode_image(fields.image)
    options = _options(fields, plan, is_text=image is None)
    request = JobRequest(prompt=fields.text, model=plan.name, options=options, format=fields.type)
    return Submission(request, image)


def _options(fields: P1Request, plan: ModelPlan, *, is_text: bool) -> dict[str, Any]:
    wanted: dict[str, Any] = {"seed": fields.seed, _TARGET_FACES: fields.face_count}
    if fields.texture:
        wanted["texture"] = True
    given = fields.model_fields_set
    for name in ("num_inference_steps", "guidance_scale"):
        if name in given and (is_text or not (plan.needs_picture and name in plan.text_options)):
            wanted[name] = getattr(fields, name)
    if "octree_resolution" in given:
        name = next((n for n in _RESOLUTION_NAMES if takes_option(plan, n)), "")
        wanted[name] = fields.octree_resolution
    return {name: value for name, value in wanted.items() if name and takes_option(plan, name)}
