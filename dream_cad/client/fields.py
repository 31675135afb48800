"""What a request for a mesh may say, typed, and how it is put on the wire."""

from __future__ import annotations

import base64
import json
from collections.abc import Mapping, Sequence
from datetime import datetime
from pathlib import Path
from typing import Any, Literal, TypedDict

from dream_cad.exceptions import InvalidConfigError, StorageError

Image = str | Path | bytes
"""A picture file's path, or its content."""
Images = Sequence[Image] | Mapping[str, Image]
"""Several pictures of one object: in any order, or by view ("front", "back")."""

PriorityName = Literal["low", "normal", "high", "urgent"]
_DATA_NAME = "image"


class JobFields(TypedDict, total=False):
    """Fields that jobs and batches share; None is the same as leaving one out.

    See docs/http.md: ``model`` or ``models`` with ``pick``, ``require`` (watertight, max_faces,
    min_quality, uv_overlap_free), ``options`` of the model.
    """

    model: str | None
    models: list[str] | None
    pick: Literal["first", "best"] | None
    require: Mapping[str, Any] | None
    max_tries: int | None
    options: Mapping[str, Any] | None
    priority: PriorityName | None
    format: str | None
    tags: list[str] | None
    depends_on: list[str] | None
    deadline: datetime | None
    max_wait_s: float | None
    webhook: str | None
    use_cache: bool | None


class BatchItemFields(TypedDict, total=False):
    """One item of a batch: a prompt or an image, and what differs from the batch."""

    prompt: str | None
    image: Image | None
    model: str | None
    options: Mapping[str, Any] | None
    priority: PriorityName | None
    tags: list[str] | None


def given(fields: Mapping[str, Any]) -> dict[str, Any]:
    """Return the fields that were given, as JSON types."""
    return {
        name: value.isoformat() if isinstance(value, datetime) else value
        for name, value in fields.items()
        if value is not None
    }


def form(fields: Mapping[str, Any]) -> dict[str, str]:
    """Return fields as a multipart form has them: text, or JSON."""
    return {
        name: value if isinstance(value, str) else json.dumps(value)
        for name, value in fields.items()
    }


def job_form(fields: Mapping[str, Any]) -> dict[str, str]:
    """Return fields as the form of a job has them, where commas separate tags.

    Raises:
        InvalidConfigError: a tag holds a comma, which would make two of it.
    """
    tags = fields.get("tags")
    if tags is None:
        return form(fields)
    if any("," in tag for tag in tags):
        raise InvalidConfigError("A tag holds a comma.", hint="Give several tags as a list.")
    return form({**fields, "tags": ",".join(tags)})


def read_image(image: Image) -> tuple[str, bytes]:
    """Return a picture's file name and content.

    Raises:
        StorageError: the file cannot be read.
    """
    if isinstance(image, bytes):
        return _DATA_NAME, image
    return Path(image).name, read_file(Path(image))


def picture_files(images: Images) -> list[tuple[str, tuple[str, bytes]]]:
    """Return several pictures as the files of a form: ``images`` each, or ``images.front``.

    Raises:
        InvalidConfigError: there is none.
        StorageError: a file cannot be read.
    """
    if not images:
        raise InvalidConfigError("images is empty.", hint="Give one picture at least.")
    if isinstance(images, Mapping):
        return [(f"images.{view}", read_image(image)) for view, image in images.items()]
    return [("images", read_image(image)) for image in images]


def read_file(path: Path) -> bytes:
    """Return a file's content.

    Raises:
        StorageError: it cannot be read.
    """
    try:
        return path.read_bytes()
    except OSError as error:
        raise StorageError(f"{path} cannot be read: {error.strerror}.") from error


def batch_item(item: BatchItemFields) -> dict[str, Any]:
    """Return an item of a batch as it is sent, its picture in base64."""
    fields = given(item)
    if "image" in fields:
        _, content = read_image(fields["image"])
        fields["image"] = base64.b64encode(content).decode()
    return fields
