"""Results: the mesh, its preview, and the answer that waits for it."""

from __future__ import annotations

from typing import Annotated, Any

from fastapi import APIRouter, Path, Query, Request, Response

from deployments.http.body import read_submission
from deployments.http.checks import check_format
from deployments.http.deps import App, IdempotencyKey, Reader, Submitter, problems
from deployments.http.documents import FileDocument, FilesDocument, job_document
from deployments.http.download import BINARY, Download, described
from deployments.http.errors import problem_response
from deployments.http.results import default_format, media_type, media_type_of, result_key
from deployments.http.routes.jobs import JOB_BODY
from deployments.http.services import Services
from deployments.messages import PREVIEW_FILE, RECEIPT_FILE, JobView
from dream_cad.queue import JobStatus

router = APIRouter(tags=["results"])

_GLB = "model/gltf-binary"
_MESH: dict[int | str, dict[str, Any]] = {
    200: {"description": "The mesh.", "content": {_GLB: BINARY}}
}
Format = Annotated[str, Query(max_length=16, description="glb, obj, ply, stl, or zip.")]


@router.get(
    "/v1/jobs/{job_id}/result",
    response_class=Response,
    responses={**described("The mesh.", _GLB), **problems(404, 409, 410)},
)
async def get_result(
    job_id: str, request: Request, app: App, who: Reader, format: Format | None = None
) -> Response:
    """Return the mesh in the format that the job named; others are converted on demand.

    A job with a profile answers with the profile's zip, unless a format is asked for.
    """
    view = await app.job(job_id, who)
    return (await mesh_download(app, view, format or default_format(view.job))).answer(request)


@router.get(
    "/v1/jobs/{job_id}/preview.png",
    response_class=Response,
    responses={
        200: {"description": "Turntable sheet.", "content": {"image/png": BINARY}},
        **problems(404, 409, 410),
    },
)
async def get_preview(job_id: str, app: App, who: Reader) -> Response:
    """Return the turntable sheet; of a job at work, what it last showed of itself."""
    job = (await app.job(job_id, who)).job
    if not job.status.is_final:
        picture = await app.results.read_work_preview(job.id)
        if picture is not None:
            headers = {"Cache-Control": "no-store"}
            return Response(picture, headers=headers, media_type="image/png")
    key = result_key(job)
    return Response(await app.results.read_file(key, PREVIEW_FILE), media_type="image/png")


@router.get("/v1/jobs/{job_id}/files", responses=problems(404, 409, 410))
async def list_files(job_id: str, app: App, who: Reader) -> FilesDocument:
    """List what is stored of the result: mesh, pictures, splats, whatever the model made."""
    view = await app.job(job_id, who)
    stored = await app.results.files(result_key(view.job))
    files = [
        FileDocument(
            name=name,
            bytes=file.bytes,
            sha256=file.sha256,
            media_type=media_type_of(name),
            url=f"/v1/jobs/{view.job.id}/files/{name}",
        )
        for name, file in stored.items()
    ]
    return FilesDocument(files=files)


@router.get(
    "/v1/jobs/{job_id}/files/{name}",
    response_class=Response,
    responses={
        **described("The file.", "application/octet-stream"),
        **problems(404, 409, 410),
    },
)
async def get_file(
    job_id: str,
    name: Annotated[str, Path(max_length=128)],
    request: Request,
    app: App,
    who: Reader,
) -> Response:
    """Return one of the files that the list names."""
    view = await app.job(job_id, who)
    content, stored = await app.results.read_listed(result_key(view.job), name)
    url = f"/v1/jobs/{view.job.id}"
    filename = f"{view.job.id}-{name}"
    download = Download(content, media_type_of(name), stored.sha256, filename, url)
    return download.answer(request)


@router.get(
    "/v1/jobs/{job_id}/receipt",
    response_class=Response,
    responses={
        200: {
            "description": "How the result was made.",
            "content": {"application/json": {"schema": {"type": "object"}}},
        },
        **problems(404, 409, 410),
    },
)
async def get_receipt(job_id: str, app: App, who: Reader) -> Response:
    """Return the receipt: seed, weights, versions, device, options, licence, tries."""
    key = result_key((await app.job(job_id, who)).job)
    content = await app.results.read_file(key, RECEIPT_FILE)
    return Response(content, media_type="application/json")


@router.post(
    "/v1/generate",
    response_class=Response,
    openapi_extra=JOB_BODY,
    responses={
        **_MESH,
        202: {
            "description": "Still at work: the job.",
            "content": {"application/json": {"schema": {"type": "object"}}},
        },
        **problems(404, 409, 410, 413, 415, 502, 504),
    },
)
async def generate(
    request: Request,
    app: App,
    who: Submitter,
    timeout: Annotated[float | None, Query(gt=0, allow_inf_nan=False)] = None,
    idempotency_key: IdempotencyKey = None,
) -> Response:
    """Return the mesh itself, or 202 with the job past ``timeout`` seconds.

    A client that hangs up before that cancels the job, unless it gave an idempotency key.
    """
    limits = app.args.limits
    wait_s = min(timeout or limits.generate_timeout_s, limits.max_wait_s)
    submission = await read_submission(request)
    view = await app.make(submission, who, wait_s, idempotency_key)
    job = view.job
    if job.status is JobStatus.COMPLETED:
        return (await mesh_download(app, view, default_format(job))).whole()
    if not job.status.is_final:
        document = job_document(view)
        headers = {"Location": document.links.self}
        return Response(document.model_dump_json(), 202, headers, "application/json")
    problem = job.problem or {"type": "generation-cancelled", "title": "Generation cancelled"}
    status = int(problem.get("status", 409 if job.status is JobStatus.CANCELLED else 500))
    return problem_response({**problem, "job_id": job.id}, status)


async def mesh_download(app: Services, view: JobView, format: str) -> Download:
    """Return a completed job's mesh for download."""
    if format != "zip":
        check_format(format)
    content = await app.results.read_mesh(result_key(view.job), format)
    sha256 = await app.results.fingerprint(content)
    filename, url = f"{view.job.id}.{format}", f"/v1/jobs/{view.job.id}"
    return Download(content, media_type(format), sha256, filename, url)
