from __future__ import annotations

import base64
import hashlib
import hmac
import json
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from threading import Thread
from typing import Any

import pytest

from deployments.http.outbound import HostGuard
from deployments.http.settings import WebhookArgs
from deployments.webhooks import WebhookSender, completion_message, decode_secret, sign
from dream_cad.exceptions import InvalidConfigError
from dream_cad.queue import GenerationJob, JobQueue, JobStatus
from dream_cad.queue.webhooks import Delivery

SECRET = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw"
NOW = 1_614_265_330.0


def test_the_signature_is_that_of_the_specification() -> None:
    # The example of the Standard Webhooks libraries' own tests.
    headers = sign(SECRET, "msg_p5jXN8AQM9LWM0D4loKWxJek", int(NOW), b'{"test": 2432232314}')
    assert headers["webhook-signature"] == "v1,g0hM9SsE+OTPJTGt/tmIKtSyZlE3uFJELVlNIOLJ1OE="
    assert headers["webhook-timestamp"] == "1614265330"


@pytest.mark.parametrize("secret", ["", "whsec_", "whsec_%%%", "whsec_c2hvcnQ="])
def test_a_secret_must_be_one(secret: str) -> None:
    with pytest.raises(InvalidConfigError):
        decode_secret(secret)


def test_a_keys_own_secret_can_sign(tmp_path: Path) -> None:
    queue = JobQueue(f"sqlite:///{tmp_path}/jobs.sqlite3")
    key, _ = queue.keys.create_key("test")
    assert len(decode_secret(key.webhook_secret)) == 32
    queue.close()


@dataclass
class Box:
    """An outbox in memory."""

    deliveries: dict[str, Delivery] = field(default_factory=dict)
    now: float = NOW

    def put(self, url: str, owner: str = "") -> str:
        moment = datetime.fromtimestamp(self.now, UTC)
        delivery = Delivery(
            id=f"msg-{len(self.deliveries)}",
            job_id="j",
            owner=owner,
            url=url,
            event="job.completed",
            body='{"type": "job.completed"}',
            attempts=0,
            next_at=moment,
            state="pending",
            status_code=None,
            error=None,
            created_at=moment,
            done_at=None,
        )
        self.deliveries[delivery.id] = delivery
        return delivery.id

    def due(self, now: float | None = None, limit: int = 20) -> list[Delivery]:
        found = [
            replace(delivery, attempts=delivery.attempts + 1)
            for delivery in self.deliveries.values()
            if delivery.state == "pending" and delivery.next_at.timestamp() <= self.now
        ][:limit]
        self.deliveries |= {delivery.id: delivery for delivery in found}
        return found

    def record(self, delivery_id: str, **values: Any) -> bool:
        next_at = values.pop("next_at") or self.now
        self.deliveries[delivery_id] = replace(
            self.deliveries[delivery_id], next_at=datetime.fromtimestamp(next_at, UTC), **values
        )
        return True


@dataclass
class Receiver:
    port: int
    answers: list[int] = field(default_factory=list)
    calls: list[tuple[dict[str, str], bytes]] = field(default_factory=list)


@pytest.fixture
def receiver() -> Iterator[Receiver]:
    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers["content-length"]))
            found.calls.append(({k.lower(): v for k, v in self.headers.items()}, body))
            status = found.answers.pop(0) if found.answers else 204
            self.send_response(status)
            if status == 302:
                self.send_header("Location", f"http://hooks.example.com:{found.port}/elsewhere")
            self.end_headers()

        def log_message(self, *_: object) -> None:
            return

    server = HTTPServer(("127.0.0.1", 0), Handler)
    found = Receiver(server.server_port)
    thread = Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    yield found
    server.shutdown()
    thread.join()
    server.server_close()


async def resolve(host: str, port: int) -> list[str]:
    return ["127.0.0.1"] if host == "hooks.example.com" else ["10.0.0.1"]


