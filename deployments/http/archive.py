"""A batch as one zip, made while it is sent: meshes, contact sheets, manifest.

Memory holds one file and one contact sheet at a time, whatever the size of the batch. Meshes are
stored as they are (GLB hardly compresses), so the transfer is as fast as the disk.
"""

from __future__ import annotations

import asyncio
import io
import json
import re
import zipfile
from collections.abc import AsyncIterator
from typing import Any

from PIL import Image, ImageDraw

from deployments.http.documents import is_expired
from deployments.http.results import ResultReader
from deployments.messages import PREVIEW_FILE
from dream_cad.exceptions import DreamCadError
from dream_cad.queue import GenerationJob, JobStatus

THUMBNAIL = 128
COLUMNS, ROWS = 10, 10
_CAPTION = 14
_EPOCH = (1980, 1, 1, 0, 0, 0)
"""Time of every entry, so that the same batch gives the same bytes."""


class ContactSheets:
    """Collects thumbnails and hands out a picture whenever one is full."""

    def __init__(self) -> None:
        self._sheet: Image.Image | None = None
        self._count = 0

    def add(self, preview: bytes, index: int) -> bytes | None:
        """Place the first view of a turntable sheet; returns a finished PNG when the sheet is full.

        Args:
            preview: PNG of square views side by side.
            index: the item's number, written below it.
        """
        with Image.open(io.BytesIO(preview)) as opened:
            side = min(opened.size)
            view = opened.convert("RGB").crop((0, 0, side, side)).resize((THUMBNAIL, THUMBNAIL))
        if self._sheet is None:
            size = COLUMNS * THUMBNAIL, ROWS * (THUMBNAIL + _CAPTION)
            self._sheet = Image.new("RGB", size, "white")
        row, column = divmod(self._count, COLUMNS)
        corner = column * THUMBNAIL, row * (THUMBNAIL + _CAPTION)
        self._sheet.paste(view, corner)
        caption = corner[0] + 4, corner[1] + THUMBNAIL + 1
        ImageDraw.Draw(self._sheet).text(caption, str(index), fill="black")
        self._count += 1
        return self.finish() if self._count == COLUMNS * ROWS else None

    def finish(self) -> bytes | None:
        """Return the sheet begun last as PNG, cut to the rows in use; None if there is none."""
        if self._sheet is None:
            return None
        used = -(-self._count // COLUMNS)
        columns = min(self._count, COLUMNS) * THUMBNAIL
        buffer = io.BytesIO()
        self._sheet.crop((0, 0, columns, used * (THUMBNAIL + _CAPTION))).save(buffer, "PNG")
        self._sheet, self._count = None, 0
        return buffer.getvalue()


class _Sink(io.RawIOBase):
    """Takes what the zip writer writes and hands it out; it cannot seek."""

    def __init__(self) -> None:
        self._parts: list[bytes] = []

    def writable(self) -> bool:
        return True

    def write(self, data: Any, /) -> int:
        self._parts.append(bytes(data))
        return len(data)

    def drain(self) -> bytes:
        taken, self._parts = b"".join(self._parts), []
        return taken


async def stream_archive(
    jobs: AsyncIterator[GenerationJob], results: ResultReader, format: str, batch: dict[str, Any]
) -> AsyncIterator[bytes]:
    """Yield the bytes of a zip with the batch's meshes, contact sheets and ``manifest.json``.

    Items without a result are in the manifest alone, with the reason.

    Args:
        jobs: the batch's jobs, in order.
        results: where their files are read.
        format: of the meshes.
        batch: what the manifest says of the batch itself.
    """
    sink, sheets, entries = _Sink(), ContactSheets(), []
    with zipfile.ZipFile(sink, "w", zipfile.ZIP_STORED) as archive:
        async for job in jobs:
            entry, files = await _collect(job, results, format)
            entries.append(entry)
            for name, content in files.items():
                if name != PREVIEW_FILE:
                    _write(archive, name, content)
            if (preview := files.get(PREVIEW_FILE)) is not None:
                sheet = await asyncio.to_thread(sheets.add, preview, job.batch_index or 0)
                _write_sheet(archive, sheet)
            if chunk := sink.drain():
                yield chunk
        _write_sheet(archive, sheets.finish())
        manifest = {**batch, "items": entries}
        _write(archive, "manifest.json", json.dumps(manifest, indent=1, default=str).encode())
    yield sink.drain()


async def _collect(
    job: GenerationJob, results: ResultReader, format: str
) -> tuple[dict[str, Any], dict[str, bytes]]:
    """Return the manifest's entry of a job, and its files by their names in the zip."""
    entry: dict[str, Any] = {
        "index": job.batch_index,
        "job": job.id,
        "status": job.status.value,
        "prompt": job.prompt,
        "model": job.model_name,
        "options": job.config,
        "file": None,
        "error": job.problem if job.status is JobStatus.FAILED else None,
    }
    if job.status is not JobStatus.COMPLETED or is_expired(job) or job.artifact_uri is None:
        return entry, {}
    name = f"{job.batch_index or 0:05d}-{_slug(job.prompt)}.{format}"
    try:
        mesh = await results.read_mesh(job.artifact_uri, format)
        preview = await results.read_file(job.artifact_uri, PREVIEW_FILE)
    except DreamCadError as error:
        return {**entry, "error": {"type": error.code, "detail": str(error)}}, {}
    return {**entry, "file": name}, {name: mesh, PREVIEW_FILE: preview}


def _slug(prompt: str) -> str:
    return re.sub(r"[^a-z0-9]+", "-", prompt.lower()).strip("-")[:40].strip("-") or "item"


def _write(archive: zipfile.ZipFile, name: str, content: bytes) -> None:
    archive.writestr(zipfile.ZipInfo(name, _EPOCH), content)


def _write_sheet(archive: zipfile.ZipFile, sheet: bytes | None) -> None:
    if sheet is not None:
        number = sum(name.startswith("contact-sheet-") for name in archive.namelist()) + 1
        _write(archive, f"contact-sheet-{number:03d}.png", sheet)
