"""What only the running application shows: events while a job works, batches, keys, hang-ups."""

from __future__ import annotations

import io
import json
import zipfile
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer
from threading import Thread
from typing import Any

import httpx
import pytest

from deployments.webhooks import sign
from dream_cad.queue import JobQueue
from tests.cluster.conftest import WEBHOOK_SECRET, Server, until


def parse_events(lines: Iterator[str]) -> Iterator[tuple[str, str, dict[str, Any]]]:
    """Yield (id, event, data) of a stream; the id is empty where the event has none."""
    found: dict[str, str] = {}
    for line in lines:
        name, _, value = line.partition(": ")
        if line == "" and "data" in found:
            yield found.get("id", ""), found["event"], json.loads(found["data"])
        found = {} if line == "" else {**found, name: value}


def test_events_tell_every_state_once_and_the_steps_between(server: Server) -> None:
    hold = server.hold()
    job_id = server.submit("followed", hold=str(hold))
    url = f"/v1/jobs/{job_id}/events"
    seen: list[tuple[str, str]] = []
    with server.client.stream("GET", url) as stream:
        for event_id, kind, job in parse_events(stream.iter_lines()):
            seen.append((event_id, kind))
            if kind == "progress":
                assert event_id == ""
                if "holding" in job["stage"]:
                    assert 0 < job["progress"] < 1
                    hold.unlink(missing_ok=True)
    states = [(event_id, kind) for event_id, kind in seen if event_id]
    assert [kind for _, kind in states] == ["pending", "running", "completed"]
    assert any(kind == "progress" for _, kind in seen)
    headers = {"Last-Event-ID": states[0][0]}
    with server.client.stream("GET", url, headers=headers) as stream:
        replayed = list(parse_events(stream.iter_lines()))
    assert [(event_id, kind) for event_id, kind, _ in replayed] == states[1:]
    assert [job["status"] for *_, job in replayed] == ["running", "completed"]


def test_a_batch_from_its_upload_to_its_zip(server: Server) -> None:
    csv = "prompt,option.fail\na red cube,\na round one,error\na blue cube,\n"
    answer = server.client.post(
        "/v1/batches", files={"file": ("x.csv", csv)}, data={"name": "cubes"}
    )
    assert answer.status_code == 202, answer.text
    links = answer.json()["links"]

    def ended() -> dict[str, Any] | None:
        batch = server.client.get(links["self"]).json()
        return batch if batch["status"] == "completed" else None

    batch = until(ended, "the batch")
    assert (batch["counts"]["completed"], batch["counts"]["failed"]) == (2, 1)
    answer = server.client.get(links["archive"], params={"format": "ply"})
    archive = zipfile.ZipFile(io.BytesIO(answer.content))
    assert archive.testzip() is None
    assert archive.namelist() == [
        "00000-a-red-cube.ply",
        "00002-a-blue-cube.ply",
        "contact-sheet-001.png",
        "manifest.json",
    ]
    manifest = json.loads(archive.read("manifest.json"))
    assert "came out round" in manifest["items"][1]["error"]["detail"]
    (again,) = server.client.post(f"{links['self']}/retry").json()["jobs"]
    assert server.ended(again)["status"] == "failed"
    items = server.client.get(links["items"]).json()["items"]
    assert [item["job"]["id"] for item in items][1] == again


def test_a_paused_batch_waits(server: Server) -> None:
    holder, hold = server.occupy()
    batch = server.client.post("/v1/batches", json={"prompts": ["a", "b"]}).json()
    url = batch["links"]["self"]
    server.client.post(f"{url}/pause")
    hold.unlink()
    server.ended(holder)
    ahead = server.ended(server.submit("after the batch", "low"))
    assert ahead["status"] == "completed"
    waiting = server.client.get(url).json()
    assert waiting["counts"]["pending"] >= 1  # one may have been claimed ahead before the pause
    server.client.post(f"{url}/resume")
    until(lambda: server.client.get(url).json()["status"] == "completed", "the resumed batch")