def sender(box: Box, **args: Any) -> WebhookSender:
    wanted: dict[str, Any] = {
        "allowed_hosts": ["hooks.example.com", "inside.example.com"],
        "allowed_networks": ["127.0.0.0/8"],
        "secret": SECRET,
        "max_attempts": 3,
    }
    settings = WebhookArgs.model_validate(wanted | args)
    guard = HostGuard(settings.allowed_hosts, settings.allowed_networks, resolve)
    other = "whsec_" + base64.b64encode(b"k" * 32).decode()
    return WebhookSender(
        box, settings, {"key": other}.get, guard, clock=lambda: box.now, spread=lambda: 0.0
    )


async def test_a_delivery_is_signed_and_noted(receiver: Receiver) -> None:
    box = Box()
    box.put(f"http://hooks.example.com:{receiver.port}/in", owner="key")
    assert await sender(box).deliver_due() == 1
    headers, body = receiver.calls[0]
    signed = f"{headers['webhook-id']}.{headers['webhook-timestamp']}.".encode() + body
    expected = base64.b64encode(hmac.new(b"k" * 32, signed, hashlib.sha256).digest()).decode()
    assert headers["webhook-signature"] == f"v1,{expected}"
    assert headers["content-type"] == "application/json"
    assert json.loads(body) == {"type": "job.completed"}
    (delivery,) = box.deliveries.values()
    assert (delivery.state, delivery.status_code, delivery.attempts) == ("delivered", 204, 1)
    assert await sender(box).deliver_due() == 0


async def test_a_failing_receiver_is_tried_again_after_growing_pauses(receiver: Receiver) -> None:
    receiver.answers = [500, 302, 503]
    box = Box()
    name = box.put(f"http://hooks.example.com:{receiver.port}/in")
    pauses = []
    for _ in range(3):
        before = box.now
        await sender(box).deliver_due()
        box.now = max(box.deliveries[name].next_at.timestamp(), before)
        pauses.append(box.now - before)
    assert pauses == [5.0, 25.0, 0.0]
    delivery = box.deliveries[name]
    assert (delivery.state, delivery.status_code, delivery.attempts) == ("failed", 503, 3)
    assert len(receiver.calls) == 3  # the redirect was not followed
    assert delivery.error is not None
    assert "503" in delivery.error


async def test_a_receiver_that_is_gone_is_left_alone(receiver: Receiver) -> None:
    receiver.answers = [410]
    box = Box()
    name = box.put(f"http://hooks.example.com:{receiver.port}/in")
    await sender(box).deliver_due()
    assert box.deliveries[name].state == "failed"


@pytest.mark.parametrize(
    ("url", "reason"),
    [
        ("http://inside.example.com/", "not public"),
        ("http://evil.com/", "may call"),
        ("http://hooks.example.com:1/", "did not answer"),
    ],
)
async def test_calls_that_cannot_be_made(url: str, reason: str) -> None:
    box = Box()
    name = box.put(url)
    await sender(box).deliver_due()
    delivery = box.deliveries[name]
    assert delivery.state == "pending"
    assert delivery.status_code is None
    assert reason in str(delivery.error)


async def test_without_a_secret_nothing_is_sent(receiver: Receiver) -> None:
    box = Box()
    name = box.put(f"http://hooks.example.com:{receiver.port}/in")
    await sender(box, secret=None).deliver_due()
    assert receiver.calls == []
    assert "no secret" in str(box.deliveries[name].error)


def test_pauses_are_bounded() -> None:
    assert sender(Box(), retry_max_s=100).pause_s(9) == 100.0


def test_the_message_of_a_job() -> None:
    job = GenerationJob(id="j1", prompt="a chair", model_name="echo", status=JobStatus.FAILED)
    job.problem = {"type": "generation-failed", "detail": "round"}
    event, body = completion_message(job)
    message = json.loads(body)
    assert event == message["type"] == "job.failed"
    assert message["data"]["id"] == "j1"
    assert message["data"]["error"]["detail"] == "round"
