from __future__ import annotations

import base64
import json
from datetime import UTC, datetime, timedelta
from typing import Any

import httpx
import pytest

from deployments.http.checks import check_options, options_schema
from deployments.plan import ModelPlan
from dream_cad.exceptions import InvalidConfigError
from tests.unit.deployments.http.conftest import Stand, png


def problem(answer: httpx.Response, status: int) -> dict[str, Any]:
    assert answer.status_code == status, answer.text
    assert answer.headers["content-type"] == "application/problem+json"
    found = dict(answer.json())
    assert found["status"] == status
    return found


async def test_a_request_becomes_a_job_with_all_it_says(stand: Stand) -> None:
    first = await stand.submit()
    deadline = datetime.now(UTC) + timedelta(hours=1)
    answer = await stand.client.post(
        "/v1/jobs",
        json={
            "prompt": "a  red\tchair",
            "models": ["echo", "echo2"],
            "pick": "best",
            "require": {"watertight": True, "max_faces": 5000, "min_quality": 50},
            "max_tries": 4,
            "options": {"seed": 7},
            "priority": "high",
            "format": "obj",
            "tags": ["red", "chairs:1", "red"],
            "depends_on": [first],
            "deadline": deadline.isoformat(),
            "max_wait_s": 60,
            "webhook": "https://hooks.example.com/x",
            "use_cache": False,
        },
        headers={"X-Request-Id": "r-1"},
    )
    document = answer.json()
    assert answer.status_code == 202, answer.text
    assert answer.headers["location"] == document["links"]["self"]
    job = stand.queue.get_job(document["id"])
    assert job is not None
    assert (job.prompt, job.config, job.priority.name) == ("a red chair", {"seed": 7}, "HIGH")
    assert job.policy.pop("request_id") == document["request_id"] == "r-1"
    assert job.policy == {
        "models": ["echo", "echo2"],
        "pick": "best",
        "require": {"watertight": True, "max_faces": 5000, "min_quality": 50.0},
        "max_tries": 4,
        "webhook": "https://hooks.example.com/x",
        "use_cache": False,
        "format": "obj",
    }
    assert sorted(job.tags) == ["chairs:1", "red"]
    assert (job.depends_on, job.waits_for) == ([first], 1)
    assert job.deadline == pytest.approx(deadline, abs=timedelta(seconds=1))
    assert job.start_by is not None
    assert job.start_by > datetime.now(UTC)
    assert job.cache_key is None


@pytest.mark.parametrize(
    ("fields", "word"),
    [
        ({"models": []}, "models"),
        ({"models": ["echo"], "model": "echo"}, "not both"),
        ({"models": ["echo", "echo"]}, "twice"),
        ({"models": ["echo", "dall-e"]}, "dall-e"),
        ({"models": ["echo"] * 9}, "models"),
        ({"pick": "worst"}, "pick"),
        ({"models": ["echo", "echo2"], "pick": "best", "max_tries": 1}, "max_tries"),
        ({"max_tries": 0}, "max_tries"),
        ({"max_tries": 9}, "max_tries"),
        ({"require": {"pretty": True}}, "pretty"),
        ({"require": {"min_quality": 101}}, "min_quality"),
        ({"require": {"max_faces": 3}}, "max_faces"),
        ({"tags": ["a b"]}, "tag"),
        ({"tags": ["x"] * 17}, "tags"),
        ({"depends_on": ["nobody"]}, "nobody"),
        ({"depends_on": ["../x"]}, "depends_on"),
        ({"deadline": "2001-01-01T00:00:00Z"}, "past"),
        ({"deadline": "2999-01-01T00:00:00"}, "timezone"),
        ({"max_wait_s": 0}, "max_wait_s"),
        ({"webhook": "https://evil.com/"}, "evil.com"),
        ({"webhook": "file:///etc/passwd"}, "https"),
        ({"image_url": "https://evil.com/x.png"}, "image_url"),
        ({"prompt": None, "image_url": "https://evil.com/x.png"}, "fetches no pictures"),
        ({"format": "exe"}, "exe"),
        ({"use_cache": "perhaps"}, "use_cache"),
    ],
)
async def test_requests_that_are_refused(stand: Stand, fields: dict[str, Any], word: str) -> None:
    answer = await stand.client.post("/v1/jobs", json={"prompt": "a cube", **fields})
    assert word in problem(answer, 422)["detail"]
    assert stand.queue.list_jobs().jobs == []


