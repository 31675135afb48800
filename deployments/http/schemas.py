"""What clients send: the request for a job, its acceptance policy, and the pieces of a batch."""

from __future__ import annotations

import re
from datetime import UTC, datetime
from typing import Annotated, Any, Literal, Self

from pydantic import AfterValidator, AwareDatetime, BaseModel, ConfigDict, Field, model_validator

from dream_cad.queue import JobPriority

PriorityName = Literal["low", "normal", "high", "urgent"]
Pick = Literal["first", "best"]

_TAG = re.compile(r"[A-Za-z0-9][A-Za-z0-9._:/-]{0,63}")
_JOB_ID = re.compile(r"[A-Za-z0-9][A-Za-z0-9_-]{0,63}")
_MAX_MODELS = 8
_MAX_TAGS = 16
_MAX_DEPENDENCIES = 64
_DAY_S = 86_400.0
MAX_VIEWS = 16


def _checked_tag(tag: str) -> str:
    if not _TAG.fullmatch(tag):
        raise ValueError("a tag is 1-64 of A-Z a-z 0-9 . _ : / - and begins with a letter or digit")
    return tag


def _checked_job_id(job_id: str) -> str:
    if not _JOB_ID.fullmatch(job_id):
        raise ValueError("a job's id is 1-64 of A-Z a-z 0-9 _ -")
    return job_id


Tag = Annotated[str, AfterValidator(_checked_tag)]
JobId = Annotated[str, AfterValidator(_checked_job_id)]


class _Request(BaseModel):
    model_config = ConfigDict(extra="forbid", allow_inf_nan=False)


class Requirements(_Request):
    """What must hold of the mesh; a mesh that fails is repaired, made anew, or refused."""

    watertight: bool = Field(False, description="No open edges.")
    max_faces: int | None = Field(None, ge=4, le=10_000_000, description="Triangles at most.")
    min_quality: float | None = Field(
        None, ge=0, le=100, description="overall_mesh_quality of the benchmark, at least."
    )
    uv_overlap_free: bool = Field(False, description="No two triangles share texture space.")


class SharedFields(_Request):
    """What a job is told beside its input; a batch gives it once for all of its items."""

    model: str | None = Field(None, description="Model name, see GET /v1/models.")
    models: list[str] | None = Field(
        None,
        min_length=1,
        max_length=_MAX_MODELS,
        description="Models in order of preference, instead of model.",
    )
    pick: Pick = Field(
        "first",
        description="first: the first of models whose mesh is accepted; best: run all, rank.",
    )
    require: Requirements = Field(
        default_factory=Requirements, description="What must hold of the mesh."
    )
    max_tries: int = Field(
        3, ge=1, le=8, description="Generations at most, over seeds and models, for the gates."
    )
    options: dict[str, Any] = Field(
        default_factory=dict, description="Generation and finishing options of the model."
    )
    priority: PriorityName = Field("normal", description="A more urgent job overtakes others.")
    format: str = Field("glb", description="Format of the result that the links name.")
    tags: list[Tag] = Field(
        default_factory=list, max_length=_MAX_TAGS, description="Labels to list jobs by."
    )
    depends_on: list[JobId] = Field(
        default_factory=list,
        max_length=_MAX_DEPENDENCIES,
        description="Ids of jobs that must complete before this one starts.",
    )
    deadline: AwareDatetime | None = Field(
        None, description="Fail if not done by then (ISO 8601 with a time zone)."
    )
    max_wait_s: float | None = Field(
        None, gt=0, le=30 * _DAY_S, description="Fail if not started within so many seconds."
    )
    webhook: str | None = Field(
        None, max_length=2_048, description="URL to call when the job has ended."
    )
    use_cache: bool = Field(
        True, description="Take the result of an identical finished request, if there is one."
    )

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        if self.model is not None and self.models is not None:
            raise ValueError("give model or models, not both")
        if self.models is not None and len(set(self.models)) != len(self.models):
            raise ValueError("models holds a name twice")
        if self.pick == "best" and len(self.models or ()) > self.max_tries:
            raise ValueError(
                "pick 'best' runs every model: max_tries must be at least their number"
            )
        if self.deadline is not None and self.deadline <= datetime.now(UTC):
            raise ValueError("the deadline is in the past")
        return self

    @property
    def job_priority(self) -> JobPriority:
        """The queue's priority."""
        return JobPriority[self.priority.upper()]

    def policy(self, models: list[str]) -> dict[str, Any]:
        """Return the acceptance policy as kept with the job.

        Args:
            models: the names to try, in order; the request's own, or the default.
        """
        return {
            "models": models,
            "pick": self.pick,
            "require": self.require.model_dump(exclude_defaults=True),
            "max_tries": self.max_tries,
            "webhook": self.webhook,
            "use_cache": self.use_cache,
            "format": self.format,
        }


class JobRequest(SharedFields):
    """A request for a mesh: a prompt, an image, several, or a URL; never two of them.

    With ``mesh`` that one is textured after the prompt or image, and its triangles stay.
    """

    prompt: str | None = Field(None, description="What to make, for example: a red wooden chair.")
    image: str | None = Field(None, description="A picture, base64; or upload it as multipart.")
    image_url: str | None = Field(
        None, max_length=2_048, description="URL of a picture, on a host that the server lists."
    )
    images: list[str] | dict[str, str] | None = Field(
        None,
        min_length=1,
        max_length=MAX_VIEWS,
        description="Pictures of one object, base64: a list, or an object by view, for example "
        "front and back; GET /v1/models says which models take them, and how.",
    )
    mesh: str | None = Field(
        None,
        description="A GLB, base64, beside the prompt or image that says how it shall look; or "
        "upload it as multipart. Models whose 'textures_meshes' is true paint it, those whose "
        "'makes_variants' is true keep its coarse shape and make it anew.",
    )


class BatchItem(_Request):
    """One item of a batch; what it leaves out is the batch's."""

    prompt: str | None = None
    image: str | None = Field(None, description="A picture, base64.")
    image_url: str | None = Field(
        None, max_length=2_048, description="URL of a picture, on a host that the server lists."
    )
    model: str | None = None
    options: dict[str, Any] | None = None
    priority: PriorityName | None = None
    tags: list[Tag] | None = Field(None, max_length=_MAX_TAGS)


class BatchRequest(SharedFields):
    """Many jobs at once: prompts that share everything, or items that differ."""

    name: str = Field("", max_length=200, description="A name for people.")
    prompts: list[str] | None = Field(None, min_length=1, description="One job for each.")
    items: list[BatchItem] | None = Field(None, min_length=1, description="Instead of prompts.")

    @model_validator(mode="after")
    def _one_kind(self) -> Self:
        if (self.prompts is None) == (self.items is None):
            raise ValueError("give either prompts or items")
        return self


class LicenseAcceptance(_Request):
    """An administrator's acceptance of a model's licence."""

    model: str = Field(min_length=1, max_length=128)


class PauseRequest(_Request):
    """What to pause or resume: one model, or everything."""

    model: str | None = Field(None, max_length=128, description="All models when not given.")
