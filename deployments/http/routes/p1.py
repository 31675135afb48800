"""Wire format P1, as existing clients speak it: errors are text, results are raw or base64."""

from __future__ import annotations

import base64
import os
import socket
from typing import Any

from fastapi import APIRouter, Request, Response
from fastapi.responses import JSONResponse

from deployments.http.body import parse_json, plain_media_type, validated
from deployments.http.compat_p1 import P1Request, as_submission, plan_for
from deployments.http.deps import App, AskerP1
from deployments.http.errors import TEXT_ERRORS
from deployments.http.results import media_type, result_key
from deployments.http.services import Services
from deployments.messages import JobView
from deployments.plan import ModelPlan
from dream_cad.exceptions import (
    DreamCadError,
    GenerationCancelledError,
    GenerationError,
    GenerationTimeoutError,
    InvalidConfigError,
)
from dream_cad.queue import JobStatus

router = APIRouter(tags=["P1: Hunyuan3D's API server"])

_TEXT = {"text/plain": {"schema": {"type": "string"}}}
_STATUSES = (400, 401, 403, 404, 409, 410, 413, 415, 422, 429, 500, 502, 503, 504, 507)
_ERRORS: dict[int | str, dict[str, Any]] = {
    status: {"description": "The error, as text.", "content": _TEXT} for status in _STATUSES
}
_BODY: dict[str, Any] = {
    "requestBody": {
        "required": True,
        "content": {"application/json": {"schema": P1Request.model_json_schema()}},
    }
}
_BINARY = {"schema": {"type": "string", "format": "binary"}}
_TEXTURING = ("finishing", "textur", "bak")

TEXT_ERRORS.update({"/generate", "/send", "/status", "/health"})


@router.post(
    "/generate",
    response_class=Response,
    openapi_extra=_BODY,
    responses={
        **_ERRORS,
        200: {"description": "The mesh.", "content": {"model/gltf-binary": _BINARY}},
    },
)
async def generate_p1(request: Request, app: App, who: AskerP1) -> Response:
    """Make a mesh and answer with it; a client that hangs up cancels the job."""
    who.require("submit")
    fields = await _read(request)
    view = await app.make(
        as_submission(fields, _plan(app, fields)), who, app.args.limits.max_wait_s
    )
    if view.job.status is not JobStatus.COMPLETED:
        raise await _failure(app, view)
    return Response(await _mesh(app, view), media_type=media_type(fields.type))


@router.post("/send", openapi_extra=_BODY, responses=_ERRORS)
async def send_p1(request: Request, app: App, who: AskerP1) -> dict[str, str]:
    """Queue a mesh; ``/status/{uid}`` tells of it."""
    who.require("submit")
    fields = await _read(request)
    view = await app.submit(as_submission(fields, _plan(app, fields)), who)
    return {"uid": view.job.id}


@router.get("/status/{uid}", responses=_ERRORS)
async def status_p1(uid: str, app: App, who: AskerP1) -> JSONResponse:
    """Answer processing, texturing, completed with the mesh as base64, or error."""
    who.require("read")
    view = await app.job(uid, who)
    job = view.job
    if job.status is JobStatus.COMPLETED:
        content = base64.b64encode(await _mesh(app, view)).decode()
        return JSONResponse({"status": "completed", "model_base64": content})
    if job.status.is_final:
        message = job.error or "The job was cancelled."
        return JSONResponse({"status": "error", "message": message})
    is_texturing = any(word in job.stage for word in _TEXTURING)
    return JSONResponse({"status": "texturing" if is_texturing else "processing"})


@router.get("/health", responses={503: _ERRORS[503]})
async def health_p1() -> dict[str, str]:
    """Answer while the gateway lives. Needs no key."""
    return {"status": "healthy", "worker_id": f"{socket.gethostname()}-{os.getpid()}"}


async def _read(request: Request) -> P1Request:
    plain_media_type(request)  # compressed bodies are refused
    fields = parse_json(await request.body())  # some clients name no content type
    if not isinstance(fields, dict):
        raise InvalidConfigError("The body must be a JSON object.")
    return validated(P1Request, fields)


def _plan(app: Services, fields: P1Request) -> ModelPlan:
    return plan_for(fields, app.plans, app.intake.default_model)


async def _failure(app: Services, view: JobView) -> DreamCadError:
    """Return why there is no mesh; a job that took too long is cancelled."""
    if view.job.status is JobStatus.FAILED:
        return GenerationError(view.job.error or "The generation failed.")
    if view.job.status is JobStatus.CANCELLED:
        return GenerationCancelledError("The job was cancelled.")
    await app.router.cancel(view.job.id)
    return GenerationTimeoutError(f"No mesh within {app.args.limits.max_wait_s:g} s.")


async def _mesh(app: Services, view: JobView) -> bytes:
    job = view.job
    return await app.results.read_mesh(result_key(job), job.policy.get("format", "glb"))
