from __future__ import annotations

import base64
import io
import json
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import httpx
import pytest
from PIL import Image

from dream_cad.mesh.loading import load_mesh
from tests.cluster.conftest import MAX_PENDING, Server, until


def png(color: tuple[int, int, int] = (200, 30, 30)) -> bytes:
    buffer = io.BytesIO()
    Image.new("RGB", (32, 32), color).save(buffer, "PNG")
    return buffer.getvalue()


@pytest.fixture(scope="module")
def finished(server: Server) -> dict[str, object]:
    return server.ended(server.submit("a red cube", seed=7))


def test_a_prompt_becomes_a_mesh(
    server: Server, finished: dict[str, object], tmp_path: Path
) -> None:
    assert finished["status"] == "completed"
    assert finished["progress"] == 1.0
    assert finished["attempts"] == 1
    assert finished["error"] is None
    answer = server.client.get(finished["links"]["result"])  # type: ignore[index]
    assert answer.status_code == 200
    assert answer.headers["content-type"] == "model/gltf-binary"
    path = tmp_path / "mesh.glb"
    path.write_bytes(answer.content)
    mesh = load_mesh(path)
    assert mesh.faces.shape == (12, 3)
    assert mesh.vertex_colors is not None
    assert mesh.extras["prompt"] == "a red cube"
    assert mesh.extras["options"] == {"seed": 7}
    assert mesh.extras["job_id"] == finished["id"]


def test_the_preview_is_a_picture(server: Server, finished: dict[str, object]) -> None:
    answer = server.client.get(finished["links"]["preview"])  # type: ignore[index]
    assert answer.headers["content-type"] == "image/png"
    picture = Image.open(io.BytesIO(answer.content))
    assert picture.width == 4 * picture.height
    assert len(picture.convert("RGB").getcolors(10**7)) > 10


@pytest.mark.parametrize("format", ["glb", "obj", "ply", "stl"])
def test_every_format_can_be_had(
    server: Server, finished: dict[str, object], format: str, tmp_path: Path
) -> None:
    answer = server.client.get(f"/v1/jobs/{finished['id']}/result", params={"format": format})
    assert answer.status_code == 200
    assert f'.{format}"' in answer.headers["content-disposition"]
    path = tmp_path / f"mesh.{format}"
    path.write_bytes(answer.content)
    assert len(load_mesh(path).faces) == 12


def test_fetches_at_the_same_time_agree(server: Server) -> None:
    job = server.ended(server.submit("a blue cube"))
    url = f"{server.client.base_url}/v1/jobs/{job['id']}/result?format=obj"
    with ThreadPoolExecutor(6) as pool:
        answers = list(pool.map(lambda _: httpx.get(url, timeout=60), range(6)))
    assert [answer.status_code for answer in answers] == [200] * 6
    assert len({answer.content for answer in answers}) == 1


def test_an_uploaded_picture_becomes_a_mesh(server: Server) -> None:
    form = server.client.post(
        "/v1/jobs", files={"image": ("x.png", png())}, data={"options": '{"brightness": 0.5}'}
    )
    coded = {"image": base64.b64encode(png()).decode(), "options": {"brightness": 0.5}}
    answers = [form, server.client.post("/v1/jobs", json=coded)]
    assert [answer.status_code for answer in answers] == [202, 202]
    jobs = [server.ended(answer.json()["id"]) for answer in answers]
    assert [job["status"] for job in jobs] == ["completed", "completed"]
    meshes = [server.client.get(f"/v1/jobs/{job['id']}/result?format=ply").content for job in jobs]
    assert meshes[0] == meshes[1]


def test_generate_answers_with_the_mesh(server: Server) -> None:
    answer = server.client.post("/v1/generate", json={"prompt": "a cube", "format": "stl"})
    assert answer.status_code == 200
    assert answer.headers["content-type"] == "model/stl"
    assert len(answer.content) == 84 + 12 * 50


def test_generate_hands_out_the_job_when_time_is_up(server: Server) -> None:
    hold = server.hold()
    body = {"prompt": "slow", "options": {"hold": str(hold)}}
    answer = server.client.post("/v1/generate", params={"timeout": 0.2}, json=body)
    assert answer.status_code == 202
    assert answer.headers["location"] == answer.json()["links"]["self"]
    hold.unlink()
    assert server.ended(answer.json()["id"])["status"] == "completed"


