"""The requests of the HTTP API, without a connection: what is sent, and how answers are read."""

from __future__ import annotations

import uuid
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Generic, TypeVar

import httpx
from pydantic import BaseModel, ValidationError

from dream_cad.client.documents import (
    Batch,
    BatchPage,
    Cluster,
    Job,
    JobPage,
    Models,
    ResultFiles,
    Retried,
)
from dream_cad.client.fields import (
    BatchItemFields,
    Image,
    Images,
    batch_item,
    form,
    given,
    job_form,
    picture_files,
    read_file,
    read_image,
)
from dream_cad.client.problems import RemoteProblemError
from dream_cad.exceptions import InvalidConfigError

PAGE = 100

D = TypeVar("D", bound=BaseModel)


@dataclass(frozen=True)
class Request:
    """One request.

    Attributes:
        parts: further arguments of ``httpx.Client.build_request``.
    """

    method: str
    url: str
    parts: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Call(Generic[D]):
    """A request whose answer is a document."""

    request: Request
    answer: type[D]

    def read(self, response: httpx.Response) -> D:
        """Return the document of a good answer.

        Raises:
            RemoteProblemError: it is something else; no dream_cad server answered.
        """
        try:
            return self.answer.model_validate_json(response.content)
        except ValidationError as error:
            raise RemoteProblemError(
                f"{response.url} answered with something else than JSON of a "
                f"{self.answer.__name__.lower()}.",
                hint="Is this the address of a dream_cad server?",
            ) from error


def submit(
    prompt: str | None,
    image: Image | None,
    images: Images | None,
    mesh: Image | None,
    image_url: str | None,
    key: str | None,
    fields: Mapping[str, Any],
) -> Call[Job]:
    """Queue a job; the key, made if None, lets it be sent again without making a second job."""
    if [prompt, image, images, image_url].count(None) != 3:
        raise InvalidConfigError("Give exactly one of prompt, image, images and image_url.")
    body = given({"prompt": prompt, "image_url": image_url, **fields})
    files = [] if images is None else picture_files(images)
    files += [
        (name, read_image(file)) for name, file in given({"image": image, "mesh": mesh}).items()
    ]
    if not files:
        return _post("/v1/jobs", Job, json=body, headers=_idempotency(key))
    parts = {"data": job_form(body), "files": files}
    return _post("/v1/jobs", Job, **parts, headers=_idempotency(key))


def get_job(job_id: str) -> Call[Job]:
    """Ask for a job's state."""
    return Call(Request("GET", job_url(job_id)), Job)


def cancel_job(job_id: str) -> Call[Job]:
    """Ask for a job to be cancelled."""
    return Call(Request("DELETE", job_url(job_id)), Job)


def rerun(job_id: str, key: str | None) -> Call[Job]:
    """Queue a job's receipt again; the key, made if None, lets it be sent again."""
    return _post(f"{job_url(job_id)}/rerun", Job, headers=_idempotency(key))


def list_jobs(wanted: Mapping[str, str | None], cursor: str | None) -> Call[JobPage]:
    """Ask for a page of jobs."""
    params = given({**wanted, "cursor": cursor, "limit": PAGE})
    return Call(Request("GET", "/v1/jobs", {"params": params}), JobPage)


def result(job_id: str, format: str | None) -> Request:
    """Ask for a job's mesh; in the format that the job named if None."""
    params = given({"format": format})
    return Request("GET", f"{job_url(job_id)}/result", {"params": params})


def preview(job_id: str) -> Request:
    """Ask for a job's turntable sheet."""
    return Request("GET", f"{job_url(job_id)}/preview.png")


def receipt(job_id: str) -> Request:
    """Ask how a job's result was made."""
    return Request("GET", f"{job_url(job_id)}/receipt")


def list_files(job_id: str) -> Call[ResultFiles]:
    """Ask what is stored of a job's result."""
    return Call(Request("GET", f"{job_url(job_id)}/files"), ResultFiles)


