"""API keys: made once, shown once, stored as hashes."""

from __future__ import annotations

import base64
import hashlib
import hmac
import secrets
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from sqlalchemy import insert, select, update

from dream_cad.exceptions import InvalidConfigError
from dream_cad.queue.connection import Database, SteadyClock
from dream_cad.queue.rows import instant
from dream_cad.queue.tables import api_keys

SCOPES = ("submit", "read", "admin")
_PREFIX = "dcad"
_SECRET_BYTES = 32
_LONGEST_NAME = 200


@dataclass(frozen=True)
class ApiKey:
    """What is known of a key; its secret is not.

    Attributes:
        id: public part, the ``owner`` of the jobs sent with it.
        name: who or what uses it.
        scopes: what it may do: submit, read, admin.
        rate_per_minute: requests allowed; None for no limit.
        max_pending: jobs that may wait at once; None for no limit.
        weight: share of GPU time relative to other keys.
        created_at: when it was made.
        revoked_at: since when it is refused.
        webhook_secret: signs the webhooks of its jobs.
    """

    id: str
    name: str
    scopes: frozenset[str]
    rate_per_minute: int | None
    max_pending: int | None
    weight: float
    created_at: datetime
    revoked_at: datetime | None
    webhook_secret: str


class KeyStore:
    """Creates, checks, lists and revokes keys.

    Args:
        database: the queue's.
        clock: seconds since the epoch.
    """

    def __init__(self, database: Database, clock: Any = None) -> None:
        self._database = database
        self._clock = clock or SteadyClock()

    def create_key(
        self,
        name: str,
        scopes: Sequence[str] = ("submit", "read"),
        *,
        rate_per_minute: int | None = None,
        max_pending: int | None = None,
        weight: float = 1.0,
    ) -> tuple[ApiKey, str]:
        """Make a key.

        Returns:
            The key, and the text ``dcad_<id>_<secret>`` that its user sends; it is not stored.

        Raises:
            InvalidConfigError: no name, an unknown scope, or a limit or weight that is not above 0.
        """
        _check(name, scopes, rate_per_minute, max_pending, weight)
        key_id, secret = secrets.token_hex(8), secrets.token_urlsafe(_SECRET_BYTES)
        row = {
            "id": key_id,
            "name": name,
            "secret_hash": _hash(secret),
            "scopes": sorted(set(scopes)),
            "rate_per_minute": rate_per_minute,
            "max_pending": max_pending,
            "weight": weight,
            "created_at": self._clock(),
            "revoked_at": None,
            "webhook_secret": _new_webhook_secret(),
        }
        with self._database.connect(write=True) as connection:
            connection.execute(insert(api_keys).values(row))
        return _key(row), f"{_PREFIX}_{key_id}_{secret}"

    def verify(self, plaintext: str) -> ApiKey | None:
        """Return the key behind the text that a client sent; None if unknown or revoked."""
        prefix, _, rest = plaintext.partition("_")
        key_id, _, secret = rest.partition("_")
        if prefix != _PREFIX or not secret:
            return None
        row = self._row(key_id)
        if row is None or row["revoked_at"] is not None:
            return None
        return _key(row) if hmac.compare_digest(row["secret_hash"], _hash(secret)) else None

    def get(self, key_id: str) -> ApiKey | None:
        """Return the key of that id, revoked or not."""
        row = self._row(key_id)
        return _key(row) if row is not None else None

    def revoke(self, key_id: str) -> bool:
        """Refuse a key from now on; False if there is none of that id that was valid."""
        valid = (api_keys.c.id == key_id, api_keys.c.revoked_at.is_(None))
        with self._database.connect(write=True) as connection:
            statement = update(api_keys).where(*valid).values(revoked_at=self._clock())
            return connection.execute(statement).rowcount == 1

    def list_keys(self) -> list[ApiKey]:
        """Return all keys, revoked ones too, oldest first."""
        statement = select(api_keys).order_by(api_keys.c.created_at, api_keys.c.id)
        with self._database.connect(write=False) as connection:
            return [_key(dict(row)) for row in connection.execute(statement).mappings()]

    def any_key(self) -> bool:
        """Return whether a valid key exists; while none does, servers stay on loopback."""
        statement = select(api_keys.c.id).where(api_keys.c.revoked_at.is_(None)).limit(1)
        with self._database.connect(write=False) as connection:
            return connection.execute(statement).first() is not None

    def _row(self, key_id: str) -> dict[str, Any] | None:
        with self._database.connect(write=False) as connection:
            statement = select(api_keys).where(api_keys.c.id == key_id)
            row = connection.execute(statement).mappings().first()
        return dict(row) if row is not None else None


def _new_webhook_secret() -> str:
    """Return a secret in the form of Standard Webhooks, as its libraries take it."""
    return "whsec_" + base64.b64encode(secrets.token_bytes(_SECRET_BYTES)).decode()


def _hash(secret: str) -> str:
    # The secret has 256 random bits: there is nothing to guess that a slow hash would protect.
    return hashlib.sha256(secret.encode()).hexdigest()


def _key(row: dict[str, Any]) -> ApiKey:
    fields = {name: value for name, value in row.items() if name != "secret_hash"}
    revoked = row["revoked_at"]
    return ApiKey(
        **fields
        | {
            "scopes": frozenset(row["scopes"]),
            "created_at": instant(row["created_at"]),
            "revoked_at": None if revoked is None else instant(revoked),
        }
    )


def _check(
    name: str,
    scopes: Sequence[str],
    rate_per_minute: int | None,
    max_pending: int | None,
    weight: float,
) -> None:
    if not 0 < len(name.strip()) <= _LONGEST_NAME:
        raise InvalidConfigError(f"A key needs a name of 1-{_LONGEST_NAME} characters.")
    unknown = sorted(set(scopes) - set(SCOPES))
    if unknown or not scopes:
        raise InvalidConfigError(
            f"Unknown scope {unknown[0]!r}." if unknown else "A key needs at least one scope.",
            hint=f"Scopes: {', '.join(SCOPES)}.",
        )
    limits = {"rate_per_minute": rate_per_minute, "max_pending": max_pending}
    for what, value in limits.items():
        if value is not None and not 0 < value < 2**31:
            raise InvalidConfigError(f"{what} is {value}; it must be 1 to 2147483647.")
    if not 0.0 < weight < float("inf"):
        raise InvalidConfigError(f"The weight is {weight}; it must be above 0.")
