"""What holds for every request: size, id, log line, problem documents."""

from __future__ import annotations

import logging
from collections.abc import AsyncIterator

import pytest
from pydantic import ValidationError

from deployments.args import AppArgs
from deployments.http.settings import FetchArgs, WebhookArgs
from tests.unit.deployments.http.conftest import Stand
from tests.unit.deployments.http.test_jobs_api import problem

LIMIT = 20_000
PATHS = ["/v1/jobs", "/v1/generate", "/v1/batches", "/v1/admin/pause"]


@pytest.fixture
def args() -> AppArgs:
    limits = {"max_body_bytes": LIMIT}
    return AppArgs.model_validate({"models": [{"name": "echo"}], "limits": limits})


@pytest.mark.parametrize("path", PATHS)
async def test_a_declared_length_is_refused_at_once(stand: Stand, path: str) -> None:
    answer = await stand.client.post(path, json={"prompt": "x" * LIMIT})
    assert problem(answer, 413)["limit_bytes"] == LIMIT


@pytest.mark.parametrize("path", [*PATHS, "/send"])
async def test_an_undeclared_length_is_counted(stand: Stand, path: str) -> None:
    sent = 0

    async def endless() -> AsyncIterator[bytes]:
        nonlocal sent
        for _ in range(1000):
            sent += 1000
            yield b" " * 1000

    headers = {"content-type": "application/json"}
    answer = await stand.client.post(path, content=endless(), headers=headers)
    assert answer.status_code == (400 if "admin" in path else 413)
    assert sent <= LIMIT + 2000


async def test_the_log_line_has_no_secret(stand: Stand, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO, "deployments")
    logging.getLogger("deployments").propagate = True
    _, key = stand.queue.keys.create_key("x", ("submit",))
    headers = {"X-Request-Id": "r-7"}
    answer = await stand.client.post(f"/send?key={key}", json={"text": "x"}, headers=headers)
    assert answer.status_code == 200
    records = [record for record in caplog.records if record.getMessage() == "request"]
    assert {vars(record)["request_id"] for record in records} == {"r-7"}
    assert vars(records[0])["path"] == "/send"
    assert vars(records[0])["status"] == 200
    secret = key.split("_", 2)[2]
    assert not any(secret in str(vars(record)) for record in caplog.records)


async def test_a_bad_request_id_is_replaced(stand: Stand, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO, "deployments")
    logging.getLogger("deployments").propagate = True
    await stand.client.get("/v1/jobs", headers={"X-Request-Id": "a b\tc"})
    records = [record for record in caplog.records if record.getMessage() == "request"]
    assert {len(vars(record)["request_id"]) for record in records} == {36}


@pytest.mark.parametrize(
    "host", ["", "*", "*.", "https://x.com", "x.com/y", "a b", "u@x.com", "x.com:80"]
)
def test_hosts_must_be_hosts(host: str) -> None:
    for kind in (FetchArgs, WebhookArgs):
        with pytest.raises(ValidationError):
            kind.model_validate({"allowed_hosts": [host]})


def test_networks_must_be_networks() -> None:
    with pytest.raises(ValidationError):
        FetchArgs.model_validate({"allowed_networks": ["10.0.0.1/8"]})


def test_a_secret_is_not_printed() -> None:
    assert "c2VjcmV0" not in repr(WebhookArgs.model_validate({"secret": "whsec_c2VjcmV0"}))
