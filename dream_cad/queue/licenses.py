"""Which model licences an administrator has accepted."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime

from sqlalchemy import select, text

from dream_cad.queue.connection import Database, SteadyClock
from dream_cad.queue.rows import instant
from dream_cad.queue.tables import accepted_licenses

_ACCEPT = text(
    "INSERT INTO accepted_licenses (model, license, accepted_by, accepted_at) "
    "VALUES (:model, :license, :by, :at) ON CONFLICT (model, license) DO NOTHING"
)


@dataclass(frozen=True)
class AcceptedLicense:
    """Who accepted which licence of a model, and when."""

    model: str
    license: str
    accepted_by: str
    accepted_at: datetime


class LicenseStore:
    """Remembers acceptances; one holds for the licence text named, not for a later one."""

    def __init__(self, database: Database, clock: Callable[[], float] | None = None) -> None:
        self._database = database
        self._clock = clock or SteadyClock()

    def accept(self, model: str, license: str, by: str) -> None:
        """Record that ``by`` accepts a model's licence; accepting twice keeps the first record.

        Args:
            model: the model's name.
            license: name or SHA-256 of the licence text.
            by: person or key that accepts.
        """
        values = {"model": model, "license": license, "by": by, "at": self._clock()}
        with self._database.connect(write=True) as connection:
            connection.execute(_ACCEPT, values)

    def is_accepted(self, model: str, license: str) -> bool:
        """Return whether this licence of the model was accepted."""
        statement = select(accepted_licenses.c.model).where(
            accepted_licenses.c.model == model, accepted_licenses.c.license == license
        )
        with self._database.connect(write=False) as connection:
            return connection.execute(statement).first() is not None

    def list(self) -> list[AcceptedLicense]:
        """Return all acceptances, by model."""
        statement = select(accepted_licenses).order_by(
            accepted_licenses.c.model, accepted_licenses.c.accepted_at
        )
        with self._database.connect(write=False) as connection:
            return [
                AcceptedLicense(row.model, row.license, row.accepted_by, instant(row.accepted_at))
                for row in connection.execute(statement)
            ]
