"""Whatever comes in: a clear problem document, never a 500."""

from __future__ import annotations

import base64
import io
import json
import struct
import zlib
from typing import Any

import httpx
import pytest
from PIL import Image

from tests.cluster.conftest import MAX_BODY_BYTES, Server


def _png(size: int = 64) -> bytes:
    buffer = io.BytesIO()
    Image.effect_noise((size, size), 80).save(buffer, "PNG")
    return buffer.getvalue()


def _bomb() -> bytes:
    """A PNG whose header promises 900 megapixels."""

    def chunk(kind: bytes, data: bytes) -> bytes:
        crc = zlib.crc32(kind + data)
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", crc)

    header = struct.pack(">IIBBBBB", 30_000, 30_000, 8, 2, 0, 0, 0)
    pixels = zlib.compress(bytes(1000))
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", pixels)


def _coded(image: bytes) -> dict[str, Any]:
    return {"json": {"image": base64.b64encode(image).decode()}}


def _json(text: str | bytes) -> dict[str, Any]:
    return {"content": text, "headers": {"content-type": "application/json"}}


def _prompt(**fields: Any) -> dict[str, Any]:
    return {"json": {"prompt": "a cube", **fields}}


def _upload(image: bytes, **form: str) -> dict[str, Any]:
    return {"files": {"image": ("x.png", image)}, "data": form}


BAD_SUBMISSIONS: dict[str, tuple[dict[str, Any], int]] = {
    "no body": ({}, 415),
    "empty body": (_json(""), 400),
    "malformed JSON": (_json('{"prompt": "a'), 400),
    "not UTF-8": (_json(b'{"prompt": "\xff\xfe"}'), 400),
    "an array": (_json("[1, 2]"), 400),
    "a bare string": (_json('"a cube"'), 400),
    "deep nesting": (_json("[" * 100_000), 400),
    "NaN": (_json('{"prompt": "x", "options": {"brightness": NaN}}'), 400),
    "infinity": (_json('{"prompt": "x", "options": {"brightness": -Infinity}}'), 400),
    "overflowing number": (_json('{"prompt": "x", "options": {"brightness": 1e999}}'), 400),
    "endless integer": (_json('{"prompt": "x", "options": {"seed": ' + "9" * 5000 + "}}"), 400),
    "empty object": (_json("{}"), 422),
    "null prompt": (_prompt(prompt=None), 422),
    "prompt of another type": (_prompt(prompt=["a", "cube"]), 422),
    "empty prompt": (_prompt(prompt=""), 422),
    "blank prompt": (_prompt(prompt=" \t\n "), 422),
    "prompt of 100,000 characters": (_prompt(prompt="a" * 100_000), 422),
    "NUL in the prompt": (_prompt(prompt="a\x00b"), 422),
    "escape code in the prompt": (_prompt(prompt="\x1b[2Ja cube"), 422),
    "lone surrogate in the prompt": (_json('{"prompt": "\\ud800"}'), 422),
    "lone surrogate as a model": (_json('{"prompt": "x", "model": "\\udfff"}'), 422),
    "unknown field": (_prompt(colour="red"), 422),
    "unknown model": (_prompt(model="dall-e"), 422),
    "model as a path": (_prompt(model="../../etc/passwd"), 422),
    "a model that is not served": (_prompt(model="trellis"), 503),
    "unknown format": (_prompt(format="exe"), 422),
    "unknown priority": (_prompt(priority="now"), 422),
    "options are no object": (_prompt(options=[1]), 422),
    "unknown option": (_prompt(options={"sharpness": 3}), 422),
    "option out of range": (_prompt(options={"brightness": 1.5}), 422),
    "negative seed": (_prompt(options={"seed": -1}), 422),
    "huge seed": (_prompt(options={"seed": 10**300}), 422),
    "option of another type": (_prompt(options={"brightness": "bright"}), 422),
    "finishing out of range": (_prompt(options={"target_faces": 0}), 422),
    "prompt and image": ({"json": {"prompt": "x", **_coded(_png())["json"]}}, 422),
    "image is not base64": (_prompt(prompt=None, image="%%%"), 422),
    "image is no picture": (_coded(b"hello"), 415),
    "empty image": (_coded(b""), 415),
    "truncated image": (_coded(_png()[:400]), 415),
    "decompression bomb": (_coded(_bomb()), 413),
    "tiny image": (_coded(_png(1)), 422),
    "body over the limit": (_prompt(prompt="x" * (MAX_BODY_BYTES + 1)), 413),
    "upload over the limit": (_upload(bytes(MAX_BODY_BYTES + 1)), 413),
    "uploaded text": (_upload(b"hello"), 415),
    "uploaded truncated picture": (_upload(_png()[:400]), 415),
    "uploaded with bad options": (_upload(_png(), options="{"), 400),
    "uploaded with unknown field": (_upload(_png(), colour="red"), 422),
    "file under another name": ({"files": {"picture": ("x.png", _png())}}, 422),
    "two files": ({"files": [("image", ("a", _png())), ("image", ("b", _png()))]}, 422),
    "several pictures for a model of one": ({"files": [("images", ("a", _png()))] * 2}, 422),
    "more pictures than any model takes": ({"files": [("images", ("a", _png()))] * 18}, 400),
    "a view of no name": ({"files": [("images.../x", ("a", _png()))]}, 422),
    "a mesh for a model that makes its own": (
        {"files": [("mesh", ("a.glb", b"glTF")), ("image", ("b", _png()))]},
        422,
    ),
    "multipart without boundary": (
        {"content": b"x", "headers": {"content-type": "multipart/form-data"}},
        400,
    ),
    "damaged multipart": (
        {"content": b"--b\r\nX", "headers": {"content-type": "multipart/form-data; boundary=b"}},
        422,
    ),
    "text": ({"content": b"a cube", "headers": {"content-type": "text/plain"}}, 415),
    "form": ({"data": {"prompt": "a cube"}}, 415),
    "compressed": (
        {
            "content": b"x",
            "headers": {"content-type": "application/json", "content-encoding": "gzip"},
        },
        415,
    ),
    "overlong idempotency key": (
        {**_prompt(), "headers": {"Idempotency-Key": "k" * 300}},
        422,
    ),
    "empty idempotency key": ({**_prompt(), "headers": {"Idempotency-Key": ""}}, 422),
}