def test_generate_cancels_whenever_the_client_hangs_up(server: Server) -> None:
    """Before the job is durable, while it is claimed, and once it works."""
    hold = server.hold()
    name = f"hung up {hold.name}"
    for n in range(10):
        body = {"prompt": name, "options": {"hold": str(hold)}}
        with pytest.raises(httpx.TimeoutException):
            httpx.post(f"{server.client.base_url}/v1/generate", json=body, timeout=0.01 * 1.8**n)

    def states() -> list[str]:
        page = server.client.get("/v1/jobs", params={"limit": 20}).json()["jobs"]
        return [job["status"] for job in page if job["prompt"] == name]

    until(lambda: states() and set(states()) == {"cancelled"}, "each job cancelled")
    hold.unlink()


def test_a_client_that_hangs_up_comes_back_with_its_key(server: Server) -> None:
    hold = server.hold()
    body = {"prompt": "come back", "options": {"hold": str(hold)}}
    headers = {"Idempotency-Key": hold.name}
    url = f"{server.client.base_url}/v1/generate"
    with pytest.raises(httpx.ReadTimeout):
        httpx.post(url, json=body, headers=headers, timeout=2)
    hold.unlink()
    answer = server.client.post(url, json=body, headers=headers)
    assert answer.status_code == 200
    assert answer.content[:4] == b"glTF"


def test_a_failed_generation_is_told_by_the_job(server: Server) -> None:
    job = server.ended(server.submit(fail="error"))
    assert job["status"] == "failed"
    assert job["error"]["type"] == "generation-failed"
    assert "came out round" in job["error"]["detail"]
    answer = server.client.get(f"/v1/jobs/{job['id']}/result")
    assert answer.status_code == 409
    assert "came out round" in answer.json()["detail"]


def test_a_bug_in_a_model_fails_its_job_alone(server: Server) -> None:
    job = server.ended(server.submit(fail="bug"))
    assert job["status"] == "failed"
    assert job["attempts"] == 1
    assert "ZeroDivisionError: a bug in the model" in job["error"]["detail"]
    assert server.ended(server.submit())["status"] == "completed"


def test_an_idempotency_key_gives_the_first_job(server: Server) -> None:
    headers = {"Idempotency-Key": server.new_path().name}
    body = {"prompt": "once"}
    first = server.client.post("/v1/jobs", json=body, headers=headers)
    second = server.client.post("/v1/jobs", json=body, headers=headers)
    other = server.client.post("/v1/jobs", json={"prompt": "twice"}, headers=headers)
    assert first.json()["id"] == second.json()["id"]
    assert other.status_code == 409
    assert other.json()["type"] == "idempotency-conflict"
    server.ended(first.json()["id"])


def test_the_most_urgent_runs_next(server: Server) -> None:
    log = server.new_path()
    holder, hold = server.occupy()
    order = ["low", "normal", "low", "high", "urgent", "normal"]
    ids, holds = [], []
    for n, name in enumerate(order):
        holds.append(server.hold())
        ids.append(server.submit(f"{name} {n}", name, log=str(log), hold=str(holds[-1])))
    expected = [4, 3, 1, 5, 0, 2]
    for n in expected:
        # A job longer than a claim: the next in line is claimed before the slot is handed on.
        until(lambda n=n: server.get(ids[n])["status"] == "running", f"claim of {n}")
        hold.unlink()
        hold = holds[n]
    hold.unlink()
    jobs = [server.ended(job_id) for job_id in [holder, *ids]]
    assert [job["error"] for job in jobs] == [None] * 7
    assert log.read_text().splitlines() == [f"{order[n]} {n}" for n in expected]


def test_positions_and_listing(server: Server) -> None:
    holder, hold = server.occupy()
    ids = [server.submit(f"waiting {n}", "low") for n in range(4)]
    # One job is claimed ahead of its turn; the others stand in line.
    until(lambda: server.get(ids[0])["status"] == "running", "look-ahead")
    assert [server.get(job_id)["position"] for job_id in ids[1:]] == [1, 2, 3]
    waiting = server.client.get("/v1/jobs", params={"status": "pending", "model": "echo"}).json()
    assert [job["id"] for job in waiting["jobs"]] == ids[:0:-1]
    page = server.client.get("/v1/jobs", params={"limit": 2}).json()
    rest = server.client.get("/v1/jobs", params={"limit": 2, "cursor": page["next_cursor"]}).json()
    assert [job["id"] for job in [*page["jobs"], *rest["jobs"]]] == ids[::-1]
    hold.unlink()
    for job_id in [holder, *ids]:
        server.ended(job_id)


