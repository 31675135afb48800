from __future__ import annotations

import io
import json
import zipfile
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from PIL import Image

from deployments.http.archive import COLUMNS, ROWS, THUMBNAIL, ContactSheets, stream_archive
from deployments.http.results import ResultReader
from deployments.messages import MESH_FILE, PREVIEW_FILE
from dream_cad.artifacts import ArtifactStore
from dream_cad.queue import GenerationJob, JobStatus


def preview(color: str = "red") -> bytes:
    sheet = Image.new("RGB", (4 * 32, 32), "black")
    sheet.paste(Image.new("RGB", (32, 32), color))
    buffer = io.BytesIO()
    sheet.save(buffer, "PNG")
    return buffer.getvalue()


@pytest.fixture
def artifacts(tmp_path: Path) -> ArtifactStore:
    return ArtifactStore(tmp_path)


def job(index: int, prompt: str, artifacts: ArtifactStore | None) -> GenerationJob:
    found = GenerationJob(id=f"j{index}", prompt=prompt, model_name="echo", batch_index=index)
    if artifacts is None:
        found.status = JobStatus.FAILED
        found.problem = {"type": "generation-failed", "detail": "round"}
    else:
        found.status = JobStatus.COMPLETED
        found.artifact_uri = f"{found.id}-1"
        mesh = f"mesh {index}".encode()
        artifacts.publish(found.artifact_uri, {MESH_FILE: mesh, PREVIEW_FILE: preview()})
    return found


async def unzip(jobs: list[GenerationJob], artifacts: ArtifactStore) -> zipfile.ZipFile:
    async def listed() -> AsyncIterator[GenerationJob]:
        for found in jobs:
            yield found

    stream = stream_archive(listed(), ResultReader(artifacts), "glb", {"id": "b"})
    return zipfile.ZipFile(io.BytesIO(b"".join([chunk async for chunk in stream])))


async def test_the_zip_holds_meshes_sheet_and_manifest(artifacts: ArtifactStore) -> None:
    prompts = ["a Red chair!", "../../etc/passwd", "椅子"]
    jobs = [job(index, prompt, artifacts) for index, prompt in enumerate(prompts)]
    archive = await unzip([*jobs, job(3, "failed", None)], artifacts)
    assert archive.testzip() is None
    assert archive.namelist() == [
        "00000-a-red-chair.glb",
        "00001-etc-passwd.glb",
        "00002-item.glb",
        "contact-sheet-001.png",
        "manifest.json",
    ]
    assert archive.read("00001-etc-passwd.glb") == b"mesh 1"
    manifest = json.loads(archive.read("manifest.json"))
    assert manifest["id"] == "b"
    assert [item["status"] for item in manifest["items"]] == ["completed"] * 3 + ["failed"]
    assert manifest["items"][1]["prompt"] == "../../etc/passwd"
    assert manifest["items"][3]["file"] is None
    assert manifest["items"][3]["error"]["detail"] == "round"
    sheet = Image.open(io.BytesIO(archive.read("contact-sheet-001.png")))
    assert sheet.size[0] == 3 * THUMBNAIL
    assert sheet.convert("RGB").getpixel((10, 10)) == (255, 0, 0)


async def test_a_result_that_cannot_be_read_does_not_break_the_zip(
    artifacts: ArtifactStore,
) -> None:
    jobs = [job(0, "here", artifacts), job(1, "lost", artifacts)]
    artifacts.delete("j1-1")
    archive = await unzip(jobs, artifacts)
    items = json.loads(archive.read("manifest.json"))["items"]
    assert [item["file"] for item in items] == ["00000-here.glb", None]
    assert items[1]["error"]["type"] == "storage-failed"


async def test_an_empty_batch_is_a_zip_as_well(artifacts: ArtifactStore) -> None:
    archive = await unzip([], artifacts)
    assert archive.namelist() == ["manifest.json"]


def test_sheets_are_handed_out_when_full() -> None:
    sheets = ContactSheets()
    picture = preview("blue")
    made = [sheets.add(picture, index) for index in range(COLUMNS * ROWS + 1)]
    assert [png is not None for png in made] == [False] * 99 + [True, False]
    last = sheets.finish()
    assert last is not None
    assert Image.open(io.BytesIO(last)).size[0] == THUMBNAIL
    assert sheets.finish() is None
