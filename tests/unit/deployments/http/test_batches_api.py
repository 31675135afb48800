from __future__ import annotations

import base64
import io
import json
import zipfile
from pathlib import Path
from typing import Any

import httpx
import pytest

from tests.unit.deployments.http.conftest import Stand, png
from tests.unit.deployments.http.test_jobs_api import problem


async def create(stand: Stand, **parts: Any) -> dict[str, Any]:
    answer = await stand.client.post("/v1/batches", **parts)
    assert answer.status_code == 202, answer.text
    assert answer.headers["location"] == answer.json()["links"]["self"]
    return dict(answer.json())


async def items(stand: Stand, batch: dict[str, Any]) -> list[dict[str, Any]]:
    answer = await stand.client.get(batch["links"]["items"])
    return [item["job"] for item in answer.json()["items"]]


CSV = """prompt,priority,tags,option.seed,options
"a ""big"" chair, red",high,a;b,7,
a ball,,,,"{""seed"": 3}"

"""
LINES = '"a chair"\n\n{"prompt": "a ball", "priority": "high", "options": {"seed": 3}}\n'


async def test_prompts_share_what_the_batch_says(stand: Stand) -> None:
    body = {"name": "n", "prompts": ["a chair", "a ball"], "priority": "low", "tags": ["t"]}
    batch = await create(stand, json=body | {"options": {"brightness": 0.5}})
    assert (batch["name"], batch["total"], batch["status"]) == ("n", 2, "pending")
    assert batch["counts"]["pending"] == 2
    jobs = await items(stand, batch)
    assert [job["prompt"] for job in jobs] == ["a chair", "a ball"]
    assert {job["priority"] for job in jobs} == {"low"}
    assert {job["batch"] for job in jobs} == {batch["id"]}
    assert {job["options"]["brightness"] for job in jobs} == {0.5}
    assert jobs[0]["options"]["seed"] != jobs[1]["options"]["seed"]


async def test_items_may_differ(stand: Stand) -> None:
    entries = [
        {"prompt": "a chair", "model": "echo2", "priority": "urgent", "tags": ["x"]},
        {"prompt": "a ball", "options": {"seed": 1}},
        {"image": base64.b64encode(png()).decode()},
    ]
    body = {"items": entries, "tags": ["t"], "options": {"brightness": 0.25}}
    jobs = await items(stand, await create(stand, json=body))
    assert [job["model"] for job in jobs] == ["echo2", "echo", "echo"]
    assert [job["tags"] for job in jobs] == [["t", "x"], ["t"], ["t"]]
    assert jobs[0]["priority"] == "urgent"
    assert jobs[1]["options"] == {"brightness": 0.25, "seed": 1}
    found = stand.queue.get_job(jobs[2]["id"])
    assert found is not None
    assert stand.artifacts.read(str(found.input_uri), "input").startswith(b"\x89PNG")


@pytest.mark.parametrize(
    "parts",
    [
        {"content": CSV, "headers": {"content-type": "text/csv"}, "params": {"name": "f"}},
        {"files": {"file": ("x.csv", CSV, "application/vnd.ms-excel")}, "data": {"name": "f"}},
        {
            "content": "\ufeff" + CSV,
            "headers": {"content-type": "text/csv"},
            "params": {"name": "f"},
        },
    ],
    ids=["body", "form", "byte order mark"],
)
async def test_csv(stand: Stand, parts: dict[str, Any]) -> None:
    batch = await create(stand, **parts)
    assert batch["name"] == "f"
    first, second = await items(stand, batch)
    assert (first["prompt"], first["priority"]) == ('a "big" chair, red', "high")
    assert (first["options"]["seed"], first["tags"]) == (7, ["a", "b"])
    assert (second["priority"], second["options"]["seed"]) == ("normal", 3)


