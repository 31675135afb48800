"""Results for download: the published files, and other formats made on demand."""

from __future__ import annotations

import asyncio
import hashlib
import tempfile
from pathlib import Path, PurePath

from deployments.http.documents import is_expired
from deployments.messages import MESH_FILE, PACKAGE_FILE
from deployments.workfolder import latest_preview, work_store
from dream_cad.artifacts import ArtifactStore, StoredFile
from dream_cad.exceptions import JobStateError, ResultExpiredError, ResultFileNotFoundError
from dream_cad.mesh.export import mesh_bytes
from dream_cad.mesh.loading import load_mesh
from dream_cad.queue import GenerationJob, JobStatus

MEDIA_TYPES = {
    "glb": "model/gltf-binary",
    "obj": "model/obj",
    "ply": "application/octet-stream",
    "stl": "model/stl",
    "3mf": "model/3mf",
    "usdz": "model/vnd.usdz+zip",
    "gltf": "model/gltf+json",
    "png": "image/png",
    "json": "application/json",
    "zip": "application/zip",
}
_OTHER_MEDIA_TYPE = "application/octet-stream"


def media_type(format: str) -> str:
    """Return the media type of a mesh format, or of a suffix without its dot."""
    return MEDIA_TYPES.get(format, _OTHER_MEDIA_TYPE)


def media_type_of(name: str) -> str:
    """Return the media type of a file, by its suffix."""
    return media_type(PurePath(name).suffix.removeprefix(".").lower())


def default_format(job: GenerationJob) -> str:
    """Return what a job's result is sent as if nobody says: its format, or its profile's zip."""
    return "zip" if job.config.get("profile") else str(job.policy.get("format", "glb"))


def result_key(job: GenerationJob) -> str:
    """Return the artifact key of a completed job.

    Raises:
        ResultExpiredError: it was completed, and its result is past its time.
        JobStateError: it is not completed; says how it stands.
    """
    if is_expired(job):
        raise ResultExpiredError(
            f"The result of job {job.id} is no longer kept.",
            hint="POST /v1/jobs/{id}/rerun makes it again.",
            details={"expired_at": job.expires_at.isoformat() if job.expires_at else None},
        )
    if job.status is JobStatus.COMPLETED and job.artifact_uri is not None:
        return job.artifact_uri
    why = f": {job.error}" if job.error else "."
    raise JobStateError(
        f"Job {job.id} has no result; it is {job.status.value}{why}",
        hint="Wait for it." if not job.status.is_final else None,
        details={"job_status": job.status.value},
    )


class ResultReader:
    """Reads results; a format other than GLB is made once and kept with the result."""

    def __init__(self, artifacts: ArtifactStore) -> None:
        self._artifacts = artifacts
        self._converting: dict[str, asyncio.Task[bytes]] = {}

    async def read_file(self, key: str, name: str) -> bytes:
        """Return a published file."""
        return await asyncio.to_thread(self._artifacts.read, key, name)

    async def read_work_preview(self, job_id: str) -> bytes | None:
        """Return the newest picture of a job that is at work; None while there is none."""
        return await asyncio.to_thread(latest_preview, work_store(self._artifacts), job_id)

    async def files(self, key: str) -> dict[str, StoredFile]:
        """Return what is stored of a result, by name."""
        return await asyncio.to_thread(self._artifacts.files, key)

    async def read_listed(self, key: str, name: str) -> tuple[bytes, StoredFile]:
        """Return a file that the result's own list names; a request never becomes a path.

        Raises:
            ResultFileNotFoundError: the list does not; says what it names.
        """
        listed = await self.files(key)
        if name not in listed:
            raise ResultFileNotFoundError(
                f"The result has no file {name[:80]!r}.",
                hint=f"Files: {', '.join(listed)}.",
                details={"allowed": list(listed)},
            )
        return await self.read_file(key, name), listed[name]

    async def fingerprint(self, content: bytes) -> str:
        """Return the SHA-256 of a file's content."""
        return await asyncio.to_thread(lambda: hashlib.sha256(content).hexdigest())

    async def read_mesh(self, key: str, format: str) -> bytes:
        """Return the mesh in a format; callers at the same time share one conversion.

        ``zip`` is the package of the job's profile.

        Raises:
            ResultFileNotFoundError: a zip is asked for, and the job named no profile.
        """
        if format == "glb":
            return await self.read_file(key, MESH_FILE)
        if format == "zip":
            return (await self.read_listed(key, PACKAGE_FILE))[0]
        name = f"{key}/{format}"
        task = self._converting.get(name)
        if task is None:
            task = asyncio.create_task(asyncio.to_thread(self._convert, key, format))
            self._converting[name] = task
            task.add_done_callback(lambda _: self._converting.pop(name, None))
        return await asyncio.shield(task)

    def _convert(self, key: str, format: str) -> bytes:
        cached = f"mesh.{format}"
        if self._artifacts.exists(key, cached):
            return self._artifacts.read(key, cached)
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder) / MESH_FILE
            path.write_bytes(self._artifacts.read(key, MESH_FILE))
            content = mesh_bytes(load_mesh(path), format)
        self._artifacts.put(key, cached, content)
        return content
