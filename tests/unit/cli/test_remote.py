from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from dream_cad.cli import run
from tests.unit.loopback import Answer, Request, serve

Capture = pytest.CaptureFixture[str]
JOB = "0198c0de-0000-7000-8000-000000000001"
GLB = b"glTF" + bytes(200_000)


@dataclass
class Api:
    """Answers like the HTTP API; ``states`` are given out one after the other."""

    states: list[dict[str, Any]] = field(default_factory=lambda: [{"status": "completed"}])
    problem: Answer | None = None
    requests: list[Request] = field(default_factory=list)
    url: str = ""

    def respond(self, request: Request) -> Answer:
        self.requests.append(request)
        if self.problem is not None:
            return self.problem
        path = request.path.partition("?")[0]
        if request.method == "POST" and path == "/v1/jobs":
            return _json(202, {"id": JOB, "status": "pending", "position": 1})
        if path == f"/v1/jobs/{JOB}/result":
            return Answer(body=GLB)
        if path == f"/v1/jobs/{JOB}/preview.png":
            return Answer(body=b"\x89PNG")
        if path == f"/v1/jobs/{JOB}/events":
            return Answer(200, self._events(), {"Content-Type": "text/event-stream"})
        if path == f"/v1/jobs/{JOB}":
            if request.method == "DELETE":
                return _json(200, {"id": JOB, "status": "cancelled"})
            state = self.states.pop(0) if len(self.states) > 1 else self.states[0]
            return _json(200, {"id": JOB, **state})
        return _json(404, {"title": "Job not found", "detail": f"No job at {path}.", "status": 404})

    def _events(self) -> bytes:
        lines = ["retry: 1"]
        for number, state in enumerate(self.states, 1):
            lines += ["", f"id: {number}", f"event: {state['status']}"]
            lines.append(f"data: {json.dumps({'id': JOB, **state})}")
        return "\n".join([*lines, "", ""]).encode()


def _json(status: int, body: object) -> Answer:
    return Answer(status, json.dumps(body).encode(), {"Content-Type": "application/json"})


@pytest.fixture
def api(monkeypatch: pytest.MonkeyPatch) -> Iterator[Api]:
    api = Api()
    monkeypatch.setenv("DREAM_CAD_PATIENCE_S", "0")
    with serve(api.respond) as url:
        api.url = url
        monkeypatch.setenv("DREAM_CAD_SERVER", url)
        yield api


def test_submit_sends_the_job_and_prints_its_id(api: Api, capsys: Capture) -> None:
    flags = ["--model", "triposr", "--seed", "3", "--option", "threshold=20", "--priority", "high"]
    assert run(["submit", "a red chair", *flags]) == 0
    assert capsys.readouterr().out == f"{JOB}\n"
    request = api.requests[0]
    assert json.loads(request.body) == {
        "prompt": "a red chair",
        "model": "triposr",
        "options": {"seed": 3, "threshold": 20},
        "priority": "high",
    }
    assert len(request.headers["idempotency-key"]) == 36
    assert "authorization" not in request.headers


def test_what_was_not_given_is_not_sent(api: Api) -> None:
    assert run(["submit", "a chair"]) == 0
    assert json.loads(api.requests[0].body) == {"prompt": "a chair", "priority": "normal"}


def test_image_is_uploaded(api: Api, tmp_path: Path) -> None:
    picture = tmp_path / "in.png"
    picture.write_bytes(b"\x89PNG picture")
    assert run(["submit", "--image", str(picture), "--resolution", "64"]) == 0
    request = api.requests[0]
    assert request.headers["content-type"].startswith("multipart/form-data")
    assert b'name="image"; filename="in.png"' in request.body
    assert b"\x89PNG picture" in request.body
    assert b'{"resolution": 64}' in request.body


@pytest.mark.parametrize("source", ["option", "environment"])
def test_api_key_is_sent(api: Api, monkeypatch: pytest.MonkeyPatch, source: str) -> None:
    monkeypatch.setenv("DREAM_CAD_API_KEY", "from-environment")
    flags = ["--api-key", "from-option"] if source == "option" else []
    assert run(["submit", "x", *flags]) == 0
    assert api.requests[0].headers["authorization"] == f"Bearer from-{source}"


def test_submit_with_an_output_waits_and_fetches(api: Api, tmp_path: Path, capsys: Capture) -> None:
    api.states = [
        {"status": "pending", "position": 2},
        {"status": "running", "progress": 0.5, "stage": "decode"},
        {"status": "completed"},
    ]
    target = tmp_path / "chair.ply"
    assert run(["submit", "a chair", "-o", str(target)]) == 0
    assert capsys.readouterr().out == f"{target}\n"
    assert target.read_bytes() == GLB
    assert api.requests[-1].path == f"/v1/jobs/{JOB}/result?format=ply"


