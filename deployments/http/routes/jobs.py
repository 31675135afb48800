"""Jobs: submit, list, follow, cancel, rerun."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Annotated, Any

from fastapi import APIRouter, Header, Query, Request, Response
from fastapi.responses import StreamingResponse

from deployments.http.body import read_submission
from deployments.http.deps import (
    App,
    IdempotencyKey,
    Name,
    Reader,
    Submitter,
    problems,
)
from deployments.http.documents import (
    DeliveriesDocument,
    DeliveryDocument,
    JobDocument,
    JobPageDocument,
    StatusName,
    job_document,
)
from deployments.http.schemas import JobRequest
from deployments.http.services import Services
from deployments.http.sse import RETRY, encode_event, last_event_id, with_keep_alive
from dream_cad.exceptions import JobStateError
from dream_cad.queue import JobFilter, JobStatus

router = APIRouter(prefix="/v1/jobs", tags=["jobs"])

_KEEP_ALIVE_S = 15.0

JOB_BODY: dict[str, Any] = {
    "requestBody": {
        "required": True,
        "content": {
            "application/json": {"schema": JobRequest.model_json_schema()},
            "multipart/form-data": {
                "schema": {
                    "type": "object",
                    "properties": {
                        "image": {"type": "string", "format": "binary"},
                        "mesh": {
                            "type": "string",
                            "format": "binary",
                            "description": "A GLB to texture.",
                        },
                        "images": {
                            "type": "array",
                            "items": {"type": "string", "format": "binary"},
                            "description": "Several pictures of one object, for models that take "
                            "them; by view as images.front, images.back and so on.",
                        },
                        "options": {"type": "string", "description": "JSON object"},
                        "model": {"type": "string"},
                        "priority": {"type": "string"},
                        "format": {"type": "string"},
                        "tags": {"type": "string", "description": "separated by commas"},
                    },
                }
            },
        },
    }
}


@router.post("", status_code=202, openapi_extra=JOB_BODY, responses=problems(409, 413, 415, 502))
async def create_job(
    request: Request,
    response: Response,
    app: App,
    who: Submitter,
    idempotency_key: IdempotencyKey = None,
) -> JobDocument:
    """Queue a job; it is durable before the answer is sent."""
    submission = await read_submission(request)
    document = job_document(await app.submit(submission, who, idempotency_key))
    response.headers["Location"] = document.links.self
    return document


@router.get("")
async def list_jobs(
    app: App,
    who: Reader,
    status: StatusName | None = None,
    model: Name = None,
    batch: Name = None,
    tag: Name = None,
    cursor: Annotated[str | None, Query(max_length=200)] = None,
    limit: Annotated[int, Query(ge=1, le=200)] = 50,
) -> JobPageDocument:
    """List jobs, newest first: one's own; an administrator's list holds everybody's."""
    wanted = JobFilter(
        status=JobStatus(status) if status else None,
        model_name=model,
        batch_id=batch,
        owner=None if who.is_admin else who.id,
        tag=tag,
    )
    views, next_cursor = await app.router.list_jobs(wanted, cursor, limit)
    return JobPageDocument(jobs=[job_document(view) for view in views], next_cursor=next_cursor)


@router.get("/{job_id}", responses=problems(404))
async def get_job(job_id: str, app: App, who: Reader) -> JobDocument:
    """Return a job as it stands."""
    return job_document(await app.job(job_id, who))


@router.delete(
    "/{job_id}",
    status_code=202,
    responses={200: {"model": JobDocument, "description": "Cancelled."}, **problems(404, 409)},
)
async def cancel_job(job_id: str, response: Response, app: App, who: Submitter) -> JobDocument:
    """Cancel a job: at once if it waits (200), at its next step if it runs (202)."""
    await app.job(job_id, who)
    document = job_document(await app.router.cancel(job_id))
    if document.status in ("completed", "failed"):
        raise JobStateError(f"Job {job_id} is {document.status} already.")
    if document.status == "cancelled":
        response.status_code = 200
    return document


@router.post("/{job_id}/rerun", status_code=202, responses=problems(404, 409))
async def rerun_job(
    job_id: str,
    response: Response,
    app: App,
    who: Submitter,
    idempotency_key: IdempotencyKey = None,
) -> JobDocument:
    """Queue the same receipt again: input, model, options and seed; a job of its own."""
    document = job_document(await app.rerun(job_id, who, idempotency_key))
    response.headers["Location"] = document.links.self
    return document


@router.get(
    "/{job_id}/events",
    response_class=StreamingResponse,
    responses={
        200: {
            "description": "Server-sent events: one for each change of state, with an id, and "
            "progress in between, without; each carries the job.",
            "content": {"text/event-stream": {"schema": {"type": "string"}}},
        },
        **problems(404),
    },
)
async def job_events(
    job_id: str,
    app: App,
    who: Reader,
    last_id: Annotated[str | None, Header(alias="Last-Event-ID", max_length=40)] = None,
) -> StreamingResponse:
    """Follow a job as server-sent events, until it has ended."""
    after = last_event_id(last_id)
    await app.job(job_id, who)  # an unknown id is a 404, not an empty stream
    stream = with_keep_alive(_events(app, job_id, after), _KEEP_ALIVE_S)
    return StreamingResponse(
        stream, media_type="text/event-stream", headers={"Cache-Control": "no-store"}
    )


async def _events(app: Services, job_id: str, after: int | None) -> AsyncIterator[str]:
    yield RETRY
    async for event in app.router.follow(job_id, after):
        document = job_document(event.view).model_dump_json()
        yield encode_event(event.kind, document, event.event_id)


@router.get("/{job_id}/webhooks", responses=problems(404))
async def job_webhooks(job_id: str, app: App, who: Reader) -> DeliveriesDocument:
    """Return the delivery log of a job's webhook."""
    await app.job(job_id, who)
    found = await app.router.deliveries(job_id)
    return DeliveriesDocument(
        deliveries=[
            DeliveryDocument(
                id=delivery.id,
                url=delivery.url,
                event=delivery.event,
                state=delivery.state,
                attempts=delivery.attempts,
                status_code=delivery.status_code,
                error=delivery.error,
                created_at=delivery.created_at,
                next_at=delivery.next_at if delivery.state == "pending" else None,
                done_at=delivery.done_at,
            )
            for delivery in found
        ]
    )