def file(job_id: str, name: str) -> Request:
    """Ask for one of the files that are stored."""
    return Request("GET", f"{job_url(job_id)}/files/{_segment(name, 'file name', dots=True)}")


def submit_batch(
    prompts: Sequence[str] | None,
    items: Sequence[BatchItemFields] | None,
    name: str,
    key: str | None,
    fields: Mapping[str, Any],
) -> Call[Batch]:
    """Queue many jobs, all or none."""
    if (prompts is None) == (items is None):
        raise InvalidConfigError("Give either prompts or items.")
    body = given({"name": name, **fields})
    if prompts is not None:
        body["prompts"] = list(prompts)
    if items is not None:
        body["items"] = [batch_item(item) for item in items]
    return _post("/v1/batches", Batch, json=body, headers=_idempotency(key))


def submit_batch_file(
    path: str | Path, name: str | None, key: str | None, fields: Mapping[str, Any]
) -> Call[Batch]:
    """Queue the rows of a CSV or JSON lines file, all or none."""
    file = Path(path)
    data = form(given({"name": file.stem if name is None else name, **fields}))
    files = {"file": (file.name, read_file(file))}
    return _post("/v1/batches", Batch, data=data, files=files, headers=_idempotency(key))


def get_batch(batch_id: str) -> Call[Batch]:
    """Ask how far a batch is."""
    return Call(Request("GET", batch_url(batch_id)), Batch)


def list_batch(batch_id: str, cursor: str | None) -> Call[BatchPage]:
    """Ask for a page of a batch's items."""
    params = given({"cursor": cursor, "limit": PAGE})
    return Call(Request("GET", f"{batch_url(batch_id)}/items", {"params": params}), BatchPage)


def retry_batch(batch_id: str, key: str | None) -> Call[Retried]:
    """Queue failed items again; the key, made if None, lets it be sent again."""
    return _post(f"{batch_url(batch_id)}/retry", Retried, headers=_idempotency(key))


def pause_batch(batch_id: str) -> Call[Batch]:
    """Start no more of a batch's jobs."""
    return _post(f"{batch_url(batch_id)}/pause", Batch)


def resume_batch(batch_id: str) -> Call[Batch]:
    """Start a batch's jobs again."""
    return _post(f"{batch_url(batch_id)}/resume", Batch)


def cancel_batch(batch_id: str) -> Call[Batch]:
    """Cancel what has not ended of a batch."""
    return Call(Request("DELETE", batch_url(batch_id)), Batch)


def archive(batch_id: str, format: str) -> Request:
    """Ask for what is done of a batch as a zip."""
    return Request("GET", f"{batch_url(batch_id)}/archive.zip", {"params": {"format": format}})


def list_models() -> Call[Models]:
    """Ask for the models."""
    return Call(Request("GET", "/v1/models"), Models)


def get_cluster() -> Call[Cluster]:
    """Ask for GPUs, replicas and queue."""
    return Call(Request("GET", "/v1/cluster"), Cluster)


def job_url(job_id: str) -> str:
    """Return a job's path."""
    return f"/v1/jobs/{_segment(job_id, 'job id')}"


def batch_url(batch_id: str) -> str:
    """Return a batch's path."""
    return f"/v1/batches/{_segment(batch_id, 'batch id')}"


def _post(url: str, answer: type[D], **parts: Any) -> Call[D]:
    return Call(Request("POST", url, parts), answer)


def _idempotency(key: str | None) -> dict[str, str]:
    return {"Idempotency-Key": key or str(uuid.uuid4())}


def _segment(text: str, kind: str, *, dots: bool = False) -> str:
    """Refuse what would lead to another path than meant."""
    legal = "-_." if dots else "-_"
    is_plain = all(sign.isascii() and (sign.isalnum() or sign in legal) for sign in text)
    if not text or not is_plain or text.startswith("."):
        raise InvalidConfigError(f"{text!r} is no {kind}.")
    return text
