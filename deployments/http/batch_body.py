"""Read a batch from JSON, JSON lines or CSV, as the body itself or as an uploaded file."""

from __future__ import annotations

import csv
import io
from dataclasses import dataclass
from typing import Any

from starlette.datastructures import UploadFile
from starlette.exceptions import HTTPException
from starlette.requests import Request

from deployments.http.body import decode_image, parse_json, plain_media_type, validated
from deployments.http.schemas import BatchRequest
from dream_cad.exceptions import InvalidConfigError, PayloadTooLargeError

_MAX_FIELDS = 32
_MAX_FIELD_BYTES = 2**20
_LINES = frozenset(
    {"application/jsonl", "application/x-ndjson", "application/x-jsonlines", "application/ndjson"}
)
_CSV = frozenset({"text/csv", "application/csv"})
_JSON_FIELDS = frozenset({"options", "models", "require", "depends_on", "tags"})
_INPUTS = ("prompt", "image_url")
_CELLS = (*_INPUTS, "model", "priority")
_OPTION = "option."
_SUFFIXES = {".csv": "text/csv", ".jsonl": "application/jsonl", ".json": "application/json"}


@dataclass(frozen=True)
class BatchSubmission:
    """A parsed batch and the picture of each item that has one."""

    request: BatchRequest
    images: list[bytes | None]


async def read_batch(request: Request, max_items: int) -> BatchSubmission:
    """Parse the body by its content type.

    What a file's lines leave out comes from the query (``?name=&model=&priority=``) or, with a
    form, from its fields.

    Raises:
        PayloadTooLargeError: more than ``max_items`` items, or too many bytes.
        HTTPException: 400 malformed, 415 another content type.
        InvalidConfigError: well-formed, but not a valid batch.
    """
    media_type = plain_media_type(request)
    if media_type == "multipart/form-data":
        fields = await _from_form(request, max_items)
    else:
        shared = {name: _field(name, value) for name, value in request.query_params.items()}
        fields = shared | _parse(await request.body(), media_type, max_items)
    _check_count(fields, max_items)
    batch = validated(BatchRequest, fields)
    items = batch.items or []
    images = [None if item.image is None else decode_image(item.image) for item in items]
    return BatchSubmission(batch, images or [None] * len(batch.prompts or ()))


async def _from_form(request: Request, max_items: int) -> dict[str, Any]:
    fields: dict[str, Any] = {}
    found: dict[str, Any] | None = None
    async with request.form(
        max_files=1, max_fields=_MAX_FIELDS, max_part_size=_MAX_FIELD_BYTES
    ) as form:
        for name, value in form.multi_items():
            if name in fields:
                raise InvalidConfigError(f"The form holds {name[:80]!r} more than once.")
            if isinstance(value, UploadFile):
                found = _parse(await value.read(), _type_of(name, value), max_items)
            else:
                fields[name] = _field(name, value)
    if found is None:
        raise InvalidConfigError("The form holds no file; send it as 'file'.")
    return fields | found


def _type_of(name: str, value: UploadFile) -> str:
    if name != "file":
        raise InvalidConfigError(f"The form holds a file called {name[:80]!r}; call it 'file'.")
    suffix = "." + (value.filename or "").lower().rpartition(".")[2]
    return _SUFFIXES.get(suffix, (value.content_type or "").partition(";")[0].strip().lower())


def _field(name: str, text: str) -> Any:
    return parse_json(text.encode("utf-8", "surrogatepass")) if name in _JSON_FIELDS else text


def _parse(body: bytes, media_type: str, max_items: int) -> dict[str, Any]:
    """Return the fields of a body: all of a JSON object's, or the items of the lines."""
    if media_type == "application/json":
        fields = parse_json(body)
        if isinstance(fields, list):
            return {"items": fields}
        if not isinstance(fields, dict):
            raise HTTPException(400, "The body must be a JSON object, or an array of items.")
        return fields
    if media_type in _LINES:
        return {"items": _json_lines(_text(body), max_items)}
    if media_type in _CSV:
        return {"items": _csv_rows(_text(body), max_items)}
    raise HTTPException(
        415, "Send application/json, application/jsonl, text/csv, or a form with 'file'."
    )


