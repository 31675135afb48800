"""Read a file of prompts or pictures record by record, in memory that does not grow with it."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import IO, Any

import pyarrow as pa
from pyarrow import fs, parquet

from dream_cad.exceptions import FileFormatError, InvalidConfigError, StorageError
from jobs.batch.storage import open_filesystem, storage_errors

COLUMNS = ("prompt", "image", "model", "seed", "options")
FORMATS = ("txt", "csv", "jsonl", "parquet")
_MAX_LINE = 2**20
_PARQUET_ROWS = 4096
_UTF8_BOM = "\ufeff"


@dataclass(frozen=True)
class Record:
    """One record as it stands in the file.

    Attributes:
        index: its number among the records, from 0.
        values: column to value.
        problem: why it cannot be read; None if it can.
    """

    index: int
    values: dict[str, Any]
    problem: str | None = None


@dataclass(frozen=True)
class Source:
    """An input file whose head has been checked.

    Attributes:
        uri: where it is.
        format: one of ``FORMATS``.
        ignored: columns that mean nothing here.
    """

    uri: str
    format: str
    ignored: tuple[str, ...] = ()

    @property
    def folder(self) -> str:
        """The folder that relative picture paths start from."""
        return self.uri.partition("?")[0].rpartition("/")[0] or "."


def open_source(uri: str) -> Source:
    """Look at the head of the input.

    Raises:
        FileFormatError: the suffix names no known format, or the content is of another.
        StorageError: it is not there or cannot be read.
        InvalidConfigError: it is empty, or has no usable columns, or columns of a wrong type.
    """
    suffix = uri.partition("?")[0].rpartition(".")[2].lower()
    if suffix not in FORMATS:
        raise FileFormatError(
            f"{uri!r} is not a kind of input that can be read.",
            hint=f"Its name must end in one of: {', '.join('.' + name for name in FORMATS)}.",
        )
    filesystem, path = open_filesystem(uri)
    with storage_errors(f"read {uri}"):
        info = filesystem.get_file_info(path)
    if info.type != fs.FileType.File:
        raise StorageError(f"There is no file {uri}.", hint="Correct --input.")
    if info.size == 0:
        raise InvalidConfigError(f"{uri} is empty.")
    columns = _columns(uri, suffix)
    if columns is not None and not {"prompt", "image"} & set(columns):
        raise InvalidConfigError(
            f"{uri} has no column prompt or image; its columns are {', '.join(columns)}.",
            hint=f"Columns: {', '.join(COLUMNS)}.",
        )
    return Source(uri, suffix, tuple(name for name in columns or () if name not in COLUMNS))


def read_records(source: Source) -> Iterator[Record]:
    """Yield the records of a source, those that cannot be read included.

    Raises:
        StorageError: it cannot be read any more.
    """
    readers = {"txt": _read_txt, "csv": _read_csv, "jsonl": _read_jsonl, "parquet": _read_parquet}
    with storage_errors(f"read {source.uri}"):
        yield from readers[source.format](source.uri)


def _columns(uri: str, suffix: str) -> list[str] | None:
    if suffix == "parquet":
        return _parquet_columns(uri)
    if suffix == "csv":
        return list(_csv_reader(uri)[1])
    return None


def _text(uri: str) -> IO[str]:
    filesystem, path = open_filesystem(uri)
    raw = filesystem.open_input_file(path)
    # Bytes that are no UTF-8 become lone surrogates, which the check of the prompt refuses.
    return io.TextIOWrapper(raw, encoding="utf-8", errors="surrogateescape", newline="")


def _lines(uri: str) -> Iterator[tuple[int, str, str | None]]:
    """Yield (number among the lines that are not blank, line, problem)."""
    index = 0
    with _text(uri) as stream:
        is_rest = False
        while line := stream.readline(_MAX_LINE):
            is_cut = len(line) == _MAX_LINE and not line.endswith("\n")
            if not is_rest and line.strip(_UTF8_BOM + " \t\r\n"):
                problem = f"the line is longer than {_MAX_LINE:,} characters" if is_cut else None
                yield index, "" if is_cut else line.strip(_UTF8_BOM + "\r\n"), problem
                index += 1
            is_rest = is_cut


def _read_txt(uri: str) -> Iterator[Record]:
    for index, line, problem in _lines(uri):
        yield Record(index, {"prompt": line}, problem)


def _read_jsonl(uri: str) -> Iterator[Record]:
    for index, line, problem in _lines(uri):
        if problem is not None:
            yield Record(index, {}, problem)
            continue
        try:
            values = json.loads(line)
        except (ValueError, RecursionError) as error:
            yield Record(index, {"text": line[:200]}, f"the line is not JSON: {error}")
            continue
        if isinstance(values, dict):
            yield Record(index, values)
        else:
            yield Record(index, {"text": line[:200]}, "the line is JSON, but not an object")


def _bounded(stream: IO[str]) -> Iterator[str]:
    """Yield lines; of one without end only so much that its field is refused as too large."""
    is_rest = False
    while line := stream.readline(_MAX_LINE + 2):
        if not is_rest:
            yield line
        is_rest = len(line) == _MAX_LINE + 2 and not line.endswith("\n")


def _csv_reader(uri: str) -> tuple[Any, Sequence[str]]:
    csv.field_size_limit(_MAX_LINE)
    reader = csv.reader(_bounded(_text(uri)), strict=True)
    try:
        header = [name.strip().removeprefix(_UTF8_BOM) for name in next(reader)]
    except (csv.Error, StopIteration) as error:
        raise FileFormatError(f"{uri} has no header line of column names.") from error
    twice = sorted({name for name in header if header.count(name) > 1})
    if twice:
        raise InvalidConfigError(f"{uri} has the column {twice[0]!r} more than once.")
    return reader, header


def _read_csv(uri: str) -> Iterator[Record]:
    reader, header = _csv_reader(uri)
    index = 0
    while True:
        try:
            fields = next(reader)
        except StopIteration:
            return
        except csv.Error as error:
            yield Record(index, {"line": str(reader.line_num)}, f"not valid CSV: {error}")
            index += 1
            continue
        if not fields:
            continue
        values = {name: text or None for name, text in zip(header, fields, strict=False)}
        problem = None
        if len(fields) != len(header):
            problem = f"{len(fields)} fields where the header names {len(header)}"
        yield Record(index, values, problem)
        index += 1


def _open_parquet(uri: str) -> parquet.ParquetFile:
    filesystem, path = open_filesystem(uri)
    try:
        return parquet.ParquetFile(filesystem.open_input_file(path))
    except pa.ArrowInvalid as error:
        raise FileFormatError(f"{uri} is not a Parquet file: {error}.") from error


def _parquet_columns(uri: str) -> list[str]:
    with _open_parquet(uri) as file:
        schema = file.schema_arrow
    for name in ("prompt", "image", "model"):
        _check_type(uri, schema, name, ("text",), _is_text)
    _check_type(uri, schema, "seed", ("whole numbers",), pa.types.is_integer)
    _check_type(uri, schema, "options", ("JSON text", "a struct"), _is_options)
    return list(schema.names)


def _check_type(uri: str, schema: pa.Schema, name: str, wanted: Sequence[str], is_ok: Any) -> None:
    if name not in schema.names:
        return
    kind = schema.field(name).type
    if pa.types.is_dictionary(kind):
        kind = kind.value_type
    if not (pa.types.is_null(kind) or is_ok(kind)):
        raise InvalidConfigError(
            f"{uri}: the column {name} holds {kind}; {' or '.join(wanted)} is expected."
        )


def _is_text(kind: pa.DataType) -> bool:
    return bool(pa.types.is_string(kind) or pa.types.is_large_string(kind))


def _is_options(kind: pa.DataType) -> bool:
    return _is_text(kind) or bool(pa.types.is_struct(kind))


def _read_parquet(uri: str) -> Iterator[Record]:
    index = 0
    with _open_parquet(uri) as file:
        columns = [name for name in file.schema_arrow.names if name in COLUMNS]
        for batch in file.iter_batches(batch_size=_PARQUET_ROWS, columns=columns):
            for values in batch.to_pylist():
                yield Record(index, values)
                index += 1