@pytest.mark.parametrize(
    "parts",
    [
        {"content": LINES, "headers": {"content-type": "application/jsonl"}},
        {"content": LINES, "headers": {"content-type": "application/x-ndjson"}},
        {"files": {"file": ("x.jsonl", LINES)}, "data": {"options": '{"brightness": 1}'}},
        {"json": ["a chair", {"prompt": "a ball", "priority": "high", "options": {"seed": 3}}]},
    ],
    ids=["jsonl", "ndjson", "form", "array"],
)
async def test_json_lines(stand: Stand, parts: dict[str, Any]) -> None:
    if "json" in parts:
        parts = {"json": [{"prompt": "a chair"}, parts["json"][1]]}
    first, second = await items(stand, await create(stand, **parts))
    assert first["prompt"] == "a chair"
    assert (second["priority"], second["options"]["seed"]) == ("high", 3)


def lines(text: str, kind: str = "application/jsonl") -> dict[str, Any]:
    return {"content": text, "headers": {"content-type": kind}}


BAD: dict[str, tuple[dict[str, Any], int, str]] = {
    "no items": ({"json": {}}, 422, "prompts or items"),
    "empty": ({"json": {"prompts": []}}, 422, "prompts"),
    "both": ({"json": {"prompts": ["x"], "items": [{"prompt": "x"}]}}, 422, "prompts or items"),
    "a bad prompt": ({"json": {"prompts": ["x", " "]}}, 422, "items.1"),
    "a bad option": (
        {"json": {"items": [{"prompt": "x", "options": {"y": 1}}]}},
        422,
        "items.0",
    ),
    "an unknown field": ({"json": {"prompts": ["x"], "colour": 1}}, 422, "colour"),
    "an item without input": ({"json": {"items": [{}]}}, 422, "items.0"),
    "an item's bad model": ({"json": {"items": [{"prompt": "x", "model": "y"}]}}, 422, "'y'"),
    "bad base64": ({"json": {"items": [{"image": "%"}]}}, 422, "base64"),
    "no JSON": (lines("{", "application/json"), 400, "malformed"),
    "a bad line": (lines('"x"\n{'), 400, "Line 2"),
    "a number as a line": (lines("3"), 400, "Line 1"),
    "no lines": (lines("\n"), 422, "items"),
    "no UTF-8": (lines(b"\xff", "text/csv"), 400, "UTF-8"),  # type: ignore[arg-type]
    "no prompt column": (lines("name\nx", "text/csv"), 422, "'name'"),
    "a column twice": (lines("prompt,prompt\nx,y", "text/csv"), 422, "twice"),
    "too few cells": (lines("prompt,model\nx", "text/csv"), 400, "Line 2"),
    "a stray quote": (lines('prompt\n"x"y', "text/csv"), 400, "CSV"),
    "options that are none": (lines('prompt,options\nx,"[1]"', "text/csv"), 400, "object"),
    "another type": (lines("x", "text/plain"), 415, "text/csv"),
    "a form without a file": ({"data": {"name": "x"}, "files": {"x": ("x", b"")}}, 422, "'x'"),
    "too many": ({"json": {"prompts": ["x"] * 20_001}}, 413, "20000"),
}


@pytest.mark.parametrize(("parts", "status", "word"), BAD.values(), ids=BAD.keys())
async def test_bad_batches(stand: Stand, parts: dict[str, Any], status: int, word: str) -> None:
    answer = await stand.client.post("/v1/batches", **parts)
    assert word in problem(answer, status)["detail"]
    assert stand.queue.list_jobs().jobs == []


async def test_all_errors_of_a_batch_are_listed(stand: Stand) -> None:
    body = {"prompts": [" "] * 30 + ["x"]}
    found = problem(await stand.client.post("/v1/batches", json=body), 422)
    assert [entry["field"] for entry in found["errors"]] == [f"items.{n}" for n in range(20)]


async def test_a_large_batch_is_one_request(stand: Stand) -> None:
    batch = await create(stand, json={"prompts": [f"chair {n}" for n in range(10_000)]})
    assert (batch["total"], batch["counts"]["pending"]) == (10_000, 10_000)
    page = (await stand.client.get(f"{batch['links']['items']}?limit=200")).json()
    assert [item["index"] for item in page["items"]] == list(range(200))
    query = {"cursor": page["next_cursor"], "limit": 1}
    following = await stand.client.get(batch["links"]["items"], params=query)
    assert following.json()["items"][0]["job"]["prompt"] == "chair 200"


