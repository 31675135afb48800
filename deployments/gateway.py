"""The gateway: a stateless FastAPI ingress that validates, and asks the router."""

# No postponed annotations here: Serve pickles this class by value, without the names that only
# annotations mention, and FastAPI would take `request: Request` for a query parameter.

import asyncio
import contextlib
from collections.abc import AsyncIterator
from dataclasses import asdict
from typing import Annotated, Any, Literal

from fastapi import FastAPI, Header, Query, Request
from fastapi.responses import Response, StreamingResponse
from ray import serve
from ray.serve.handle import DeploymentHandle

import dream_cad
from deployments.args import AppArgs
from deployments.client import RouterClient
from deployments.http.body import Submission, read_submission
from deployments.http.errors import install_error_handlers, problem_response
from deployments.http.intake import Intake, check_format, options_schema
from deployments.http.results import MEDIA_TYPES, ResultReader, result_key
from deployments.http.schemas import (
    JobDocument,
    JobPageDocument,
    JobRequest,
    ModelDocument,
    ModelsDocument,
    StatusDocument,
    job_document,
)
from deployments.messages import INPUT_FILE, PREVIEW_FILE, JobView
from deployments.plan import ModelPlan
from deployments.process import import_modules
from dream_cad.artifacts import ArtifactStore
from dream_cad.exceptions import DreamCadError, JobStateError, ServiceUnavailableError
from dream_cad.queue import JobFilter, JobStatus

api = FastAPI(
    title="dream_cad",
    version=dream_cad.__version__,
    description="Text prompts and pictures become 3D meshes.",
)
install_error_handlers(api)

_BODY = {
    "requestBody": {
        "required": True,
        "content": {
            "application/json": {"schema": JobRequest.model_json_schema()},
            "multipart/form-data": {
                "schema": {
                    "type": "object",
                    "properties": {
                        "image": {"type": "string", "format": "binary"},
                        "options": {"type": "string", "description": "JSON object"},
                        "model": {"type": "string"},
                        "priority": {"type": "string"},
                        "format": {"type": "string"},
                    },
                }
            },
        },
    }
}
StatusName = Literal["pending", "running", "completed", "failed", "cancelled"]
IdempotencyKey = Annotated[str | None, Header(min_length=1, max_length=255)]
"""A repeated request with the same key gives the first one's job."""
_READY_TIMEOUT_S = 5.0


