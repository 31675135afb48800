"""Signed webhooks: calls to clients' servers when a job has ended (Standard Webhooks headers).

Durable: a delivery is in the database before its job's end is shown, and stays until it was
answered with 2xx or its attempts are used up. It may arrive more than once (the sender died after
the call, before the note): receivers tell repetitions by ``webhook-id``.
"""

from __future__ import annotations

import asyncio
import base64
import binascii
import hashlib
import hmac
import json
import logging
import random
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol

from deployments.http.documents import job_document
from deployments.http.outbound import HostGuard, open_url
from deployments.http.settings import WebhookArgs
from deployments.messages import JobView
from dream_cad.exceptions import DownloadError, DreamCadError, InvalidConfigError
from dream_cad.queue import GenerationJob
from dream_cad.queue.webhooks import Delivery, DeliveryState

logger = logging.getLogger(__name__)

SECRET_PREFIX = "whsec_"
_MIN_SECRET_BYTES = 24
_GROWTH = 5.0
_JITTER = 0.1
_IDLE_S = 1.0
_GONE = 410
_STEP_TIMEOUT_S = 10.0


class Outbox(Protocol):
    """What the sender needs of dream_cad.queue.webhooks.WebhookStore."""

    def due(self, now: float | None = None, limit: int = 20) -> list[Delivery]:
        """Take messages whose time has come; ``attempts`` counts the one now due."""

    def record(
        self,
        delivery_id: str,
        *,
        state: DeliveryState,
        status_code: int | None = None,
        error: str | None = None,
        next_at: float | None = None,
    ) -> bool:
        """Note the outcome of an attempt."""


@dataclass(frozen=True)
class Outcome:
    """How a call ended: the status it was answered with, or why it was not."""

    status_code: int | None
    error: str | None

    @property
    def is_delivered(self) -> bool:
        """Whether the receiver took it."""
        return self.status_code is not None and 200 <= self.status_code < 300


def decode_secret(secret: str) -> bytes:
    """Return the key bytes of a ``whsec_<base64>`` secret.

    Raises:
        InvalidConfigError: not base64, or shorter than 24 bytes.
    """
    try:
        key = base64.b64decode(secret.removeprefix(SECRET_PREFIX), validate=True)
    except (binascii.Error, ValueError) as error:
        raise InvalidConfigError("A webhook secret is whsec_ and base64.") from error
    if len(key) < _MIN_SECRET_BYTES:
        raise InvalidConfigError(f"A webhook secret has at least {_MIN_SECRET_BYTES} bytes.")
    return key


def sign(secret: str, message_id: str, timestamp: int, body: bytes) -> dict[str, str]:
    """Return the headers of a call (Standard Webhooks 1.0: HMAC-SHA256 of id, time and body)."""
    signed = b".".join([message_id.encode(), str(timestamp).encode(), body])
    digest = hmac.new(decode_secret(secret), signed, hashlib.sha256).digest()
    return {
        "webhook-id": message_id,
        "webhook-timestamp": str(timestamp),
        "webhook-signature": f"v1,{base64.b64encode(digest).decode()}",
    }


def completion_message(job: GenerationJob) -> tuple[str, str]:
    """Return the event's name and the body that tell of a job's end."""
    event = f"job.{job.status.value}"
    document = job_document(JobView(job, None, None))
    moment = job.completed_at or job.created_at
    message = {
        "type": event,
        "timestamp": moment.isoformat(),
        "data": document.model_dump(mode="json"),
    }
    return event, json.dumps(message)


class WebhookSender:
    """Delivers what is due, several at once.

    Args:
        outbox: the messages to send.
        args: hosts, time limits, attempts.
        secret_of: returns the secret that signs calls for the jobs of an API key.
        guard: what may be called; made from ``args`` when not given.
        clock: seconds since the epoch.
        spread: random factor in [0, 1) of the pauses, so that retries do not come in waves.
    """

    def __init__(
        self,
        outbox: Outbox,
        args: WebhookArgs,
        secret_of: Callable[[str], str | None],
        guard: HostGuard | None = None,
        *,
        clock: Callable[[], float] = time.time,
        spread: Callable[[], float] = random.random,
    ) -> None:
        self._outbox = outbox
        self._args = args
        self._secret_of = secret_of
        self._guard = guard or HostGuard(args.allowed_hosts, args.allowed_networks)
        self._clock = clock
        self._spread = spread

    async def run(self) -> None:
        """Deliver for ever."""
        while True:
            try:
                sent = await self.deliver_due()
            except DreamCadError as error:
                logger.error("webhooks cannot be read or noted: %s", error)
                sent = 0
            if sent == 0:
                await asyncio.sleep(_IDLE_S)

    async def deliver_due(self) -> int:
        """Make one attempt at each delivery that is due; returns how many there were."""
        due = await asyncio.to_thread(self._outbox.due, None, self._args.concurrency)
        await asyncio.gather(*(self._attempt(delivery) for delivery in due))
        return len(due)

    async def _attempt(self, delivery: Delivery) -> None:
        outcome = await self._call(delivery)
        state = self._state_after(outcome, delivery.attempts)
        next_at = self._clock() + self.pause_s(delivery.attempts) if state == "pending" else None
        logger.info(
            "webhook %s of job %s: %s (%s), attempt %d",
            delivery.id,
            delivery.job_id,
            state,
            outcome.status_code or outcome.error,
            delivery.attempts,
        )
        await asyncio.to_thread(
            self._outbox.record,
            delivery.id,
            state=state,
            next_at=next_at,
            status_code=outcome.status_code,
            error=outcome.error,
        )

    def _state_after(self, outcome: Outcome, attempts: int) -> DeliveryState:
        if outcome.is_delivered:
            return "delivered"
        is_over = outcome.status_code == _GONE or attempts >= self._args.max_attempts
        return "failed" if is_over else "pending"

    def pause_s(self, attempts: int) -> float:
        """Return the seconds before the next attempt: growing fivefold, at most a limit."""
        pause = self._args.retry_base_s * _GROWTH ** (attempts - 1)
        return min(pause, self._args.retry_max_s) * (1.0 + _JITTER * self._spread())

    async def _call(self, delivery: Delivery) -> Outcome:
        try:
            secret = await asyncio.to_thread(self._secret, delivery.owner)
            body = delivery.body.encode()
            headers = {
                "Content-Type": "application/json",
                "User-Agent": "dream-cad",
                **sign(secret, delivery.id, int(self._clock()), body),
            }
            async with (
                asyncio.timeout(self._args.timeout_s),
                open_url(
                    self._guard,
                    "POST",
                    delivery.url,
                    timeout_s=min(self._args.timeout_s, _STEP_TIMEOUT_S),
                    content=body,
                    headers=headers,
                ) as response,
            ):
                status = response.status_code  # the answer's body is left unread
        except TimeoutError:
            return Outcome(None, f"no answer within {self._args.timeout_s:g} s")
        except (DownloadError, InvalidConfigError) as error:
            return Outcome(None, str(error))
        is_accepted = 200 <= status < 300
        return Outcome(status, None if is_accepted else f"answered {status}; 2xx is needed")

    def _secret(self, owner: str) -> str:
        secret = self._secret_of(owner) if owner else None
        if secret is None and self._args.secret is not None:
            secret = self._args.secret.get_secret_value()
        if secret is None:
            raise InvalidConfigError("There is no secret to sign this call with.")
        return secret
