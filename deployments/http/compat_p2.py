"""Wire format P2 (Meshy's API): its fields as requests of ours, our jobs as its tasks."""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field

from deployments.http.body import Submission, decode_image
from deployments.http.checks import takes_option
from deployments.http.documents import is_expired
from deployments.http.schemas import JobRequest
from deployments.messages import JobView
from deployments.plan import ModelPlan
from dream_cad.exceptions import InvalidConfigError, JobStateError
from dream_cad.mesh.export import FORMATS
from dream_cad.queue import GenerationJob, JobStatus

TaskKind = Literal["text-to-3d", "image-to-3d"]
PREVIEW, REFINE, IMAGE = "text-to-3d-preview", "text-to-3d-refine", "image-to-3d"
_TAG = "meshy:"
_FORMATS = "meshy-format:"
_STATUSES = {
    JobStatus.PENDING: "PENDING",
    JobStatus.RUNNING: "IN_PROGRESS",
    JobStatus.COMPLETED: "SUCCEEDED",
    JobStatus.FAILED: "FAILED",
    JobStatus.CANCELLED: "CANCELED",
}


class _P2Request(BaseModel):
    """Fields that all tasks share; others are ignored, as that server does."""

    model_config = ConfigDict(extra="ignore", allow_inf_nan=False)

    topology: Literal["triangle", "quad"] = "triangle"
    target_polycount: int | None = Field(None, ge=100, le=300_000)
    should_remesh: bool = True
    target_formats: list[str] = Field(default_factory=list, max_length=16)
    seed: int | None = Field(None, ge=0, lt=2**31)
    texture_prompt: str | None = Field(None, max_length=600)
    texture_image_url: str | None = None
    enable_pbr: bool = Field(False, description="Maps are those that the model makes.")


class TextTo3D(_P2Request):
    """``POST /openapi/v2/text-to-3d``."""

    mode: Literal["preview", "refine"]
    prompt: str | None = Field(None, max_length=600)
    negative_prompt: str | None = Field(None, max_length=600)
    preview_task_id: str | None = Field(None, max_length=64)


class ImageTo3D(_P2Request):
    """``POST /openapi/v1/image-to-3d``."""

    image_url: str = Field(description="https, on a host that the server lists, or a data URI.")
    should_texture: bool = True


class TaskId(BaseModel):
    """What creating a task answers."""

    result: str


class TaskError(BaseModel):
    """Why a task failed; empty unless it did."""

    message: str = ""


class TaskDocument(BaseModel):
    """A job as Meshy's clients see it; times in milliseconds since 1970."""

    id: str
    type: str
    status: Literal["PENDING", "IN_PROGRESS", "SUCCEEDED", "FAILED", "CANCELED"]
    progress: int = Field(ge=0, le=100)
    prompt: str
    seed: int | None
    model_urls: dict[str, str]
    thumbnail_url: str
    texture_urls: list[dict[str, str]] = Field(description="Empty: textures are in the GLB.")
    preceding_tasks: int
    created_at: int
    started_at: int
    finished_at: int
    expires_at: int
    task_error: TaskError
    consumed_credits: int = 0


def text_submission(fields: TextTo3D, plan: ModelPlan) -> Submission:
    """Return the request of ours for a preview.

    Raises:
        InvalidConfigError: no prompt, or something that no model here does.
    """
    if not fields.prompt:
        raise InvalidConfigError("mode 'preview' needs a prompt.")
    options = _options(fields, plan) | {"texture": False, "negative_prompt": fields.negative_prompt}
    return Submission(_request(fields, plan, options, PREVIEW, prompt=fields.prompt), None)


def image_submission(fields: ImageTo3D, plan: ModelPlan) -> Submission:
    """Return the request of ours for a picture.

    Raises:
        InvalidConfigError: the data URI is not base64, or no model here does what is asked.
    """
    options = _options(fields, plan) | {"texture": fields.should_texture}
    if fields.image_url.startswith("data:"):
        picture = decode_image(fields.image_url)
        return Submission(_request(fields, plan, options, IMAGE), picture)
    return Submission(_request(fields, plan, options, IMAGE, image_url=fields.image_url), None)


def refine_submission(fields: TextTo3D, plan: ModelPlan, preview: GenerationJob) -> Submission:
    """Return the request that makes a preview's object again, with a texture where there is one.

    Prompt, seed and options are the preview's, so the shape is the same.

    Raises:
        JobStateError: the preview is not done.
        InvalidConfigError: it is no preview, or no model here does what is asked.
    """
    _check_refinable(preview)
    asked = {name: value for name, value in _options(fields, plan).items() if value is not None}
    options = {**preview.config, **asked, "texture": True}
    return Submission(_request(fields, plan, options, REFINE, prompt=preview.prompt), None)