def test_cancel_while_waiting_and_while_running(server: Server) -> None:
    running, hold = server.occupy()
    ahead, waiting = server.submit("ahead", "low"), server.submit("waiting", "low")
    until(lambda: server.get(ahead)["status"] == "running", "look-ahead")
    answer = server.client.delete(f"/v1/jobs/{waiting}")
    assert (answer.status_code, answer.json()["status"]) == (200, "cancelled")
    for job_id in (ahead, running):
        answer = server.client.delete(f"/v1/jobs/{job_id}")
        assert answer.status_code in (200, 202)
        assert server.ended(job_id)["status"] == "cancelled"
    assert hold.exists()  # the model stopped at its next step, not at its end
    again = server.client.delete(f"/v1/jobs/{waiting}")
    assert again.status_code == 200
    assert server.ended(server.submit("afterwards"))["status"] == "completed"


def test_cancelling_an_ended_job_is_a_conflict(server: Server, finished: dict[str, object]) -> None:
    answer = server.client.delete(f"/v1/jobs/{finished['id']}")
    assert answer.status_code == 409
    assert answer.json()["type"] == "job-state-conflict"


def test_a_full_queue_says_when_to_come_back(server: Server) -> None:
    holder, hold = server.occupy()
    ids = []
    for _ in range(MAX_PENDING + 2):
        answer = server.client.post("/v1/jobs", json={"prompt": "x", "priority": "low"})
        if answer.status_code != 202:
            break
        ids.append(answer.json()["id"])
    assert answer.status_code == 429
    assert answer.json()["type"] == "queue-full"
    assert int(answer.headers["retry-after"]) >= 1
    for job_id in ids:
        server.client.delete(f"/v1/jobs/{job_id}")
    hold.unlink()
    for job_id in [holder, *ids]:
        server.ended(job_id)


def test_events_follow_a_job_to_its_end(server: Server) -> None:
    hold = server.hold()
    job_id = server.submit("watched", hold=str(hold))
    seen: list[str] = []
    with server.client.stream("GET", f"/v1/jobs/{job_id}/events") as events:
        assert events.headers["content-type"].startswith("text/event-stream")
        for line in events.iter_lines():
            if line.startswith("data: "):
                job = json.loads(line[6:])
                seen.append(job["status"])
                if "holding" in job["stage"]:
                    hold.unlink(missing_ok=True)
    assert seen[-1] == "completed"
    assert "running" in seen
    assert seen == sorted(seen, key=["pending", "running", "completed"].index)


def test_models_and_health(server: Server) -> None:
    body = server.client.get("/v1/models").json()
    models = {model["name"]: model for model in body["models"]}
    assert body["default_model"] == "echo"
    assert models["echo"]["state"] == "ready"
    assert set(models["echo"]["options_schema"]["properties"]) >= {"brightness", "target_faces"}
    assert models["trellis"]["available"] is False
    assert "no checkpoint" in models["trellis"]["reason"]
    assert server.client.get("/healthz").json()["status"] == "ok"
    assert server.client.get("/readyz").json() == {"status": "ready", "models": ["echo"]}
    assert server.client.get("/docs").status_code == 200
    paths = server.client.get("/openapi.json").json()["paths"]
    assert "requestBody" in paths["/v1/jobs"]["post"]


def test_a_result_is_accepted_by_its_gates(server: Server) -> None:
    body = {"prompt": "a cube", "require": {"watertight": True, "max_faces": 12}}
    job = server.ended(server.client.post("/v1/jobs", json=body).json()["id"])
    assert job["status"] == "completed"


def test_a_result_that_no_try_makes_good_is_refused_with_its_gates(server: Server) -> None:
    body = {
        "prompt": "a cube",
        "options": {"half": True, "seed": 3},
        "require": {"watertight": True},
        "max_tries": 2,
    }
    job = server.ended(server.client.post("/v1/jobs", json=body).json()["id"])
    assert job["status"] == "failed"
    assert job["attempts"] == 1
    assert job["error"]["type"] == "not-accepted"
    gate = {"gate": "watertight", "wanted": True, "measured": False}
    assert job["error"]["tries"] == [
        {"model": "echo", "seed": 3, "failed": [gate]},
        {"model": "echo", "seed": 1_000_006, "failed": [gate]},
    ]