@pytest.mark.parametrize(
    ("state", "line"),
    [
        ({"status": "pending", "position": 4}, f"{JOB}  pending  position 4"),
        ({"status": "running", "progress": 0.25, "stage": "mesh"}, f"{JOB}  running  25% mesh"),
        ({"status": "completed", "progress": 1.0}, f"{JOB}  completed"),
        (
            {"status": "failed", "error": {"title": "T", "detail": "no object."}},
            f"{JOB}  failed  no object.",
        ),
    ],
)
def test_status_says_how_far_it_is(
    api: Api, capsys: Capture, state: dict[str, Any], line: str
) -> None:
    api.states = [state]
    assert run(["status", JOB]) == 0
    assert capsys.readouterr().out == f"{line}\n"


def test_status_as_json(api: Api, capsys: Capture) -> None:
    assert run(["status", JOB, "--json", "--server", api.url + "/"]) == 0
    assert json.loads(capsys.readouterr().out) == {"id": JOB, "status": "completed"}


@pytest.mark.parametrize(
    ("state", "message"),
    [
        ({"status": "failed", "error": {"detail": "nothing left."}}, "failed: nothing left."),
        ({"status": "failed"}, "no reason was given"),
        ({"status": "cancelled"}, "was cancelled"),
    ],
)
def test_waiting_for_a_job_that_does_not_complete(
    api: Api, capsys: Capture, state: dict[str, Any], message: str
) -> None:
    api.states = [state]
    assert run(["status", JOB, "--wait"]) == 1
    assert message in capsys.readouterr().err


def test_waiting_ends_at_the_timeout(api: Api, capsys: Capture) -> None:
    api.states = [{"status": "running"}]
    assert run(["status", JOB, "--wait", "--timeout", "0"]) == 1
    assert f"Ask again with 'dream-cad status {JOB}'" in capsys.readouterr().err


def test_refusals_have_the_exit_code_of_their_class(api: Api) -> None:
    problem = {"type": "invalid-config", "title": "Invalid", "detail": "resolution is 9000."}
    api.problem = _json(422, problem)
    assert run(["submit", "a chair"]) == 2


def test_fetch_writes_mesh_and_preview(
    api: Api, tmp_path: Path, capsys: Capture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    assert run(["fetch", JOB, "--preview", "sheet.png", "--wait"]) == 0
    assert capsys.readouterr().out.splitlines() == [f"{JOB}.glb", "sheet.png"]
    assert sorted(path.name for path in tmp_path.iterdir()) == [f"{JOB}.glb", "sheet.png"]


def test_a_given_format_wins_over_the_suffix(api: Api, tmp_path: Path) -> None:
    assert run(["fetch", JOB, "-o", str(tmp_path / "x.bin"), "--format", "stl"]) == 0
    assert api.requests[-1].path.endswith("?format=stl")


def test_cancel(api: Api, capsys: Capture) -> None:
    assert run(["cancel", JOB]) == 0
    assert capsys.readouterr().out == f"{JOB}  cancelled\n"
    assert api.requests[0].method == "DELETE"


@pytest.mark.parametrize(
    ("answer", "message"),
    [
        (
            _json(422, {"title": "Invalid configuration", "detail": "resolution is 9000."}),
            "error: Invalid configuration: resolution is 9000.\n",
        ),
        (_json(404, {"title": "Model not found", "hint": "Models: a, b."}), "Models: a, b."),
        (Answer(502, b"<html>bad gateway</html>"), "The server answered 502."),
        (Answer(429, b'{"title": "Queue full"}', {"Retry-After": "7"}), "Try again in 7 s."),
        (Answer(200, b"not json"), "something else than JSON"),
        (_json(200, [1, 2]), "something else than JSON"),
    ],
)
def test_problem_documents_are_readable(
    api: Api, capsys: Capture, answer: Answer, message: str
) -> None:
    api.problem = answer
    assert run(["submit", "a chair"]) == 1
    error = capsys.readouterr().err
    assert message in error
    assert len(error.splitlines()) <= 2


def test_a_refused_download_leaves_no_file(api: Api, tmp_path: Path, capsys: Capture) -> None:
    api.problem = _json(409, {"title": "Job state conflict", "detail": "It is still running."})
    assert run(["fetch", JOB, "-o", str(tmp_path / "x.glb")]) == 1
    assert "It is still running." in capsys.readouterr().err
    assert list(tmp_path.iterdir()) == []


def test_a_download_cut_short_leaves_no_file(api: Api, tmp_path: Path) -> None:
    api.problem = Answer(200, GLB, cut_at=1000)
    assert run(["fetch", JOB, "-o", str(tmp_path / "x.glb")]) == 1
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("arguments", "code", "message"),
    [
        (["submit"], 2, "either a prompt or --image"),
        (["submit", "x", "--priority", "now"], 2, "'low', 'normal', 'high', 'urgent'"),
        (["submit", "--image", "/none.png"], 1, "/none.png cannot be read"),
        (["status", "../../etc"], 2, "is no job id"),
        (["status", JOB, "--server", "ftp://x"], 2, "no http:// or https:// URL"),
        (["status", JOB, "--server", "http://127.0.0.1:9"], 1, "cannot be reached"),
        (["fetch", "unknown"], 1, "No job at"),
    ],
)
def test_errors(api: Api, capsys: Capture, arguments: list[str], code: int, message: str) -> None:
    assert run(arguments) == code
    assert message in capsys.readouterr().err