def test_p1_cancels_when_the_client_hangs_up(server: Server) -> None:
    holder, hold = server.occupy()
    with pytest.raises(httpx.ReadTimeout):
        httpx.post(f"{server.client.base_url}/generate", json={"text": "hung up"}, timeout=1)
    newest = server.client.get("/v1/jobs", params={"limit": 1}).json()["jobs"][0]
    assert newest["prompt"] == "hung up"
    assert server.ended(newest["id"])["status"] == "cancelled"
    hold.unlink()
    server.ended(holder)
    answer = server.client.post("/generate", json={"text": "a cube", "type": "stl"})
    assert len(answer.content) == 84 + 12 * 50


def test_the_request_id_is_answered(server: Server) -> None:
    answer = server.client.get("/healthz", headers={"X-Request-Id": "my-request.1"})
    assert answer.headers.get_list("x-request-id") == ["my-request.1"]
    assert len(server.client.get("/healthz").headers["x-request-id"]) > 10


def test_a_key_closes_the_server_to_others(server: Server) -> None:
    queue = JobQueue(f"sqlite:///{server.folder}/jobs.sqlite3")
    key, text = queue.keys.create_key("cluster test", ("submit", "read"))
    try:
        until(lambda: server.client.get("/v1/jobs").status_code == 401, "keys in force")
        headers = {"X-API-Key": text}
        body = {"prompt": "mine"}
        job = server.client.post("/v1/jobs", json=body, headers=headers).json()
        listed = server.client.get("/v1/jobs", headers=headers).json()["jobs"]
        assert [entry["id"] for entry in listed] == [job["id"]]
        assert server.client.get("/v1/admin/keys", headers=headers).status_code == 403
        assert server.client.get("/healthz").status_code == 200
    finally:
        queue.keys.revoke(key.id)
        queue.close()
    until(lambda: server.client.get("/v1/jobs").status_code == 200, "no keys any more")
    assert server.ended(job["id"])["status"] == "completed"


def test_a_webhook_is_called_signed_and_logged(server: Server) -> None:
    calls: list[tuple[dict[str, str], bytes]] = []

    class Receiver(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers["content-length"]))
            calls.append(({name.lower(): value for name, value in self.headers.items()}, body))
            self.send_response(204)
            self.end_headers()

        def log_message(self, *_: object) -> None:
            return

    with HTTPServer(("127.0.0.1", 0), Receiver) as receiver:
        thread = Thread(target=receiver.handle_request)
        thread.start()
        url = f"http://127.0.0.1:{receiver.server_port}/done"
        body = {"prompt": "told", "webhook": url, "use_cache": False}
        job = server.client.post("/v1/jobs", json=body).json()
        server.ended(job["id"])
        thread.join(60)

    def delivered() -> dict[str, Any] | None:
        log = server.client.get(job["links"]["webhooks"]).json()["deliveries"]
        return log[0] if log and log[0]["state"] == "delivered" else None

    entry = until(delivered, "the delivery in the log")
    assert (entry["status_code"], entry["attempts"]) == (204, 1)
    ((headers, sent),) = calls
    timestamp = int(headers["webhook-timestamp"])
    expected = sign(WEBHOOK_SECRET, headers["webhook-id"], timestamp, sent)
    assert headers["webhook-signature"] == expected["webhook-signature"]
    message = json.loads(sent)
    assert (message["type"], message["data"]["id"]) == ("job.completed", job["id"])


def test_an_identical_finished_request_costs_nothing(server: Server) -> None:
    body = {"prompt": "a cube to share", "options": {"seed": 5}}
    first = server.ended(server.client.post("/v1/jobs", json=body).json()["id"])
    second = server.client.post("/v1/jobs", json=body).json()
    assert (second["status"], second["cached_from"]) == ("completed", first["id"])
    meshes = [server.client.get(job["links"]["result"]).content for job in (first, second)]
    assert meshes[0] == meshes[1]
    third = server.client.post("/v1/jobs", json={**body, "use_cache": False}).json()
    assert server.ended(third["id"])["cached_from"] is None


def test_the_cluster_is_described(server: Server) -> None:
    found = server.client.get("/v1/cluster").json()
    assert found["draining"] is False
    assert "echo" in found["models"]