def _text(body: bytes) -> str:
    try:
        return body.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise HTTPException(400, f"The file is not UTF-8: byte {error.start}.") from error


def _json_lines(text: str, max_items: int) -> list[dict[str, Any]]:
    items = []
    for number, line in enumerate(text.split("\n"), 1):
        if not line.strip():
            continue
        try:
            item = parse_json(line.encode())
        except HTTPException as error:
            raise HTTPException(400, f"Line {number}: {error.detail}") from error
        if isinstance(item, str):
            item = {"prompt": item}
        if not isinstance(item, dict):
            raise HTTPException(400, f"Line {number} is neither a JSON object nor a string.")
        items.append(item)
        _check_length(len(items), max_items)
    return items


def _csv_rows(text: str, max_items: int) -> list[dict[str, Any]]:
    rows = csv.reader(io.StringIO(text, newline=""), strict=True)
    try:
        header = [name.strip() for name in next(rows, [])]
        _check_header(header)
        items = []
        for cells in rows:
            if any(cell.strip() for cell in cells):
                items.append(_row(header, cells, rows.line_num))
                _check_length(len(items), max_items)
    except csv.Error as error:
        raise HTTPException(400, f"Line {rows.line_num} of the CSV: {error}.") from error
    return items


def _check_header(header: list[str]) -> None:
    legal = [*_CELLS, "tags", "options"]
    unknown = [name for name in header if name not in legal and not name.startswith(_OPTION)]
    has_input = any(name in header for name in _INPUTS)
    if not has_input or unknown or len(set(header)) != len(header):
        what = f"unknown column {unknown[0][:40]!r}" if unknown else "no 'prompt', or one twice"
        raise InvalidConfigError(
            f"The first line of the CSV names the columns: {what}.",
            hint=f"Columns: {', '.join(legal)}, and option.<name> for single options.",
            details={"allowed": legal},
        )


def _row(header: list[str], cells: list[str], line: int) -> dict[str, Any]:
    if len(cells) != len(header):
        raise HTTPException(
            400, f"Line {line} of the CSV has {len(cells)} cells; {len(header)} are named."
        )
    row = {name: cell for name, cell in zip(header, cells, strict=True) if cell.strip()}
    item: dict[str, Any] = {name: row[name] for name in _CELLS if name in row}
    if "tags" in row:
        item["tags"] = [tag.strip() for tag in row["tags"].split(";") if tag.strip()]
    options = _cell(row["options"], line) if "options" in row else {}
    if not isinstance(options, dict):
        raise HTTPException(400, f"Line {line} of the CSV: options must be a JSON object.")
    single = {
        name.removeprefix(_OPTION): _scalar(cell)
        for name, cell in row.items()
        if name.startswith(_OPTION)
    }
    if options or single:
        item["options"] = options | single
    return item


def _cell(text: str, line: int) -> Any:
    try:
        return parse_json(text.encode())
    except HTTPException as error:
        raise HTTPException(400, f"Line {line} of the CSV: {error.detail}") from error


def _scalar(text: str) -> Any:
    """Read a number, true or false as such, and anything else as text."""
    try:
        value = parse_json(text.strip().encode())
    except HTTPException:
        return text
    return value if isinstance(value, (bool, int, float)) else text


def _check_count(fields: dict[str, Any], max_items: int) -> None:
    for name in ("prompts", "items"):
        listed = fields.get(name)
        if isinstance(listed, list):
            _check_length(len(listed), max_items)


def _check_length(length: int, max_items: int) -> None:
    if length > max_items:
        raise PayloadTooLargeError(
            f"A batch holds at most {max_items} items.",
            hint="Send several batches.",
            details={"limit_items": max_items},
        )