def names_texture(fields: _P2Request) -> bool:
    """Return whether a prompt or picture of its own says how the texture shall look."""
    return bool(fields.texture_prompt or fields.texture_image_url)


def texture_submission(
    fields: TextTo3D, plan: ModelPlan, preview: GenerationJob, mesh: bytes
) -> Submission:
    """Return the request that textures a preview's mesh after a prompt or picture of its own.

    Args:
        fields: of the refinement.
        plan: of a model that textures meshes.
        preview: the task.
        mesh: its GLB.

    Raises:
        JobStateError: the preview is not done.
        InvalidConfigError: it is no preview, both or a URL that is no data URI are given.
    """
    _check_refinable(preview)
    if fields.texture_prompt and fields.texture_image_url:
        raise InvalidConfigError("Send either texture_prompt or texture_image_url.")
    options = {"seed": fields.seed}
    if not fields.texture_image_url:
        request = _request(fields, plan, options, REFINE, prompt=fields.texture_prompt or "")
        return Submission(request, None, mesh=mesh)
    if not fields.texture_image_url.startswith("data:"):
        raise InvalidConfigError(
            "texture_image_url must be a data URI.",
            hint="Send the picture itself, as data:image/png;base64,...",
        )
    picture = decode_image(fields.texture_image_url)
    return Submission(_request(fields, plan, options, REFINE), picture, mesh=mesh)


def _check_refinable(preview: GenerationJob) -> None:
    if task_type(preview) != PREVIEW:
        raise InvalidConfigError(f"Task {preview.id} is no preview.")
    if preview.status is not JobStatus.COMPLETED:
        raise JobStateError(
            f"Task {preview.id} is {_STATUSES[preview.status]}.",
            hint="Refine it once it SUCCEEDED.",
        )


def _options(fields: _P2Request, plan: ModelPlan) -> dict[str, Any]:
    if fields.topology == "quad":
        raise InvalidConfigError("No model here makes quads.", hint="Send topology 'triangle'.")
    if names_texture(fields):
        raise InvalidConfigError(
            "texture_prompt and texture_image_url say how a refinement shall look.",
            hint="Send them with mode 'refine' and the preview_task_id.",
        )
    wanted: dict[str, Any] = {"seed": fields.seed}
    if fields.should_remesh:
        wanted["target_faces"] = fields.target_polycount
    return wanted


def _request(
    fields: _P2Request, plan: ModelPlan, options: dict[str, Any], type_: str, **source: str
) -> JobRequest:
    given = {
        name: value
        for name, value in options.items()
        if value is not None and (takes_option(plan, name) or name in plan.text_options)
    }
    kind = "image-to-3d" if type_ == IMAGE else "text-to-3d"
    formats = [name for name in fields.target_formats if name in FORMATS]
    tags = {f"{_TAG}{kind}", f"{_TAG}type-{type_}", *(f"{_FORMATS}{name}" for name in formats)}
    return JobRequest(model=plan.name, options=given, tags=sorted(tags), **source)


def tag_of(kind: TaskKind) -> str:
    """Return the tag that jobs of a kind of task carry."""
    return f"{_TAG}{kind}"


def task_type(job: GenerationJob) -> str:
    """Return a task's type; empty for a job that came another way."""
    begin = f"{_TAG}type-"
    return next((tag.removeprefix(begin) for tag in job.tags if tag.startswith(begin)), "")


def task_document(view: JobView, url_of: Callable[[str], str]) -> TaskDocument:
    """Return a job as a task.

    Args:
        view: the job.
        url_of: gives the absolute URL of a file of its result by the file's name.
    """
    job = view.job
    is_there = job.status is JobStatus.COMPLETED and not is_expired(job)
    wanted = [tag.removeprefix(_FORMATS) for tag in job.tags if tag.startswith(_FORMATS)]
    return TaskDocument(
        id=job.id,
        type=task_type(job),
        status=_STATUSES[job.status],
        progress=100 if job.status is JobStatus.COMPLETED else min(int(job.progress * 100), 99),
        prompt=job.prompt,
        seed=job.config.get("seed"),
        model_urls={name: url_of(f"model.{name}") for name in wanted or FORMATS}
        if is_there
        else {},
        thumbnail_url=url_of("thumbnail.png") if is_there else "",
        texture_urls=[],
        preceding_tasks=(view.position or 1) - 1,
        created_at=_milliseconds(job.created_at),
        started_at=_milliseconds(job.started_at),
        finished_at=_milliseconds(job.completed_at),
        expires_at=_milliseconds(job.expires_at),
        task_error=TaskError(message=job.error or "" if job.status is JobStatus.FAILED else ""),
    )


def _milliseconds(moment: datetime | None) -> int:
    return 0 if moment is None else int(moment.astimezone(UTC).timestamp() * 1000)