@serve.ingress(api)
class Gateway:
    """The HTTP API. Keeps no state: any number of replicas may run.

    Args:
        args: the application's arguments.
        plans: all models, deployed or not.
        router: the router's handle.
        artifacts_root: where uploads and results are.
        has_text_stage: whether prompts can be made into pictures here.
    """

    def __init__(
        self,
        args: AppArgs,
        plans: list[ModelPlan],
        router: DeploymentHandle[Any],
        artifacts_root: str,
        has_text_stage: bool,
    ) -> None:
        import_modules(args.modules)
        self._args = args
        self._plans = {plan.name: plan for plan in plans}
        self._router = RouterClient(router)
        self._artifacts = ArtifactStore(artifacts_root)
        self._results = ResultReader(self._artifacts)
        self._intake = Intake(
            plans,
            args.models[0].name,
            args.limits.max_attempts,
            has_text_stage=has_text_stage,
        )

    @api.post("/v1/jobs", status_code=202, openapi_extra=_BODY)
    async def create_job(
        self, request: Request, response: Response, idempotency_key: IdempotencyKey = None
    ) -> JobDocument:
        """Queue a job; it is durable before the answer is sent."""
        view = await self._submit(await self._read(request), idempotency_key)
        document = job_document(view)
        response.headers["Location"] = document.links.self
        return document

    @api.get("/v1/jobs")
    async def list_jobs(
        self,
        status: StatusName | None = None,
        model: str | None = None,
        batch: str | None = None,
        cursor: str | None = None,
        limit: Annotated[int, Query(ge=1, le=200)] = 50,
    ) -> JobPageDocument:
        """List jobs, newest first."""
        wanted = JobFilter(JobStatus(status) if status else None, model, batch)
        views, next_cursor = await self._router.list_jobs(wanted, cursor, limit)
        return JobPageDocument(jobs=[job_document(v) for v in views], next_cursor=next_cursor)

    @api.get("/v1/jobs/{job_id}")
    async def get_job(self, job_id: str) -> JobDocument:
        """Return a job as it stands."""
        return job_document(await self._router.get(job_id))

    @api.delete("/v1/jobs/{job_id}", status_code=202)
    async def cancel_job(self, job_id: str, response: Response) -> JobDocument:
        """Cancel a job: at once if it waits (200), at its next step if it runs (202)."""
        document = job_document(await self._router.cancel(job_id))
        if document.status in ("completed", "failed"):
            raise JobStateError(f"Job {job_id} is {document.status} already.")
        if document.status == "cancelled":
            response.status_code = 200
        return document

    @api.get("/v1/jobs/{job_id}/events", response_class=StreamingResponse)
    async def job_events(self, job_id: str) -> StreamingResponse:
        """Follow a job as server-sent events, until it has ended."""
        await self._router.get(job_id)  # an unknown id is a 404, not an empty stream
        return StreamingResponse(
            self._events(job_id),
            media_type="text/event-stream",
            headers={"Cache-Control": "no-store"},
        )

    @api.get("/v1/jobs/{job_id}/result", response_class=Response)
    async def get_result(self, job_id: str, format: str = "glb") -> Response:
        """Return the mesh; formats other than GLB are converted on demand."""
        view = await self._router.get(job_id)
        return await self._mesh_response(view, format)

    @api.get("/v1/jobs/{job_id}/preview.png", response_class=Response)
    async def get_preview(self, job_id: str) -> Response:
        """Return the turntable sheet."""
        key = result_key((await self._router.get(job_id)).job)
        content = await self._results.read_file(key, PREVIEW_FILE)
        return Response(content, media_type="image/png")

    @api.post("/v1/generate", response_class=Response, openapi_extra=_BODY)
    async def generate(
        self,
        request: Request,
        timeout: Annotated[float | None, Query(gt=0, allow_inf_nan=False)] = None,
        idempotency_key: IdempotencyKey = None,
    ) -> Response:
        """Return the mesh itself, or 202 with the job past ``timeout`` seconds.

        A client that hangs up before that cancels the job.
        """
        limits = self._args.limits
        wait_s = min(timeout or limits.generate_timeout_s, limits.max_wait_s)
        submission = await self._read(request)
        view = await self._submit(submission, idempotency_key)
        try:
            view = await self._router.wait(view.job.id, wait_s)
        except asyncio.CancelledError:
            with contextlib.suppress(DreamCadError):
                await asyncio.shield(self._router.cancel(view.job.id))
            raise
        job = view.job
        if job.status is JobStatus.COMPLETED:
            return await self._mesh_response(view, submission.request.format)
        if not job.status.is_final:
            document = job_document(view)
            return Response(
                document.model_dump_json(),
                202,
                {"Location": document.links.self},
                "application/json",
            )
        problem = job.problem or {"type": "generation-cancelled", "title": "Generation cancelled"}
        status = int(problem.get("status", 409 if job.status is JobStatus.CANCELLED else 500))
        return problem_response({**problem, "job_id": job.id}, status)

    @api.get("/v1/models")
    async def list_models(self) -> ModelsDocument:
        """List all models: capabilities, checkpoint, and whether each can take jobs here."""
        infos = await self._router.models()
        documents = []
        for plan in self._plans.values():
            info = infos.get(plan.name)
            state: Literal["ready", "loading", "failed", "not-deployed"] = "not-deployed"
            reason = plan.reason
            if info is not None:
                state = "ready" if info.is_ready else "failed" if info.problem else "loading"
                reason = info.problem["detail"] if info.problem else reason
            documents.append(
                ModelDocument(
                    name=plan.name,
                    available=state == "ready",
                    state=state,
                    reason=reason,
                    checkpoint=plan.checkpoint,
                    capabilities=asdict(plan.capabilities) if plan.capabilities else None,
                    options_schema=options_schema(plan) if plan.is_deployed else None,
                )
            )
        return ModelsDocument(models=documents, default_model=self._intake.default_model)

    @api.get("/healthz")
    async def healthz(self) -> StatusDocument:
        """Answer while the gateway lives."""
        return StatusDocument(status="ok")

    @api.get("/readyz")
    async def readyz(self) -> StatusDocument:
        """Answer 200 once a model can take jobs, else 503 with the reasons."""
        try:
            infos = await asyncio.wait_for(self._router.models(), _READY_TIMEOUT_S)
        except TimeoutError as error:
            raise ServiceUnavailableError("The router does not answer.") from error
        ready = [name for name, info in infos.items() if info.is_ready]
        if ready:
            return StatusDocument(status="ready", models=ready)
        reasons = {name: plan.reason for name, plan in self._plans.items() if not plan.is_deployed}
        for name, info in infos.items():
            reasons[name] = info.problem["detail"] if info.problem else "loading"
        raise ServiceUnavailableError("No model can take jobs yet.", details={"models": reasons})

    async def _read(self, request: Request) -> Submission:
        return await read_submission(request, self._args.limits.max_body_bytes)

    async def _submit(self, submission: Submission, idempotency_key: str | None) -> JobView:
        job = await asyncio.to_thread(self._intake.make_job, submission, idempotency_key)
        if job.input_uri is not None and submission.image is not None:
            files = {INPUT_FILE: submission.image}
            await asyncio.to_thread(self._artifacts.publish, job.input_uri, files)
        try:
            view = await self._router.submit(job)
        except DreamCadError:
            await self._forget_input(job.input_uri)
            raise
        if view.job.id != job.id:
            await self._forget_input(job.input_uri)
        return view

    async def _forget_input(self, key: str | None) -> None:
        if key is not None:
            with contextlib.suppress(DreamCadError):
                await asyncio.to_thread(self._artifacts.delete, key)

    async def _mesh_response(self, view: JobView, format: str) -> Response:
        plan = self._plans.get(view.job.model_name)
        check_format(format, plan or ModelPlan(view.job.model_name, False, "no longer served"))
        content = await self._results.read_mesh(result_key(view.job), format)
        headers = {
            "Content-Disposition": f'attachment; filename="{view.job.id}.{format}"',
            "Link": f'</v1/jobs/{view.job.id}>; rel="describedby"',
            "X-Content-Type-Options": "nosniff",
        }
        return Response(content, headers=headers, media_type=MEDIA_TYPES[format])

    async def _events(self, job_id: str) -> AsyncIterator[str]:
        number = 0
        async for view in self._router.watch(job_id):
            number += 1
            document = job_document(view).model_dump_json()
            yield f"id: {number}\nevent: {view.job.status.value}\ndata: {document}\n\n"
