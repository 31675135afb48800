"""One picture of many results: a sample of the finished meshes, side by side."""

from __future__ import annotations

import io
import math
import tempfile
from collections.abc import Iterable, Sequence
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw

from dream_cad.exceptions import DreamCadError
from dream_cad.mesh.loading import load_mesh
from dream_cad.mesh.render import FIRST_AZIMUTH_DEG, render_view
from jobs.batch.manifest import COMPLETED, Entry
from jobs.batch.storage import Storage

SHEET = "contact_sheet.png"
_TILE = 192
_LABEL = 18
_LABEL_CHARS = 30
_ELEVATION_DEG = 20.0
_PAPER = (246, 246, 248)
_INK = (60, 60, 64)


def sample_completed(entries: Iterable[Entry], count: int, seed: int = 0) -> list[Entry]:
    """Return ``count`` completed entries chosen evenly by chance, in the order of the input.

    One pass, and memory for ``count`` entries (reservoir sampling).
    """
    random = np.random.default_rng(seed)
    chosen: list[Entry] = []
    completed = (entry for entry in entries if entry.status == COMPLETED)
    for seen, entry in enumerate(completed):
        place = seen if seen < count else int(random.integers(seen + 1))
        if place < count:
            chosen[place : place + 1] = [entry]
    return sorted(chosen, key=lambda entry: entry.index)


def write_contact_sheet(storage: Storage, entries: Sequence[Entry]) -> str | None:
    """Draw the entries' meshes and write the sheet; returns its path, None without entries.

    Raises:
        StorageError: it cannot be written.
    """
    if not entries:
        return None
    columns = math.ceil(math.sqrt(len(entries)))
    lines = math.ceil(len(entries) / columns)
    sheet = Image.new("RGB", (columns * _TILE, lines * (_TILE + _LABEL)), _PAPER)
    pen = ImageDraw.Draw(sheet)
    for place, entry in enumerate(entries):
        x, y = place % columns * _TILE, place // columns * (_TILE + _LABEL)
        tile = _tile(storage, entry)
        sheet.paste(tile, (x, y), tile)
        label = (entry.prompt or (entry.image or "").rpartition("/")[2])[:_LABEL_CHARS]
        pen.text((x + 4, y + _TILE + 2), label.encode("ascii", "replace").decode(), fill=_INK)
    buffer = io.BytesIO()
    sheet.save(buffer, "PNG")
    storage.write(SHEET, buffer.getvalue())
    return SHEET


def _tile(storage: Storage, entry: Entry) -> Image.Image:
    path = str(entry.path)
    try:
        with tempfile.NamedTemporaryFile(suffix=Path(path).suffix) as file:
            file.write(storage.read(path))
            file.flush()
            mesh = load_mesh(Path(file.name))
        pixels = render_view(
            mesh, size=_TILE, azimuth_deg=FIRST_AZIMUTH_DEG, elevation_deg=_ELEVATION_DEG
        )
    except DreamCadError:
        # A mesh that was moved away since leaves its place empty; the sheet is only a look.
        return Image.new("RGBA", (_TILE, _TILE), (*_PAPER, 255))
    return Image.fromarray(pixels)