async def test_retry_pause_resume_and_cancel(stand: Stand) -> None:
    batch = await create(stand, json={"prompts": ["a", "b", "c"]})
    url = batch["links"]["self"]
    stand.complete()
    failed = stand.fail()
    assert (await stand.client.get(url)).json()["status"] == "running"
    headers = {"Idempotency-Key": "again"}
    answer = await stand.client.post(f"{url}/retry", headers=headers)
    assert answer.status_code == 202
    (again,) = answer.json()["jobs"]
    repeated = await stand.client.post(f"{url}/retry", headers=headers)
    assert repeated.json() == answer.json()
    assert (await stand.client.post(f"{url}/retry")).json() == {"jobs": []}
    jobs = await items(stand, batch)
    assert [job["status"] for job in jobs] == ["completed", "pending", "pending"]
    assert jobs[1]["id"] == again != failed.id
    assert (await stand.client.post(f"{url}/pause")).json()["status"] == "paused"
    assert stand.queue.get_next_job() is None
    assert (await stand.client.post(f"{url}/resume")).json()["status"] == "running"
    stand.complete()
    ended = (await stand.client.delete(url)).json()
    assert ended["status"] == "completed"
    assert (ended["counts"]["completed"], ended["counts"]["cancelled"]) == (2, 1)


async def test_the_archive(stand: Stand) -> None:
    batch = await create(stand, json={"name": "n", "prompts": ["a chair", "a ball"]})
    stand.complete()
    answer = await stand.client.get(batch["links"]["archive"])
    assert answer.headers["content-type"] == "application/zip"
    archive = zipfile.ZipFile(io.BytesIO(answer.content))
    assert archive.namelist() == ["00000-a-chair.glb", "contact-sheet-001.png", "manifest.json"]
    manifest = json.loads(archive.read("manifest.json"))
    assert manifest["batch"]["id"] == batch["id"]
    assert [item["file"] for item in manifest["items"]] == ["00000-a-chair.glb", None]
    problem(await stand.client.get(f"{batch['links']['archive']}?format=exe"), 422)


@pytest.mark.parametrize(
    ("method", "tail"),
    [
        ("GET", ""),
        ("GET", "/items"),
        ("GET", "/archive.zip"),
        ("POST", "/retry"),
        ("POST", "/pause"),
        ("POST", "/resume"),
        ("DELETE", ""),
    ],
)
async def test_an_unknown_batch(stand: Stand, method: str, tail: str) -> None:
    answer: httpx.Response = await stand.client.request(method, f"/v1/batches/nobody{tail}")
    assert problem(answer, 404)["type"] == "job-not-found"


async def test_a_key_stands_for_the_whole_batch(stand: Stand, tmp_path: Path) -> None:
    picture = base64.b64encode(png()).decode()
    body = {"items": [{"prompt": "a chair"}, {"image": picture}]}
    headers = {"Idempotency-Key": "order-17"}
    first = await create(stand, json=body, headers=headers)
    again = await create(stand, json=body, headers=headers)
    assert again["id"] == first["id"]
    uploaded = (await items(stand, first))[1]["id"]
    assert [path.name for path in tmp_path.rglob("*-input")] == [f"{uploaded}-input"]
    other = {"items": [{"prompt": "a chair"}, {"prompt": "a ball"}]}
    answer = await stand.client.post("/v1/batches", json=other, headers=headers)
    assert problem(answer, 409)["type"] == "idempotency-conflict"
    single = await stand.client.post("/v1/jobs", json={"prompt": "a chair"}, headers=headers)
    assert problem(single, 409)["type"] == "idempotency-conflict"


async def test_items_with_a_known_result_cost_nothing(stand: Stand) -> None:
    known = await stand.submit(prompt="a chair", options={"seed": 7})
    stand.complete()
    body = {"prompts": ["a chair", "a ball"], "options": {"seed": 7}}
    jobs = await items(stand, await create(stand, json=body))
    assert [job["status"] for job in jobs] == ["completed", "pending"]
    assert jobs[0]["cached_from"] == known
    anew = await items(stand, await create(stand, json=body | {"use_cache": False}))
    assert [job["status"] for job in anew] == ["pending", "pending"]
