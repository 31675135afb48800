from __future__ import annotations

import httpx
import pytest

from tests.unit.deployments.http.conftest import Stand
from tests.unit.deployments.http.test_jobs_api import problem

ADMIN_PATHS = [
    ("GET", "/v1/admin/queue", None),
    ("POST", "/v1/admin/pause", {}),
    ("POST", "/v1/admin/resume", {}),
    ("POST", "/v1/admin/drain", None),
    ("DELETE", "/v1/admin/drain", None),
    ("GET", "/v1/admin/licenses", None),
    ("POST", "/v1/admin/licenses", {"model": "echo"}),
    ("GET", "/v1/admin/keys", None),
]


def bearer(stand: Stand, *scopes: str, **limits: int) -> dict[str, str]:
    _, text = stand.queue.keys.create_key("test", scopes, **limits)
    return {"Authorization": f"Bearer {text}"}


async def submit(stand: Stand, headers: dict[str, str], **fields: object) -> httpx.Response:
    return await stand.client.post("/v1/jobs", json={"prompt": "x", **fields}, headers=headers)


async def test_once_a_key_exists_everybody_needs_one(stand: Stand) -> None:
    alice = bearer(stand, "submit", "read")
    answer = await stand.client.get("/v1/jobs")
    assert problem(answer, 401)["type"] == "unauthenticated"
    assert answer.headers["www-authenticate"] == "Bearer"
    wrong = {"X-API-Key": "dcad_0_wrong"}
    problem(await stand.client.get("/v1/jobs", headers=wrong), 401)
    assert (await stand.client.get("/v1/jobs", headers=alice)).status_code == 200
    assert (await stand.client.get("/healthz")).status_code == 200
    assert (await stand.client.get("/readyz")).status_code == 200


async def test_a_key_sees_its_own_jobs_alone(stand: Stand) -> None:
    alice, bob = bearer(stand, "submit", "read"), bearer(stand, "submit", "read")
    boss = bearer(stand, "admin")
    job_id = (await submit(stand, alice)).json()["id"]
    body = {"prompts": ["x"]}
    batch = (await stand.client.post("/v1/batches", json=body, headers=alice)).json()
    stand.complete()
    url, batch_url = f"/v1/jobs/{job_id}", batch["links"]["self"]
    asked = [
        ("GET", url),
        ("DELETE", url),
        ("POST", f"{url}/rerun"),
        ("GET", f"{url}/events"),
        ("GET", f"{url}/result"),
        ("GET", f"{url}/preview.png"),
        ("GET", f"{url}/receipt"),
        ("GET", f"{url}/webhooks"),
        ("GET", batch_url),
        ("GET", f"{batch_url}/items"),
        ("GET", f"{batch_url}/archive.zip"),
        ("POST", f"{batch_url}/retry"),
        ("POST", f"{batch_url}/pause"),
        ("DELETE", batch_url),
    ]
    for method, path in asked:
        problem(await stand.client.request(method, path, headers=bob), 404)
    for headers, number in ((alice, 2), (bob, 0), (boss, 2)):
        listed = (await stand.client.get("/v1/jobs", headers=headers)).json()["jobs"]
        assert len(listed) == number
    assert (await stand.client.get(url, headers=boss)).status_code == 200
    refused = await submit(stand, bob, depends_on=[job_id])
    assert "does not exist" in problem(refused, 422)["detail"]


async def test_scopes_are_enforced(stand: Stand) -> None:
    reader, writer = bearer(stand, "read"), bearer(stand, "submit")
    problem(await submit(stand, reader), 403)
    assert (await submit(stand, writer)).status_code == 202
    problem(await stand.client.get("/v1/jobs", headers=writer), 403)
    for method, path, body in ADMIN_PATHS:
        answer = await stand.client.request(method, path, json=body, headers=reader)
        assert problem(answer, 403)["needed"] == "admin"


async def test_idempotency_keys_are_each_ones_own(stand: Stand) -> None:
    alice, bob = bearer(stand, "submit"), bearer(stand, "submit")
    same = {"Idempotency-Key": "k"}
    first = await submit(stand, alice | same)
    assert (await submit(stand, alice | same)).json()["id"] == first.json()["id"]
    assert (await submit(stand, bob | same)).json()["id"] != first.json()["id"]


async def test_a_rate_is_a_429_with_its_time(stand: Stand) -> None:
    slow = bearer(stand, "read", rate_per_minute=2)
    statuses = [(await stand.client.get("/v1/jobs", headers=slow)).status_code for _ in range(3)]
    assert statuses == [200, 200, 429]
    answer = await stand.client.get("/v1/jobs", headers=slow)
    assert problem(answer, 429)["type"] == "rate-limited"
    assert 1 <= int(answer.headers["retry-after"]) <= 30


async def test_admin(stand: Stand) -> None:
    boss = bearer(stand, "admin")

    async def ask(method: str, path: str, body: object = None) -> httpx.Response:
        return await stand.client.request(method, f"/v1/admin{path}", json=body, headers=boss)

    assert (await ask("POST", "/pause", {"model": "echo"})).json()["paused_models"] == ["echo"]
    assert (await ask("POST", "/pause", {})).json()["all_paused"] is True
    assert (await ask("POST", "/resume", {})).json()["all_paused"] is False
    assert (await ask("POST", "/resume", {"model": "echo"})).json()["paused_models"] == []
    assert (await ask("POST", "/drain")).json()["draining"] is True
    assert (await ask("DELETE", "/drain")).json()["draining"] is False
    problem(await ask("POST", "/pause", {"model": "nobody"}), 404)
    problem(await ask("POST", "/pause", {"colour": 1}), 422)
    (license,) = (await ask("POST", "/licenses", {"model": "echo"})).json()["licenses"]
    assert (license["model"], license["license"]) == ("echo", "MIT")
    answer = await ask("GET", "/keys")
    (key,) = answer.json()["keys"]
    assert key["scopes"] == ["admin"]
    assert "secret" not in answer.text


@pytest.mark.parametrize("path", ["/v1/jobs", "/v1/models", "/v1/cluster", "/v1/admin/keys"])
async def test_without_keys_a_foreign_page_gets_nothing(stand: Stand, path: str) -> None:
    for headers in ({"Origin": "https://evil.com"}, {"Host": "evil.com"}):
        problem(await stand.client.get(path, headers=headers), 403)
    assert (await stand.client.get(path)).status_code == 200