async def test_lists_are_filtered(stand: Stand) -> None:
    ids = [await stand.submit(tags=["t"] if index else [], model="echo") for index in range(3)]
    other = await stand.submit(model="echo2")
    stand.queue.cancel(ids[2])

    async def listed(**query: str) -> list[str]:
        answer = await stand.client.get("/v1/jobs", params=query)
        return [job["id"] for job in answer.json()["jobs"]]

    assert await listed() == [other, *ids[::-1]]
    assert await listed(tag="t") == [ids[2], ids[1]]
    assert await listed(model="echo2") == [other]
    assert await listed(status="cancelled") == [ids[2]]
    assert await listed(status="pending", tag="t") == [ids[1]]
    assert await listed(batch="none") == []
    first = (await stand.client.get("/v1/jobs", params={"limit": 3})).json()
    rest = await stand.client.get("/v1/jobs", params={"cursor": first["next_cursor"]})
    assert [job["id"] for job in rest.json()["jobs"]] == ids[:1]


async def test_a_rerun_has_the_same_receipt(stand: Stand) -> None:
    answer = await stand.client.post(
        "/v1/jobs", files={"image": ("x.png", png())}, data={"tags": "a,b"}
    )
    old = answer.json()
    stand.complete()
    answer = await stand.client.post(f"/v1/jobs/{old['id']}/rerun")
    assert answer.status_code == 202
    new = answer.json()
    assert new["id"] != old["id"]
    assert new["options"] == old["options"]
    assert "seed" in new["options"]
    assert new["tags"] == ["a", "b"]
    job = stand.queue.get_job(new["id"])
    assert job is not None
    assert job.input_uri is not None
    assert job.cache_key is None
    assert stand.artifacts.read(job.input_uri, "input").startswith(b"\x89PNG")


async def test_a_repeated_rerun_is_one_job(stand: Stand) -> None:
    files = {"image": ("x.png", png())}
    old, other = [(await stand.client.post("/v1/jobs", files=files)).json()["id"] for _ in "ab"]
    headers = {"Idempotency-Key": "again"}
    first, second = [
        (await stand.client.post(f"/v1/jobs/{old}/rerun", headers=headers)).json()["id"]
        for _ in "ab"
    ]
    assert first == second != old
    assert stand.artifacts.exists(f"{first}-input")
    answer = await stand.client.post(f"/v1/jobs/{other}/rerun", headers=headers)
    assert problem(answer, 409)["type"] == "idempotency-conflict"
    unkeyed = (await stand.client.post(f"/v1/jobs/{old}/rerun")).json()["id"]
    assert unkeyed not in (first, old)


async def test_idempotency(stand: Stand) -> None:
    headers = {"Idempotency-Key": "k"}

    async def post(prompt: str) -> httpx.Response:
        return await stand.client.post("/v1/jobs", json={"prompt": prompt}, headers=headers)

    first, second, other = await post("once"), await post("once"), await post("twice")
    assert first.json()["id"] == second.json()["id"]
    assert problem(other, 409)["type"] == "idempotency-conflict"


async def test_the_cache_key_is_that_of_the_request(stand: Stand) -> None:
    async def key(**fields: Any) -> str | None:
        job = stand.queue.get_job(await stand.submit(**fields))
        assert job is not None
        return job.cache_key

    same = await key()
    assert same is not None
    assert await key() == same
    assert await key(tags=["x"], priority="low", format="obj") == same
    assert await key(use_cache=False) is None
    others = [
        await key(prompt="a ball"),
        await key(options={"seed": 1}),
        await key(model="echo2"),
        await key(models=["echo", "echo2"]),
        await key(require={"watertight": True}),
    ]
    assert len({same, *others}) == 6


async def test_events_are_replayed_after_the_last_one_seen(stand: Stand) -> None:
    job_id = await stand.submit()
    stand.complete()
    url = f"/v1/jobs/{job_id}/events"
    whole = (await stand.client.get(url)).text
    events = [block for block in whole.split("\n\n") if "event:" in block]
    assert whole.startswith("retry: 2000\n\n")
    assert len(events) >= 2
    first_id = events[0].split("\n")[0].removeprefix("id: ")
    rest = (await stand.client.get(url, headers={"Last-Event-ID": first_id})).text
    assert [block for block in rest.split("\n\n") if "event:" in block] == events[1:]
    data = events[-1].split("data: ")[1]
    assert json.loads(data)["id"] == job_id
    problem(await stand.client.get(url, headers={"Last-Event-ID": "abc"}), 422)
    problem(await stand.client.get("/v1/jobs/nobody/events"), 404)


