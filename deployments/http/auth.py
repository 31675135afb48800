"""Who asks, and what they may do: API keys with scopes; loopback only while there is no key."""

from __future__ import annotations

import hashlib
import ipaddress
import time
from collections import OrderedDict
from collections.abc import Awaitable, Callable, Collection
from dataclasses import dataclass
from typing import Literal, Protocol
from urllib.parse import urlsplit

from starlette.requests import HTTPConnection

from deployments.http.ratelimit import RateLimiter
from dream_cad.exceptions import AuthenticationError, PermissionDeniedError

Scope = Literal["submit", "read", "admin"]

_MAX_KEY_CHARS = 256
_MAX_CACHED = 4_096
_LOOPBACK_NAMES = frozenset({"localhost", "ip6-localhost"})
_FORWARDING = ("x-forwarded-for", "forwarded", "x-real-ip")


class KeyFacts(Protocol):
    """What is known of a valid API key."""

    @property
    def id(self) -> str:
        """Owner of the jobs submitted with it."""

    @property
    def scopes(self) -> Collection[str]:
        """What it may do."""

    @property
    def rate_per_minute(self) -> int | None:
        """Requests a minute."""


@dataclass(frozen=True)
class Principal:
    """Who asks.

    Attributes:
        id: the API key's id; empty for clients of a server without keys.
        scopes: what it may do; admin includes all.
    """

    id: str
    scopes: frozenset[str]

    @property
    def is_admin(self) -> bool:
        """Whether it sees every job and may run the server."""
        return "admin" in self.scopes

    def require(self, scope: Scope) -> None:
        """Refuse what the key does not allow.

        Raises:
            PermissionDeniedError: names the missing scope.
        """
        if scope not in self.scopes and not self.is_admin:
            raise PermissionDeniedError(
                f"This API key does not have the scope {scope!r}.",
                hint="Ask an administrator for a key that has it.",
                details={"needed": scope, "scopes": sorted(self.scopes)},
            )

    def may_see(self, owner: str) -> bool:
        """Return whether jobs of ``owner`` are this one's business."""
        return self.is_admin or owner == self.id


ANONYMOUS = Principal("", frozenset({"submit", "read", "admin"}))
"""Everybody on this machine, while the server has no keys."""


@dataclass(frozen=True)
class _Cached:
    until: float
    key: KeyFacts | None


class Authenticator:
    """Finds out who asks.

    Keys are compared by hash in the database; verdicts are kept for a few seconds, so a revoked
    key may work that much longer.

    Args:
        verify: returns the facts of a key, None if it is not valid.
        any_key: returns whether the server has any key.
        cache_s: how long a verdict holds.
        anonymous_rate: requests a minute of clients without a key.
        clock: seconds, monotonic.
    """

    def __init__(
        self,
        verify: Callable[[str], Awaitable[KeyFacts | None]],
        any_key: Callable[[], Awaitable[bool]],
        *,
        cache_s: float,
        anonymous_rate: int | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._verify = verify
        self._any_key = any_key
        self._cache_s = cache_s
        self._anonymous_rate = anonymous_rate
        self._clock = clock
        self._verdicts: OrderedDict[str, _Cached] = OrderedDict()
        self._keys_exist: tuple[float, bool] | None = None
        self._rates = RateLimiter(clock)

    async def identify(self, request: HTTPConnection, *, allow_query: bool = False) -> Principal:
        """Return who asks, and count the request against their rate.

        Args:
            request: with a key as ``Authorization: Bearer``, as ``X-API-Key``, or none.
            allow_query: whether ``?key=`` is read too (wire format P1).

        Raises:
            AuthenticationError: the key is not valid, or one is needed.
            PermissionDeniedError: the server has no keys, and the client is not on this machine.
            RateLimitedError: too many requests.
        """
        given = _given_key(request, allow_query=allow_query)
        if not await self._has_keys(is_doubted=given is not None):
            _require_loopback(request)
            self._rates.spend("", self._anonymous_rate)
            return ANONYMOUS
        if given is None:
            raise AuthenticationError(
                "This server needs an API key.",
                hint="Send it as 'Authorization: Bearer <key>' or 'X-API-Key: <key>'.",
            )
        key = await self._verified(given)
        if key is None:
            raise AuthenticationError("The API key is not valid, or was revoked.")
        self._rates.spend(key.id, key.rate_per_minute)
        return Principal(key.id, frozenset(key.scopes))

    async def admits(self, request: HTTPConnection, given: str | None) -> bool:
        """Return whether a browser may see the interface; counts no request.

        Args:
            request: of the page, or of a part of it.
            given: the API key that the browser keeps, if any.

        Raises:
            PermissionDeniedError: the server has no keys, and the client is not on this machine.
        """
        if not await self._has_keys(is_doubted=bool(given)):
            _require_loopback(request)
            return True
        return bool(given) and await self._verified(given or "") is not None

    async def _has_keys(self, *, is_doubted: bool) -> bool:
        """Return whether there are keys; who comes with one may know of the first before us."""
        now = self._clock()
        known = self._keys_exist
        if known is None or known[0] <= now or (is_doubted and not known[1]):
            known = self._keys_exist = now + self._cache_s, await self._any_key()
        return known[1]

    async def _verified(self, given: str) -> KeyFacts | None:
        if len(given) > _MAX_KEY_CHARS:
            return None
        # The cache knows keys by hash alone: no plaintext stays in memory.
        name = hashlib.sha256(given.encode("utf-8", "surrogateescape")).hexdigest()
        now = self._clock()
        cached = self._verdicts.pop(name, None)
        if cached is None or cached.until <= now:
            cached = _Cached(now + self._cache_s, await self._verify(given))
        self._verdicts[name] = cached
        if len(self._verdicts) > _MAX_CACHED:
            self._verdicts.popitem(last=False)
        return cached.key


def _given_key(request: HTTPConnection, *, allow_query: bool) -> str | None:
    scheme, _, token = request.headers.get("authorization", "").partition(" ")
    if scheme.lower() == "bearer" and token.strip():
        return token.strip()
    if given := request.headers.get("x-api-key", "").strip():
        return given
    return (request.query_params.get("key") or None) if allow_query else None


def _require_loopback(request: HTTPConnection) -> None:
    """Refuse all but programs of this machine: by peer, by the name asked for, and by origin.

    Headers are never a reason to trust, only to refuse: a forwarding header shows that a proxy
    on this machine speaks for somebody else, a foreign Host or Origin that a web page does.
    """
    peer = request.client.host if request.client is not None else ""
    host = request.headers.get("host", "")
    origin = request.headers.get("origin", "")
    is_local = (
        _is_loopback(peer)
        and not any(name in request.headers for name in _FORWARDING)
        and _is_loopback(_host_name(f"//{host}"))
        and (origin == "" or _is_loopback(_host_name(origin)))
    )
    if not is_local:
        raise PermissionDeniedError(
            "This server has no API keys yet, so it answers programs of its own machine only.",
            hint="Create a key on the server: dream-cad keys create.",
        )


def _host_name(url: str) -> str:
    try:
        return urlsplit(url).hostname or ""
    except ValueError:
        return ""


def _is_loopback(host: str) -> bool:
    if host in _LOOPBACK_NAMES:
        return True
    try:
        address = ipaddress.ip_address(host)
    except ValueError:
        return False
    mapped = getattr(address, "ipv4_mapped", None)
    return bool((mapped or address).is_loopback)
