"""Batches: many jobs as one object."""

from __future__ import annotations

import asyncio
import uuid
from typing import Annotated, Any

from fastapi import APIRouter, Query, Request, Response
from fastapi.responses import StreamingResponse

from deployments.http.archive import stream_archive
from deployments.http.batch_body import read_batch
from deployments.http.checks import check_format
from deployments.http.deps import App, IdempotencyKey, Reader, Submitter, problems
from deployments.http.documents import (
    BatchDocument,
    BatchItemDocument,
    BatchItemsDocument,
    RetryDocument,
    batch_document,
    job_document,
)
from deployments.http.intake import repeat_hash
from deployments.http.schemas import BatchRequest

router = APIRouter(prefix="/v1/batches", tags=["batches"])

_BODY: dict[str, Any] = {
    "requestBody": {
        "required": True,
        "content": {
            "application/json": {"schema": BatchRequest.model_json_schema()},
            "application/jsonl": {
                "schema": {"type": "string", "description": "A JSON object or string a line."}
            },
            "text/csv": {
                "schema": {
                    "type": "string",
                    "description": "Columns prompt or image_url, model, priority, tags, "
                    "options, option.<name>.",
                }
            },
            "multipart/form-data": {
                "schema": {
                    "type": "object",
                    "required": ["file"],
                    "properties": {
                        "file": {"type": "string", "format": "binary"},
                        "name": {"type": "string"},
                        "model": {"type": "string"},
                        "priority": {"type": "string"},
                    },
                }
            },
        },
    }
}


@router.post("", status_code=202, openapi_extra=_BODY, responses=problems(409, 413, 415, 502))
async def create_batch(
    request: Request,
    response: Response,
    app: App,
    who: Submitter,
    idempotency_key: IdempotencyKey = None,
) -> BatchDocument:
    """Queue many jobs, all or none; they are durable before the answer is sent."""
    submission = await read_batch(request, app.args.edge.max_batch_items)
    batch = submission.request
    images = await app.pictures_of(submission)
    prepared = await asyncio.to_thread(app.intake.make_jobs, batch, images, who.id, idempotency_key)
    document = batch_document(await app.submit_batch(prepared, batch.name, who))
    response.headers["Location"] = document.links.self
    return document


@router.get("/{batch_id}", responses=problems(404))
async def get_batch(batch_id: str, app: App, who: Reader) -> BatchDocument:
    """Return a batch: how many of its jobs are in which state."""
    return batch_document(await app.batch(batch_id, who))


@router.get("/{batch_id}/items", responses=problems(404))
async def list_items(
    batch_id: str,
    app: App,
    who: Reader,
    cursor: Annotated[str | None, Query(max_length=200)] = None,
    limit: Annotated[int, Query(ge=1, le=200)] = 50,
) -> BatchItemsDocument:
    """List a batch's items in order, each with its job."""
    await app.batch(batch_id, who)
    views, next_cursor = await app.router.batch_items(batch_id, cursor, limit)
    items = [
        BatchItemDocument(index=view.job.batch_index or 0, job=job_document(view)) for view in views
    ]
    return BatchItemsDocument(items=items, next_cursor=next_cursor)


@router.post("/{batch_id}/retry", status_code=202, responses=problems(404, 409))
async def retry_failed(
    batch_id: str, app: App, who: Submitter, idempotency_key: IdempotencyKey = None
) -> RetryDocument:
    """Queue the failed items again; the new jobs take their places in the batch."""
    await app.batch(batch_id, who)
    key = idempotency_key or str(uuid.uuid4())  # the gateway itself may have to ask twice
    fingerprint = repeat_hash("retry", f"{batch_id} {key}")
    return RetryDocument(jobs=await app.router.retry_failed(batch_id, key, fingerprint))


@router.post("/{batch_id}/pause", responses=problems(404))
async def pause_batch(batch_id: str, app: App, who: Submitter) -> BatchDocument:
    """Start no more of its jobs; those that run go on."""
    await app.batch(batch_id, who)
    await app.router.pause_batch(batch_id)
    return batch_document(await app.batch(batch_id, who))


@router.post("/{batch_id}/resume", responses=problems(404))
async def resume_batch(batch_id: str, app: App, who: Submitter) -> BatchDocument:
    """Start its jobs again."""
    await app.batch(batch_id, who)
    await app.router.resume_batch(batch_id)
    return batch_document(await app.batch(batch_id, who))


@router.delete("/{batch_id}", responses=problems(404))
async def cancel_batch(batch_id: str, app: App, who: Submitter) -> BatchDocument:
    """Cancel all jobs of a batch that have not ended."""
    await app.batch(batch_id, who)
    await app.router.cancel_batch(batch_id)
    return batch_document(await app.batch(batch_id, who))


@router.get(
    "/{batch_id}/archive.zip",
    response_class=StreamingResponse,
    responses={
        200: {
            "description": "Meshes, contact sheets and manifest.json, made while it is sent.",
            "content": {"application/zip": {"schema": {"type": "string", "format": "binary"}}},
        },
        **problems(404),
    },
)
async def get_archive(
    batch_id: str,
    app: App,
    who: Reader,
    format: Annotated[str, Query(max_length=16)] = "glb",
) -> StreamingResponse:
    """Return what is done of a batch as one zip with a manifest and contact sheets."""
    check_format(format)
    document = batch_document(await app.batch(batch_id, who))
    described = {"batch": document.model_dump(mode="json", exclude={"links"})}
    stream = stream_archive(app.jobs_of_batch(batch_id), app.results, format, described)
    headers = {
        "Content-Disposition": f'attachment; filename="batch-{document.id}.zip"',
        "X-Content-Type-Options": "nosniff",
    }
    return StreamingResponse(stream, media_type="application/zip", headers=headers)
