"""Folders in which long jobs keep their state between attempts, and show how far they are.

They are named by the server after the job, never by a client. Where results are on a local or
shared disk the folder lies beside them, and any replica takes it up; with an object store, files
are copied there as they change and fetched by the next attempt.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import logging
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import dream_cad
from deployments.messages import PREVIEW_NOTE, StageRequest
from dream_cad.artifacts import ArtifactStore
from dream_cad.models.base import Model3D, ProgressCallback

logger = logging.getLogger(__name__)

_CHECKPOINT, _PREVIEW = ".ckpt", ".png"


def work_store(artifacts: ArtifactStore) -> ArtifactStore:
    """Return the store of working folders that belongs to a store of results."""
    return artifacts.within(".work")


def checkpoint_option(model: Model3D) -> str | None:
    """Return the option that names the file in which a model keeps its state, if it has one."""
    rules = model.options_model()
    for name, field in (rules.model_fields if rules is not None else {}).items():
        extra = field.json_schema_extra
        if isinstance(extra, dict) and extra.get("checkpoint"):
            return name
    return None


class JobFolder:
    """The files of one try of a job: its checkpoint, and the picture of how far it is.

    Args:
        folder: where they are at work.
        stem: names the try: other options, other files.
        remote: copies go there, under the given key; None where ``folder`` itself is kept.
    """

    def __init__(self, folder: Path, stem: str, remote: tuple[ArtifactStore, str] | None) -> None:
        self.checkpoint = folder / f"{stem}{_CHECKPOINT}"
        self._preview = folder / f"{stem}{_PREVIEW}"
        self._remote = remote
        self._copied: dict[str, int] = {}

    def fetch(self) -> None:
        """Bring what an earlier attempt left."""
        if self._remote is None:
            return
        store, key = self._remote
        for path in (self.checkpoint, self._preview):
            if store.exists(key, path.name):
                path.write_bytes(store.read(key, path.name))
                self._copied[path.name] = path.stat().st_mtime_ns

    def keep(self) -> None:
        """Copy what has changed to the store."""
        if self._remote is None:
            return
        store, key = self._remote
        for path in (self.checkpoint, self._preview):
            changed = path.stat().st_mtime_ns if path.is_file() else None
            if changed is not None and changed != self._copied.get(path.name):
                store.put(key, path.name, path.read_bytes())
                self._copied[path.name] = changed

    def discard(self) -> bool:
        """Delete the checkpoint; returns whether there was one."""
        if not self.checkpoint.is_file():
            return False
        self.checkpoint.unlink()
        return True

    def watched(self, progress: ProgressCallback) -> ProgressCallback:
        """Return a callback that keeps what has changed, and tells of the picture."""

        def tell(fraction: float, stage: str) -> None:
            self.keep()
            progress(fraction, f"{stage}{PREVIEW_NOTE}" if self._preview.is_file() else stage)

        return tell


@contextlib.contextmanager
def job_folder(work: ArtifactStore, request: StageRequest) -> Iterator[JobFolder]:
    """Open the folder of a job, with what an earlier attempt left in it."""
    stem = _stem(request)
    local = work.local_folder(request.job_id)
    if local is not None:
        local.mkdir(parents=True, exist_ok=True)
        yield JobFolder(local, stem, None)
        return
    with tempfile.TemporaryDirectory(prefix="dream-cad-") as name:
        folder = JobFolder(Path(name), stem, (work, request.job_id))
        folder.fetch()
        try:
            yield folder
        finally:
            folder.keep()


def latest_preview(work: ArtifactStore, job_id: str) -> bytes | None:
    """Return the newest picture of a job at work, PNG; None while there is none."""
    name = work.newest(job_id, _PREVIEW)
    return None if name is None else work.read(job_id, name)


def _stem(request: StageRequest) -> str:
    facts: dict[str, Any] = {"version": dream_cad.__version__, "prompt": request.prompt}
    facts["options"] = request.options
    text = json.dumps(facts, sort_keys=True, default=str)
    return hashlib.sha256(text.encode()).hexdigest()[:16]
