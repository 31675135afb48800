"""Wire format P2, as Meshy's clients speak it: tasks are jobs, errors carry a ``message``."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from typing import Annotated, Any, TypeVar

from fastapi import APIRouter, Path, Query, Request, Response
from fastapi.responses import StreamingResponse
from pydantic import BaseModel

from deployments.http.auth import Principal
from deployments.http.body import Submission, parse_json, plain_media_type, validated
from deployments.http.compat_p2 import (
    ImageTo3D,
    TaskDocument,
    TaskId,
    TaskKind,
    TextTo3D,
    image_submission,
    names_texture,
    refine_submission,
    tag_of,
    task_document,
    text_submission,
    texture_submission,
)
from deployments.http.deps import App, Reader, Submitter
from deployments.http.download import BINARY, Download
from deployments.http.errors import MESSAGE_ERRORS
from deployments.http.meshes import painter_among
from deployments.http.results import media_type, media_type_of, result_key
from deployments.http.services import Services
from deployments.http.signed_links import is_signed, sign
from deployments.http.sse import encode_event, with_keep_alive
from deployments.messages import PREVIEW_FILE, JobView
from deployments.plan import ModelPlan
from dream_cad.exceptions import AuthenticationError, InvalidConfigError, JobNotFoundError
from dream_cad.mesh.export import FORMATS
from dream_cad.queue import JobFilter

router = APIRouter(prefix="/openapi", tags=["P2: Meshy's API"])

MESSAGE_ERRORS.add("/openapi")
_KEEP_ALIVE_S = 15.0
_SCAN = 200
_MAX_PAGES = 100
_MESSAGE = {"type": "object", "properties": {"message": {"type": "string"}}}
_ERRORS: dict[int | str, dict[str, Any]] = {
    status: {
        "description": "The error; message says what to do.",
        "content": {"application/json": {"schema": _MESSAGE}},
    }
    for status in (400, 401, 403, 404, 409, 410, 413, 415, 422, 429, 500, 502, 503, 507)
}
R = TypeVar("R", bound=BaseModel)
_THUMBNAIL = "thumbnail.png"

Task = Annotated[str, Path(max_length=64)]
PageNumber = Annotated[int, Query(ge=1, le=_MAX_PAGES)]
PageSize = Annotated[int, Query(ge=1, le=50)]


def _body(kind: type[BaseModel]) -> dict[str, Any]:
    content = {"application/json": {"schema": kind.model_json_schema()}}
    return {"requestBody": {"required": True, "content": content}}


@router.post("/v2/text-to-3d", status_code=202, openapi_extra=_body(TextTo3D), responses=_ERRORS)
async def create_text_task(request: Request, app: App, who: Submitter) -> TaskId:
    """Queue a preview, or a refinement of one that succeeded."""
    fields = await _read(TextTo3D, request)
    if fields.mode == "preview":
        submission = text_submission(fields, _plan(app))
    else:
        submission = await _refinement(fields, app, who)
    return await _queue(submission, app, who)


@router.post("/v1/image-to-3d", status_code=202, openapi_extra=_body(ImageTo3D), responses=_ERRORS)
async def create_image_task(request: Request, app: App, who: Submitter) -> TaskId:
    """Queue a mesh from a picture."""
    fields = await _read(ImageTo3D, request)
    return await _queue(image_submission(fields, _plan(app)), app, who)


@router.get("/v1/balance", responses=_ERRORS)
async def balance(app: App, who: Reader) -> dict[str, int]:
    """Answer how many jobs may wait at once: there are no credits here."""
    key = next((key for key in await app.router.keys() if key.id == who.id), None)
    limit = key.max_pending if key is not None else None
    return {"balance": app.args.limits.max_pending if limit is None else limit}


@router.get(
    "/files/{task_id}/{name}",
    response_class=Response,
    responses={**_ERRORS, 200: {"description": "The file.", "content": {"model/*": BINARY}}},
)
async def get_task_file(
    task_id: Task,
    name: Annotated[str, Path(max_length=64)],
    request: Request,
    app: App,
    expires: Annotated[int, Query(ge=0, lt=2**40)] = 0,
    signature: Annotated[str, Query(max_length=128)] = "",
) -> Response:
    """Return a mesh or the thumbnail: to whoever has the signed link, or to the task's owner."""
    view = await _visible(task_id, name, expires, signature, request, app)
    return (await _file(app, view, name)).answer(request)


