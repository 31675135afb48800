"""Stored files of a result, and downloads that are checked for change and taken up again."""

from __future__ import annotations

import hashlib

import httpx
import pytest

from deployments.messages import MESH_FILE, PREVIEW_FILE, PREVIEW_NOTE, RECEIPT_FILE
from deployments.workfolder import work_store
from tests.unit.deployments.http.conftest import Stand
from tests.unit.deployments.http.test_jobs_api import problem

SPLATS = bytes(range(256)) * 4
MORE = {"splats.ply": SPLATS, "views.png": b"\x89PNG", "sparse.npz": b"PK"}


@pytest.fixture
async def url(stand: Stand) -> str:
    """The path of a job whose result has files of its own."""
    job_id = await stand.submit()
    job = stand.complete()
    key = f"{job.id}-{job.attempts}"
    own = {name: stand.artifacts.read(key, name) for name in stand.artifacts.files(key)}
    stand.artifacts.publish(key, {**own, **MORE})
    return f"/v1/jobs/{job_id}"


async def test_files_are_listed_and_sent(stand: Stand, url: str) -> None:
    links = (await stand.client.get(url)).json()["links"]
    assert links["files"] == f"{url}/files"
    listed = (await stand.client.get(links["files"])).json()["files"]
    kinds = {file["name"]: file["media_type"] for file in listed}
    assert kinds == {
        MESH_FILE: "model/gltf-binary",
        PREVIEW_FILE: "image/png",
        RECEIPT_FILE: "application/json",
        "splats.ply": "application/octet-stream",
        "views.png": "image/png",
        "sparse.npz": "application/octet-stream",
    }
    for file in listed:
        answer = await stand.client.get(file["url"])
        assert answer.headers["content-type"] == file["media_type"]
        assert answer.headers["x-content-type-options"] == "nosniff"
        assert (len(answer.content), hashlib.sha256(answer.content).hexdigest()) == (
            file["bytes"],
            file["sha256"],
        )


@pytest.mark.parametrize(
    "name", ["none.ply", "manifest.json", "mesh.stl", "..%2F..%2Fjobs.sqlite3", "%00", "%20"]
)
async def test_only_listed_names_are_files(stand: Stand, url: str, name: str) -> None:
    await stand.client.get(f"{url}/result?format=stl")  # makes mesh.stl beside the listed files
    found = problem(await stand.client.get(f"{url}/files/{name}"), 404)
    if name.endswith((".ply", ".stl")):
        assert found["type"] == "result-file-not-found"
        assert "splats.ply" in found["allowed"]


async def test_files_end_with_the_result(stand: Stand, url: str) -> None:
    waiting = await stand.submit(use_cache=False)
    problem(await stand.client.get(f"/v1/jobs/{waiting}/files"), 409)
    job_id = url.rpartition("/")[2]
    stand.queue.forget_result(job_id)
    assert (await stand.client.get(url)).json()["links"]["files"] is None
    for path in ("files", "files/splats.ply"):
        assert problem(await stand.client.get(f"{url}/{path}"), 410)["type"] == "result-expired"
    problem(await stand.client.get("/v1/jobs/nobody/files"), 404)


async def test_files_of_a_lost_folder_are_a_storage_problem(stand: Stand, url: str) -> None:
    job = stand.queue.get_job(url.rpartition("/")[2])
    assert job is not None
    assert job.artifact_uri is not None
    stand.artifacts.delete(job.artifact_uri)
    assert problem(await stand.client.get(f"{url}/files"), 507)["type"] == "storage-failed"


@pytest.mark.parametrize(
    ("asked", "begin", "end"),
    [
        ("bytes=0-9", 0, 10),
        ("bytes=1000-", 1000, 1024),
        ("bytes=-24", 1000, 1024),
        ("bytes=1020-4000", 1020, 1024),
        ("bytes=-9999", 0, 1024),
    ],
)
async def test_a_range(stand: Stand, url: str, asked: str, begin: int, end: int) -> None:
    answer = await stand.client.get(f"{url}/files/splats.ply", headers={"Range": asked})
    assert answer.status_code == 206
    assert answer.content == SPLATS[begin:end]
    assert answer.headers["content-range"] == f"bytes {begin}-{end - 1}/1024"
    assert answer.headers["content-length"] == str(end - begin)


@pytest.mark.parametrize("asked", ["bytes=0-1,4-5", "lines=1-2", "bytes=-", "bytes=9-3", "x"])
async def test_other_ranges_get_everything(stand: Stand, url: str, asked: str) -> None:
    answer = await stand.client.get(f"{url}/files/splats.ply", headers={"Range": asked})
    assert (answer.status_code, answer.content) == (200, SPLATS)


@pytest.mark.parametrize("asked", ["bytes=1024-", "bytes=5000-6000", "bytes=-0"])
async def test_a_range_behind_the_end(stand: Stand, url: str, asked: str) -> None:
    answer = await stand.client.get(f"{url}/files/splats.ply", headers={"Range": asked})
    assert problem(answer, 416)["type"] == "range-not-satisfiable"
    assert answer.headers["content-range"] == "bytes */1024"


async def test_change_is_told_by_the_etag(stand: Stand, url: str) -> None:
    async def get(path: str, **headers: str) -> httpx.Response:
        named = {name.replace("_", "-"): value for name, value in headers.items()}
        return await stand.client.get(f"{url}/{path}", headers=named)

    for path in ("files/splats.ply", "result", "result?format=stl"):
        first = await get(path)
        etag = first.headers["etag"]
        assert etag == f'"{hashlib.sha256(first.content).hexdigest()}"'
        for known in (etag, f'"x", W/{etag}', "*"):
            answer = await get(path, If_None_Match=known)
            assert (answer.status_code, answer.content) == (304, b"")
        part = await get(path, Range="bytes=1-4", If_Range=etag)
        assert (part.status_code, part.content) == (206, first.content[1:5])
        whole = await get(path, Range="bytes=1-4", If_Range='"old"')
        assert (whole.status_code, whole.content) == (200, first.content)


async def test_a_job_at_work_shows_itself(stand: Stand) -> None:
    job_id = await stand.submit(use_cache=False)
    path = f"/v1/jobs/{job_id}"
    problem(await stand.client.get(f"{path}/preview.png"), 409)
    job = stand.queue.get_next_job()
    assert job is not None
    assert (await stand.client.get(path)).json()["links"]["preview"] is None
    work_store(stand.artifacts).publish(job_id, {"a.ckpt": b"state", "a.png": b"\x89PNG so far"})
    stand.queue.report_progress(job_id, job.lease_token, 0.4, f"distill 4/10{PREVIEW_NOTE}")
    assert (await stand.client.get(path)).json()["links"]["preview"] == f"{path}/preview.png"
    answer = await stand.client.get(f"{path}/preview.png")
    assert answer.content == b"\x89PNG so far"
    assert answer.headers["cache-control"] == "no-store"
    problem(await stand.client.get(f"{path}/files"), 409)


async def test_files_are_their_owners(stand: Stand, url: str) -> None:
    _, plaintext = stand.queue.keys.create_key("other")
    headers = {"X-API-Key": plaintext}
    for path in ("files", "files/splats.ply"):
        problem(await stand.client.get(f"{url}/{path}", headers=headers), 404)