NO_ID = "01900000-0000-7000-8000-000000000000"
BAD_REQUESTS: dict[str, tuple[str, str, int]] = {
    "unknown job": ("GET", f"/v1/jobs/{NO_ID}", 404),
    "job id is no id": ("GET", "/v1/jobs/' OR 1=1 --", 404),
    "job id as a path": ("GET", "/v1/jobs/..%2f..%2fetc%2fpasswd", 404),
    "overlong job id": ("GET", f"/v1/jobs/{'a' * 5000}", 404),
    "NUL in the job id": ("GET", "/v1/jobs/%00", 404),
    "bytes that are no UTF-8": ("GET", "/v1/jobs/%ff%fe", 404),
    "result of an unknown job": ("GET", f"/v1/jobs/{NO_ID}/result", 404),
    "preview of an unknown job": ("GET", f"/v1/jobs/{NO_ID}/preview.png", 404),
    "events of an unknown job": ("GET", f"/v1/jobs/{NO_ID}/events", 404),
    "cancel an unknown job": ("DELETE", f"/v1/jobs/{NO_ID}", 404),
    "unknown state": ("GET", "/v1/jobs?status=sleeping", 422),
    "bad cursor": ("GET", "/v1/jobs?cursor=abc", 422),
    "overflowing cursor": ("GET", f"/v1/jobs?cursor={'9' * 30}", 422),
    "limit zero": ("GET", "/v1/jobs?limit=0", 422),
    "limit too large": ("GET", "/v1/jobs?limit=100000", 422),
    "limit is no number": ("GET", "/v1/jobs?limit=many", 422),
    "unknown path": ("GET", "/v2/jobs", 404),
    "wrong method": ("PUT", "/v1/jobs", 405),
    "wrong method on a job": ("PATCH", f"/v1/jobs/{NO_ID}", 405),
    "timeout is not a number": ("POST", "/v1/generate?timeout=nan", 422),
    "negative timeout": ("POST", "/v1/generate?timeout=-1", 422),
}


def assert_problem(answer: httpx.Response, status: int) -> dict[str, Any]:
    assert answer.status_code == status, answer.text[:500]
    assert answer.headers["content-type"] == "application/problem+json"
    problem = json.loads(answer.content)
    assert problem["status"] == status
    assert problem["type"]
    assert problem["title"]
    assert len(problem["detail"]) > 10
    assert len(answer.content) < 10_000
    return dict(problem)


@pytest.mark.parametrize(
    ("request_parts", "status"), BAD_SUBMISSIONS.values(), ids=BAD_SUBMISSIONS.keys()
)
def test_bad_submissions(server: Server, request_parts: dict[str, Any], status: int) -> None:
    assert_problem(server.client.post("/v1/jobs", **request_parts), status)


@pytest.mark.parametrize("name", ["empty object", "unknown model", "body over the limit"])
def test_generate_refuses_alike(server: Server, name: str) -> None:
    parts, status = BAD_SUBMISSIONS[name]
    assert_problem(server.client.post("/v1/generate", **parts), status)


@pytest.mark.parametrize(
    ("method", "path", "status"), BAD_REQUESTS.values(), ids=BAD_REQUESTS.keys()
)
def test_bad_requests(server: Server, method: str, path: str, status: int) -> None:
    json_body = {"prompt": "x"} if method == "POST" else None
    assert_problem(server.client.request(method, path, json=json_body), status)


@pytest.mark.parametrize(
    ("fields", "legal"),
    [
        ({"model": "x"}, "echo"),
        ({"format": "x"}, "glb"),
        ({"options": {"x": 1}}, "brightness"),
        ({"x": 1}, "options"),
    ],
)
def test_the_legal_values_are_named(server: Server, fields: dict[str, Any], legal: str) -> None:
    problem = assert_problem(server.client.post("/v1/jobs", **_prompt(**fields)), 422)
    assert legal in problem["allowed"]


def test_a_streamed_body_is_cut_off_at_the_limit(server: Server) -> None:
    def endless() -> Any:
        for _ in range(4 * MAX_BODY_BYTES // 2**16):
            yield b"x" * 2**16

    headers = {"content-type": "application/json"}
    answer = server.client.post("/v1/jobs", content=endless(), headers=headers)
    assert_problem(answer, 413)


def test_an_unknown_result_format(server: Server) -> None:
    job = server.ended(server.submit())
    answer = server.client.get(f"/v1/jobs/{job['id']}/result?format=../../x")
    assert "glb" in assert_problem(answer, 422)["allowed"]


def test_a_result_that_is_not_there_yet(server: Server) -> None:
    job_id, hold = server.occupy()
    problem = assert_problem(server.client.get(f"/v1/jobs/{job_id}/result"), 409)
    assert problem["job_status"] == "running"
    assert_problem(server.client.get(f"/v1/jobs/{job_id}/preview.png"), 409)
    hold.unlink()
    server.ended(job_id)


def test_bad_input_left_nothing_in_the_queue(server: Server) -> None:
    for status in ("pending", "running"):
        assert server.client.get("/v1/jobs", params={"status": status}).json()["jobs"] == []
