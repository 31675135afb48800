"""What router and stages say to each other.

Products are plain values: Ray carries their arrays through its object store, and the router, not
the replica that made them, owns what it hands on. References made by a replica inside its answer
are no substitute: they were freed while the finisher was busy (measured, ray 2.60).
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from dream_cad.models.base import GenerationResult
from dream_cad.queue import GenerationJob

Problem = dict[str, Any]
"""A problem document (RFC 9457): type, title, detail, and what the error adds."""


INPUT_FILE, INPUT_MESH = "input", "input.glb"
MESH_FILE, PREVIEW_FILE = "mesh.glb", "preview.png"
PICTURE_FILE, RECEIPT_FILE = "picture.png", "result.json"
PACKAGE_FILE = "package.zip"
"""Names of the files in an upload's and a result's publication."""


def view_file(name: str) -> str:
    """Return the file of an upload that holds one of several views."""
    return f"view-{name}"


PREVIEW_NOTE = " (preview)"
"""Ends the stage of a job at work that has a picture of how far it is."""


@dataclass(frozen=True)
class Progress:
    """A sign of life: fraction in [0, 1] of the stage, and what it is doing."""

    fraction: float
    stage: str


@dataclass(frozen=True)
class Done:
    """A stage has ended well.

    Attributes:
        product: a Picture or a GenerationResult.
        seconds: time the work took in its thread.
        peak_memory_bytes: GPU memory allocated at most; None without a GPU.
    """

    product: Any
    seconds: float
    peak_memory_bytes: int | None = None


@dataclass(frozen=True)
class Failed:
    """A stage has ended without a product; ``is_cancelled`` if because it was asked to."""

    problem: Problem
    is_retryable: bool
    is_cancelled: bool = False


@dataclass(frozen=True)
class Busy:
    """The replica works on something else: the request was not begun, try again."""


Event = Progress | Done | Failed | Busy


@dataclass(frozen=True)
class Picture:
    """What the text stage hands to the model: (H, W, 3) uint8 RGB, and how it was made."""

    pixels: Any
    receipt: dict[str, Any]


@dataclass(frozen=True)
class StageRequest:
    """Work for one stage.

    Attributes:
        job_id: the job it belongs to; cancellation names it.
        prompt: text, if the job has any.
        options: generation options for this stage.
        input_key: artifact key of an uploaded picture.
        has_mesh: whether a mesh to texture is under ``input_key``.
        views: names of the pictures under ``input_key``, where they are several.
        picture: the Picture made by the text stage.
        request_id: of the HTTP request that queued the job, for the logs.
    """

    job_id: str
    prompt: str = ""
    options: dict[str, Any] = field(default_factory=dict)
    input_key: str | None = None
    has_mesh: bool = False
    views: tuple[str, ...] = ()
    picture: Picture | None = None
    request_id: str = ""


@dataclass(frozen=True)
class FinishRequest:
    """Work for the finisher.

    Attributes:
        job_id: the job.
        key: artifact key to publish under.
        result: what the model made.
        picture: what it was made from, if a text stage drew it.
        options: finishing options, see FinishOptions.
        receipt: what result.json says besides the result's own metadata.
        require: acceptance gates by name, see deployments.judging.
        is_ranked: whether the quality is to be measured, to choose among results.
        request_id: of the HTTP request that queued the job, for the logs.
    """

    job_id: str
    key: str
    result: GenerationResult
    picture: Picture | None
    options: dict[str, Any]
    receipt: dict[str, Any]
    require: dict[str, Any] = field(default_factory=dict)
    is_ranked: bool = False
    request_id: str = ""


@dataclass(frozen=True)
class Finished:
    """A published result.

    Attributes:
        key: its artifact key.
        timings: seconds by step.
        quality: overall quality, 0..100, where it was asked for.
    """

    key: str
    timings: dict[str, float]
    quality: float | None = None


@dataclass(frozen=True)
class Rejected:
    """A result that did not pass the gates and was not published: what was wanted and measured."""

    gates: list[dict[str, Any]]


@dataclass(frozen=True)
class ModelInfo:
    """What a replica says of itself, or what is known of a model without replicas.

    Attributes:
        is_ready: whether it can take jobs.
        problem: why it cannot.
        is_asleep: it has no replica and is loaded when a job comes.
    """

    is_ready: bool
    problem: Problem | None = None
    is_asleep: bool = False


@dataclass(frozen=True)
class JobView:
    """A job as shown to clients.

    Attributes:
        job: the record, with the progress of this moment.
        position: place in its model's line, 1 being next; None unless it waits.
        eta_s: estimated seconds until it is done; None while nothing was measured.
    """

    job: GenerationJob
    position: int | None
    eta_s: float | None


@dataclass(frozen=True)
class JobEventView:
    """What following a job yields.

    Attributes:
        event_id: number of a change of state, to resume after; None for progress in between.
        kind: the state entered, or ``progress``.
        view: the job; in a replayed change of state, with the state it entered then.
    """

    event_id: int | None
    kind: str
    view: JobView