async def test_results_and_their_end(stand: Stand) -> None:
    job_id = await stand.submit(format="stl")
    url = f"/v1/jobs/{job_id}"
    problem(await stand.client.get(f"{url}/result"), 409)
    stand.complete()
    answer = await stand.client.get(f"{url}/result")
    assert answer.headers["content-type"] == "model/stl"
    assert len(answer.content) == 84 + 12 * 50
    assert (await stand.client.get(f"{url}/result?format=glb")).content[:4] == b"glTF"
    assert (await stand.client.get(f"{url}/preview.png")).content[1:4] == b"PNG"
    assert (await stand.client.get(f"{url}/receipt")).json() == {"seed": 1}
    problem(await stand.client.get(f"{url}/result?format=../x"), 422)
    stand.queue.forget_result(job_id)
    assert (await stand.client.get(url)).json()["links"]["result"] is None
    assert problem(await stand.client.get(f"{url}/result"), 410)["type"] == "result-expired"
    problem(await stand.client.get(f"{url}/preview.png"), 410)


async def test_cancelling(stand: Stand) -> None:
    pending, running = await stand.submit(priority="low"), await stand.submit()
    stand.queue.get_next_job()
    assert (await stand.client.delete(f"/v1/jobs/{pending}")).status_code == 200
    answer = await stand.client.delete(f"/v1/jobs/{running}")
    assert (answer.status_code, answer.json()["cancel_requested"]) == (202, True)
    problem(await stand.client.delete("/v1/jobs/nobody"), 404)


async def test_the_delivery_log(stand: Stand) -> None:
    job_id = await stand.submit()
    job = stand.queue.get_job(job_id)
    assert job is not None
    stand.queue.webhooks.schedule(job, "https://hooks.example.com/", "job.completed", "{}")
    (entry,) = (await stand.client.get(f"/v1/jobs/{job_id}/webhooks")).json()["deliveries"]
    assert (entry["state"], entry["attempts"]) == ("pending", 0)
    assert "body" not in entry


@pytest.mark.parametrize("name", ["echo", "echo2", "trellis"])
async def test_models(stand: Stand, name: str) -> None:
    body = (await stand.client.get("/v1/models")).json()
    found = {model["name"]: model for model in body["models"]}[name]
    assert found["license"] == "MIT"
    assert "glb" in found["formats"]
    assert found["available"] is (name == "echo")
    if name == "echo":
        assert found["options_schema"]["properties"]["seed"]


async def test_health(stand: Stand) -> None:
    assert (await stand.client.get("/healthz")).status_code == 200
    assert (await stand.client.get("/readyz")).json()["models"] == ["echo"]
    stand.router.ready = False
    assert problem(await stand.client.get("/readyz"), 503)["type"] == "service-unavailable"
    assert (await stand.client.get("/v1/cluster")).json() == {"gpus": []}


async def test_everything_has_its_errors_documented(stand: Stand) -> None:
    paths = (await stand.client.get("/openapi.json")).json()["paths"]
    for path, operations in paths.items():
        if path in ("/healthz", "/health"):
            continue
        for method, operation in operations.items():
            assert {"401", "429", "503"} <= operation["responses"].keys() or path == "/readyz", (
                path,
                method,
            )


async def test_pictures_as_base64(stand: Stand) -> None:
    coded = base64.b64encode(png()).decode()
    answer = await stand.client.post("/v1/jobs", json={"image": f"data:image/png;base64,{coded}"})
    assert answer.status_code == 202
    problem(await stand.client.post("/v1/jobs", json={"image": "%"}), 422)


def test_options_that_name_files_are_refused() -> None:
    plan = ModelPlan("mvdream", is_deployed=True, reason="for tests")
    with pytest.raises(InvalidConfigError, match="sds_checkpoint"):
        check_options(plan, {"sds_checkpoint": "/etc/passwd"}, is_text=True)
    assert "sds_checkpoint" not in options_schema(plan)["properties"]
    assert check_options(plan, {"sds_steps": 5}, is_text=True) == {"sds_steps": 5}
