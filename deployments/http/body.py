"""Read a request for a mesh from JSON or from a multipart form."""

from __future__ import annotations

import base64
import binascii
import json
import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, TypeVar

from pydantic import BaseModel, ValidationError
from starlette.datastructures import UploadFile
from starlette.exceptions import HTTPException
from starlette.requests import Request

from deployments.http.errors import invalid_request
from deployments.http.schemas import MAX_VIEWS, JobRequest
from deployments.http.views import check_view_name, numbered
from dream_cad.exceptions import InvalidConfigError

_MAX_FIELDS = 32
_MAX_FIELD_BYTES = 2**20
_SEVERAL, _BY_VIEW = "images", "images."
_JSON_FIELDS = frozenset({"options", "models", "require", "depends_on"})


@dataclass(frozen=True)
class Submission:
    """A parsed request and its picture's bytes, or those of its views, if it has any."""

    request: JobRequest
    image: bytes | None
    views: Mapping[str, bytes] = field(default_factory=dict)
    mesh: bytes | None = None


async def read_submission(request: Request) -> Submission:
    """Parse the body by its content type.

    Raises:
        PayloadTooLargeError: the body exceeds the limit (see BodyLimitMiddleware).
        HTTPException: 400 malformed, 415 another content type or a content encoding.
        InvalidConfigError: well-formed, but not a valid request.
    """
    media_type = plain_media_type(request)
    if media_type == "application/json":
        return _from_json(await request.body())
    if media_type == "multipart/form-data":
        return await _from_form(request)
    raise HTTPException(
        415, "Send application/json, or multipart/form-data with the picture as 'image'."
    )


def plain_media_type(request: Request) -> str:
    """Return the media type of the body.

    Raises:
        HTTPException: 415, the body is compressed.
    """
    if request.headers.get("content-encoding", "identity") != "identity":
        raise HTTPException(415, "Encoded bodies are not accepted; send it plain.")
    return request.headers.get("content-type", "").partition(";")[0].strip().lower()


def _from_json(body: bytes) -> Submission:
    fields = parse_json(body)
    if not isinstance(fields, dict):
        raise HTTPException(400, "The body must be a JSON object.")
    request = validated(JobRequest, fields)
    image = decode_image(request.image) if request.image is not None else None
    mesh = decode_base64(request.mesh, "mesh") if request.mesh is not None else None
    return Submission(request, image, _decode_views(request.images), mesh)


def _decode_views(images: list[str] | dict[str, str] | None) -> dict[str, bytes]:
    if isinstance(images, dict):
        for name in images:
            check_view_name(name)
        return {name: decode_image(text, f"images.{name}") for name, text in images.items()}
    return numbered([decode_image(text, "images") for text in images or ()])


async def _from_form(request: Request) -> Submission:
    fields: dict[str, Any] = {}
    files: dict[str, bytes] = {}
    unnamed: list[bytes] = []
    async with request.form(
        max_files=MAX_VIEWS + 1, max_fields=_MAX_FIELDS, max_part_size=_MAX_FIELD_BYTES
    ) as form:
        for name, value in form.multi_items():
            if name in fields or name in files:
                raise InvalidConfigError(f"The form holds {name[:80]!r} more than once.")
            if not isinstance(value, UploadFile):
                fields[name] = _form_value(name, value)
            elif name == _SEVERAL:
                unnamed.append(await value.read())
            else:
                files[_file_name(name)] = await value.read()
    image, mesh = files.pop("image", None), files.pop("mesh", None)
    if bool(unnamed) + bool(files) + (image is not None) > 1:
        raise InvalidConfigError("Send 'image', or 'images', or pictures by view; not two of them.")
    if max(len(unnamed), len(files)) > MAX_VIEWS:
        raise InvalidConfigError(f"Several pictures are at most {MAX_VIEWS}.")
    views = {name.removeprefix(_BY_VIEW): picture for name, picture in files.items()}
    return Submission(validated(JobRequest, fields), image, views or numbered(unnamed), mesh)


def _form_value(name: str, text: str) -> Any:
    """Read a field of a form: JSON where the request wants more than text."""
    if name in _JSON_FIELDS:
        return parse_json(text.encode("utf-8", "surrogatepass"))
    return [tag for tag in text.split(",") if tag] if name == "tags" else text


def _file_name(name: str) -> str:
    if name.startswith(_BY_VIEW):
        check_view_name(name.removeprefix(_BY_VIEW))
    elif name not in ("image", "mesh"):
        raise InvalidConfigError(
            f"The form holds a file called {name[:80]!r}; call it 'image'.",
            hint="Several pictures of one object: 'images' again and again, or 'images.front'.",
        )
    return name


def parse_json(body: bytes) -> Any:
    """Parse JSON strictly: no NaN, no infinities, no numbers that overflow to them.

    Raises:
        HTTPException: 400, saying where.
    """
    try:
        return json.loads(body, parse_constant=_refuse_constant, parse_float=_finite)
    except json.JSONDecodeError as error:
        where = f"line {error.lineno}, column {error.colno}"
        raise HTTPException(400, f"The JSON is malformed: {error.msg} at {where}.") from error
    except (ValueError, RecursionError) as error:
        raise HTTPException(400, f"The JSON cannot be read: {str(error)[:200]}.") from error


def _refuse_constant(name: str) -> float:
    raise ValueError(f"{name} is not a JSON number")


def _finite(text: str) -> float:
    number = float(text)
    if not math.isfinite(number):
        raise ValueError(f"the number {text[:40]} is too large")
    return number


R = TypeVar("R", bound=BaseModel)


def validated(kind: type[R], fields: Any) -> R:
    """Return the request that the fields make.

    Raises:
        InvalidConfigError: names the fields that are wrong, and the legal ones.
    """
    try:
        return kind.model_validate(fields)
    except ValidationError as error:
        problem = invalid_request(error.errors(include_url=False), "The request is not valid.")
        raise InvalidConfigError(
            problem["detail"],
            details={"errors": problem["errors"], "allowed": list(kind.model_fields)},
        ) from error


def decode_image(text: str, field: str = "image") -> bytes:
    """Return the bytes of a base64 picture; see ``decode_base64``."""
    return decode_base64(text, field)


def decode_base64(text: str, field: str) -> bytes:
    """Return the bytes of a base64 field, with or without a ``data:`` prefix.

    Args:
        text: of the request.
        field: its name there, for the error.

    Raises:
        InvalidConfigError: it is not base64.
    """
    if text.startswith("data:"):
        text = text.partition(",")[2]
    try:
        return base64.b64decode(text, validate=True)
    except (binascii.Error, ValueError) as error:
        raise InvalidConfigError(
            f"The field {field!r} is not base64.", hint="Encode the file's bytes, on one line."
        ) from error
