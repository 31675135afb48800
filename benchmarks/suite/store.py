"""A pass over a suite as files, so that it can be taken up again where it stopped."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from dream_cad.benchmark.records import CaseRecord
from dream_cad.exceptions import StorageError
from dream_cad.mesh.data import MeshData
from dream_cad.mesh.export import export_mesh, load_mesh

_PASS = "pass.json"
_RECORDS = "records"


class PassStore:
    """The folder of one pass: ``pass.json``, and for each case a record and a mesh.

    A record is written last and atomically: a case without one is done again.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        try:
            (folder / _RECORDS).mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise StorageError(f"{folder} cannot be made: {error.strerror or error}.") from error

    def load_pass(self) -> dict[str, Any]:
        """Return what was noted about the pass; empty for a new one."""
        path = self.folder / _PASS
        return dict(json.loads(path.read_text())) if path.is_file() else {}

    def save_pass(self, values: dict[str, Any]) -> None:
        """Note what the pass is."""
        _write(self.folder / _PASS, json.dumps(values, indent=1))

    def add(self, record: CaseRecord, mesh: MeshData | None) -> None:
        """Keep a finished case."""
        if mesh is not None:
            export_mesh(mesh, self._mesh_path(record))
        _write(self.folder / _RECORDS / f"{record.key}.json", json.dumps(record.to_dict()))

    def records(self) -> Iterator[CaseRecord]:
        """Yield the finished cases, sorted by name."""
        for path in sorted((self.folder / _RECORDS).glob("*.json")):
            yield CaseRecord.from_dict(json.loads(path.read_text()))

    def mesh(self, record: CaseRecord) -> MeshData | None:
        """Return the mesh of a record; None where the generation failed."""
        path = self._mesh_path(record)
        return load_mesh(path) if path.is_file() else None

    def write_text(self, name: str, text: str) -> Path:
        """Write a report beside the records."""
        return _write(self.folder / name, text)

    def _mesh_path(self, record: CaseRecord) -> Path:
        return self.folder / _RECORDS / f"{record.key}.glb"


def _write(path: Path, text: str) -> Path:
    part = path.with_suffix(f"{path.suffix}.part")
    part.write_text(text, encoding="utf-8")
    os.replace(part, path)
    return path
