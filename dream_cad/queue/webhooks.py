"""Webhook deliveries: what must be sent, how often it was tried, and what came back."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime
from typing import Literal

from sqlalchemy import Row, insert, select, text, update

from dream_cad.queue.connection import Database, SteadyClock
from dream_cad.queue.jobs import GenerationJob, new_job_id
from dream_cad.queue.rows import instant
from dream_cad.queue.tables import webhook_deliveries

DeliveryState = Literal["pending", "delivered", "failed"]
_LONGEST_ERROR = 500


@dataclass(frozen=True)
class Delivery:
    """One message to one address.

    Attributes:
        id: sent along, so that the receiver can drop repetitions.
        job_id: the job it tells of.
        owner: the job's API key, whose secret signs it.
        url: the receiver.
        event: what happened, for example ``job.completed``.
        body: the text to send.
        attempts: how often it was tried.
        next_at: when it is due (again).
        state: pending, delivered or failed.
        status_code: the receiver's last answer.
        error: why the last attempt failed.
        created_at: when it was scheduled.
        done_at: when it was delivered or given up.
    """

    id: str
    job_id: str
    owner: str
    url: str
    event: str
    body: str
    attempts: int
    next_at: datetime
    state: DeliveryState
    status_code: int | None
    error: str | None
    created_at: datetime
    done_at: datetime | None


class WebhookStore:
    """The outbox of webhooks; use it within ``JobQueue.grouped`` to bind it to a transition."""

    def __init__(self, database: Database, clock: Callable[[], float] | None = None) -> None:
        self._database = database
        self._clock = clock or SteadyClock()

    def schedule(self, job: GenerationJob, url: str, event: str, body: str) -> str:
        """Put a message into the outbox, due at once, and return its id."""
        now, delivery_id = self._clock(), new_job_id()
        with self._database.connect(write=True) as connection:
            connection.execute(
                insert(webhook_deliveries).values(
                    id=delivery_id,
                    job_id=job.id,
                    owner=job.owner,
                    url=url,
                    event=event,
                    body=body,
                    attempts=0,
                    next_at=now,
                    state="pending",
                    created_at=now,
                )
            )
        return delivery_id

    def due(
        self, now: float | None = None, limit: int = 20, lease_s: float = 60.0
    ) -> list[Delivery]:
        """Take messages whose time has come; each is handed out again after ``lease_s`` seconds.

        Args:
            now: the time; the clock's by default.
            limit: at most so many.
            lease_s: time to send and record it before another sender may take it.
        """
        now = self._clock() if now is None else now
        table = webhook_deliveries
        waiting = (
            select(table.c.id)
            .where(text("state = 'pending'"), table.c.next_at <= now)
            .order_by(table.c.next_at)
            .limit(limit)
            .with_for_update(skip_locked=True)
        )
        taken = (
            update(table)
            .where(table.c.id.in_(waiting.scalar_subquery()))
            .values(attempts=table.c.attempts + 1, next_at=now + lease_s)
            .returning(table)
        )
        with self._database.connect(write=True) as connection:
            rows = connection.execute(taken).all()
        return sorted(map(_delivery, rows), key=lambda delivery: delivery.created_at)

    def record(
        self,
        delivery_id: str,
        *,
        state: DeliveryState,
        status_code: int | None = None,
        error: str | None = None,
        next_at: float | None = None,
    ) -> bool:
        """Note how an attempt went; False if the message is not pending.

        Args:
            delivery_id: the message.
            state: ``pending`` to try again at ``next_at``; else the end of it.
            status_code: the receiver's answer, if any.
            error: why it failed.
            next_at: time of the next attempt, seconds since the epoch.
        """
        now = self._clock()
        values = {
            "state": state,
            "status_code": status_code,
            "error": None if error is None else error[:_LONGEST_ERROR],
            "done_at": None if state == "pending" else now,
            "next_at": now if next_at is None else next_at,
        }
        table = webhook_deliveries
        statement = update(table).where(table.c.id == delivery_id, table.c.state == "pending")
        with self._database.connect(write=True) as connection:
            return connection.execute(statement.values(values)).rowcount == 1

    def list_for(self, job_id: str) -> list[Delivery]:
        """Return a job's messages, oldest first."""
        table = webhook_deliveries
        statement = select(table).where(table.c.job_id == job_id).order_by(table.c.created_at)
        with self._database.connect(write=False) as connection:
            return [_delivery(row) for row in connection.execute(statement.order_by(table.c.id))]


def _delivery(row: Row[tuple[object, ...]]) -> Delivery:
    fields = dict(row._mapping)
    for name in ("next_at", "created_at", "done_at"):
        fields[name] = None if fields[name] is None else instant(fields[name])
    return Delivery(**fields)
