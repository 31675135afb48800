"""What is served, on what, and whether it is well."""

from __future__ import annotations

import asyncio
from dataclasses import asdict
from typing import Any, Literal

from fastapi import APIRouter

from deployments.http.checks import makes_variants, options_schema, textures_meshes, view_names
from deployments.http.deps import App, Reader, problems
from deployments.http.documents import ModelDocument, ModelsDocument, StatusDocument
from deployments.messages import ModelInfo
from deployments.plan import ModelPlan
from dream_cad.exceptions import ServiceUnavailableError
from dream_cad.mesh.export import FORMATS

router = APIRouter(tags=["cluster"])

_READY_TIMEOUT_S = 5.0


@router.get("/v1/models")
async def list_models(app: App, who: Reader) -> ModelsDocument:
    """List all models: capabilities, checkpoint, options, and whether each can take jobs here."""
    infos = await app.router.models()
    documents = [_model(plan, infos.get(plan.name)) for plan in app.plans.values()]
    return ModelsDocument(models=documents, default_model=app.intake.default_model)


def _model(plan: ModelPlan, info: ModelInfo | None) -> ModelDocument:
    state: Literal["ready", "asleep", "loading", "failed", "not-deployed"] = "not-deployed"
    reason = plan.reason
    if info is not None:
        state = _state(info)
        reason = info.problem["detail"] if info.problem else reason
    return ModelDocument(
        name=plan.name,
        available=state in ("ready", "asleep"),
        state=state,
        reason=reason,
        checkpoint=plan.checkpoint,
        license=plan.weights_license,
        formats=list(FORMATS),
        capabilities=asdict(plan.capabilities) if plan.capabilities else None,
        textures_meshes=plan.is_deployed and textures_meshes(plan),
        makes_variants=plan.is_deployed and makes_variants(plan),
        views=view_names(plan) if plan.is_deployed else None,
        draws_picture_first=plan.needs_picture,
        options_schema=options_schema(plan) if plan.is_deployed else None,
    )


def _state(info: ModelInfo) -> Literal["ready", "asleep", "loading", "failed"]:
    if info.is_ready:
        return "ready"
    if info.problem is not None:
        return "failed"
    return "asleep" if info.is_asleep else "loading"


@router.get("/v1/cluster")
async def get_cluster(app: App, who: Reader) -> dict[str, Any]:
    """Return GPUs, replicas, queue depth by model and priority, swaps, and what is paused."""
    return await app.router.cluster()


@router.get("/healthz")
async def healthz() -> StatusDocument:
    """Answer while the gateway lives. Needs no key."""
    return StatusDocument(status="ok")


@router.get("/readyz", responses=problems(503))
async def readyz(app: App) -> StatusDocument:
    """Answer 200 once a model can take jobs, else 503 with the reasons. Needs no key."""
    try:
        infos = await asyncio.wait_for(app.router.models(), _READY_TIMEOUT_S)
    except TimeoutError as error:
        raise ServiceUnavailableError("The router does not answer.") from error
    ready = [name for name, info in infos.items() if info.is_ready or info.is_asleep]
    if ready:
        return StatusDocument(status="ready", models=ready)
    reasons = {name: plan.reason for name, plan in app.plans.items() if not plan.is_deployed}
    for name, info in infos.items():
        reasons[name] = info.problem["detail"] if info.problem else "loading"
    raise ServiceUnavailableError("No model can take jobs yet.", details={"models": reasons})