def _add_task_routes(kind: TaskKind, prefix: str) -> None:
    """Add what is the same for both kinds: read, follow, list, delete."""

    @router.get(f"{prefix}/{{task_id}}", responses=_ERRORS, name=f"get {kind} task")
    async def get_task(task_id: Task, request: Request, app: App, who: Reader) -> TaskDocument:
        """Return a task as it stands."""
        view = await _task(app, task_id, kind, who)
        return task_document(view, await _links(app, request, view))

    @router.get(
        f"{prefix}/{{task_id}}/stream",
        response_class=StreamingResponse,
        responses=_ERRORS,
        name=f"stream {kind} task",
    )
    async def stream_task(
        task_id: Task, request: Request, app: App, who: Reader
    ) -> StreamingResponse:
        """Send the task whenever it changes, until it has ended."""
        view = await _task(app, task_id, kind, who)
        links = await _links(app, request, view)
        stream = with_keep_alive(_messages(app, view.job.id, links), _KEEP_ALIVE_S)
        headers = {"Cache-Control": "no-store"}
        return StreamingResponse(stream, media_type="text/event-stream", headers=headers)

    @router.get(prefix, responses=_ERRORS, name=f"list {kind} tasks")
    async def list_tasks(
        request: Request,
        app: App,
        who: Reader,
        page_num: PageNumber = 1,
        page_size: PageSize = 10,
    ) -> list[TaskDocument]:
        """List one's own tasks, newest first."""
        views = await _page(app, JobFilter(owner=who.id, tag=tag_of(kind)), page_num, page_size)
        return [task_document(view, await _links(app, request, view)) for view in views]

    @router.delete(f"{prefix}/{{task_id}}", responses=_ERRORS, name=f"delete {kind} task")
    async def delete_task(task_id: Task, app: App, who: Submitter) -> dict[str, str]:
        """Cancel a task; one that has ended stays until its result's time is up."""
        view = await _task(app, task_id, kind, who)
        if not view.job.status.is_final:
            await app.router.cancel(task_id)
        return {}


_add_task_routes("text-to-3d", "/v2/text-to-3d")
_add_task_routes("image-to-3d", "/v1/image-to-3d")


async def _read(kind: type[R], request: Request) -> R:
    plain_media_type(request)  # compressed bodies are refused
    fields = parse_json(await request.body())
    if not isinstance(fields, dict):
        raise InvalidConfigError("The body must be a JSON object.")
    return validated(kind, fields)


def _plan(app: Services) -> ModelPlan:
    return app.plans[app.intake.default_model]


async def _refinement(fields: TextTo3D, app: Services, who: Principal) -> Submission:
    if not fields.preview_task_id:
        raise InvalidConfigError("mode 'refine' needs a preview_task_id.")
    preview = (await _task(app, fields.preview_task_id, "text-to-3d", who)).job
    plan = app.plans.get(preview.model_name) or _plan(app)
    if not names_texture(fields):
        return refine_submission(fields, plan, preview)
    painter = painter_among(app.plans, plan.name)
    mesh = await app.results.read_mesh(result_key(preview), "glb")
    return texture_submission(fields, painter, preview, mesh)


async def _queue(submission: Submission, app: Services, who: Principal) -> TaskId:
    return TaskId(result=(await app.submit(submission, who)).job.id)


async def _task(app: Services, task_id: str, kind: TaskKind, who: Principal) -> JobView:
    view = await app.job(task_id, who)
    if tag_of(kind) not in view.job.tags:
        raise JobNotFoundError(f"There is no {kind} task {task_id[:80]!r}.", hint="Check the id.")
    return view


async def _page(app: Services, wanted: JobFilter, number: int, size: int) -> list[JobView]:
    """Return a numbered page; our own pages have cursors, so those before it are walked."""
    first, last = (number - 1) * size, number * size
    found: list[JobView] = []
    cursor: str | None = None
    while len(found) < last:
        views, cursor = await app.router.list_jobs(wanted, cursor, min(_SCAN, last - len(found)))
        found += views
        if cursor is None:
            break
    return found[first:last]


async def _messages(app: Services, job_id: str, links: Callable[[str], str]) -> AsyncIterator[str]:
    async for event in app.router.follow(job_id, None):
        yield encode_event("message", task_document(event.view, links).model_dump_json())


async def _links(app: Services, request: Request, view: JobView) -> Callable[[str], str]:
    """Return what gives the URL of a task's file; signed, where there are keys."""
    base = f"{request.base_url}openapi/files/{view.job.id}"
    secret = await app.router.link_secret(view.job.owner)
    if secret is None:
        return lambda name: f"{base}/{name}"
    return lambda name: f"{base}/{name}?{sign(secret, view.job.id, name)}"


async def _visible(
    task_id: str, name: str, expires: int, signature: str, request: Request, app: Services
) -> JobView:
    if not signature:
        who = await app.auth.identify(request)
        who.require("read")
        return await app.job(task_id, who)
    try:
        view = await app.job(task_id, Principal("", frozenset({"admin"})))
    except JobNotFoundError:
        secret = None
    else:
        secret = await app.router.link_secret(view.job.owner)
    if secret is None or not is_signed(secret, task_id, name, expires, signature):
        raise AuthenticationError("The link is not valid, or its time is up.", hint="Ask anew.")
    return view


async def _file(app: Services, view: JobView, name: str) -> Download:
    key = result_key(view.job)
    stem, _, suffix = name.rpartition(".")
    if name == _THUMBNAIL:
        content, kind = await app.results.read_file(key, PREVIEW_FILE), media_type_of(name)
    elif stem == "model" and suffix in FORMATS:
        content, kind = await app.results.read_mesh(key, suffix), media_type(suffix)
    else:
        raise JobNotFoundError(f"The task has no file {name[:80]!r}.")
    sha256 = await app.results.fingerprint(content)
    return Download(content, kind, sha256, f"{view.job.id}-{name}")
