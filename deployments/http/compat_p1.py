"""Wire format P1 (Hunyuan3D's API server): its fields as a request of ours."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from pydantic import BaseModel, ConfigDict, Field

from deployments.http.body import Submission, decode_base64, decode_image
from deployments.http.checks import takes_option
from deployments.http.meshes import painter_among
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
    mesh: str | None = Field(None, description="A GLB to texture, base64.")
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

    A mesh is textured and keeps its triangles, so ``face_count`` has no say there; without
    ``texture`` there is nothing to do with it.

    Raises:
        InvalidConfigError: neither or both of prompt and image, or a mesh without ``texture``.
    """
    if fields.mesh is not None and not fields.texture:
        raise InvalidConfigError("A mesh is sent to be textured.", hint='Send "texture": true.')
    if (fields.image is None) == (fields.text is None):
        raise InvalidConfigError("Send either text or image.")
    image = None if fields.image is None else decode_image(fields.image)
    options = _options(fields, plan, is_text=image is None)
    if fields.mesh is not None:
        for name in (_TARGET_FACES, "texture", *_RESOLUTION_NAMES):
            options.pop(name, None)
    request = JobRequest(prompt=fields.text, model=plan.name, options=options, format=fields.type)
    mesh = None if fields.mesh is None else decode_base64(fields.mesh, "mesh")
    return Submission(request, image, mesh=mesh)


def plan_for(fields: P1Request, plans: Mapping[str, ModelPlan], default: str) -> ModelPlan:
    """Return the model that shall work: the default, or one that can texture the given mesh.

    Raises:
        InvalidConfigError: a mesh is to be textured, and no model that is served can.
    """
    return plans[default] if fields.mesh is None else painter_among(plans, default)


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
