"""A request can be followed through every process by its id."""

from __future__ import annotations

from pathlib import Path

from tests.cluster.conftest import Server, until

SESSIONS = Path("/tmp/ray")
_STAGES = ("job accepted", "job running", "model echo done", "result published", "job completed")


def lines_with(text: str) -> list[str]:
    logs = SESSIONS.glob("session_2*/logs/worker-*.err")
    return [
        line
        for log in logs
        for line in log.read_text("utf-8", "replace").splitlines()
        if text in line
    ]


def test_every_stage_names_the_request(server: Server) -> None:
    request_id = f"follow-{server.new_path().name}"
    # A request that another test has made would be answered from the cache, by no stage.
    body = {"prompt": "a cube to follow", "use_cache": False}
    answer = server.client.post("/v1/jobs", json=body, headers={"X-Request-Id": request_id})
    job_id = answer.json()["id"]
    server.ended(job_id)

    def found() -> bool:
        lines = [line for line in lines_with(f"request_id={request_id}") if job_id in line]
        return all(any(stage in line for line in lines) for stage in _STAGES)

    until(found, f"a line of each of {_STAGES}")
