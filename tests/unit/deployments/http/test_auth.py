from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import pytest
from starlette.requests import HTTPConnection

from deployments.http.auth import Authenticator, Principal
from dream_cad.exceptions import AuthenticationError, PermissionDeniedError, RateLimitedError


@dataclass(frozen=True)
class Key:
    id: str
    scopes: frozenset[str]
    rate_per_minute: int | None = None


@dataclass
class Keys:
    known: dict[str, Key] = field(default_factory=dict)
    asked: list[str] = field(default_factory=list)
    now: float = 0.0

    async def verify(self, given: str) -> Key | None:
        self.asked.append(given)
        return self.known.get(given)

    async def any_key(self) -> bool:
        return bool(self.known)

    def clock(self) -> float:
        return self.now


@pytest.fixture
def keys() -> Keys:
    return Keys({"secret": Key("k1", frozenset({"read"}))})


def door(keys: Keys, **options: Any) -> Authenticator:
    return Authenticator(keys.verify, keys.any_key, cache_s=5.0, clock=keys.clock, **options)


def request(
    peer: str = "127.0.0.1", query: str = "", host: str = "localhost:8000", **headers: str
) -> HTTPConnection:
    named = {"host": host} | {name.replace("_", "-"): value for name, value in headers.items()}
    raw = [(name.encode(), value.encode()) for name, value in named.items()]
    scope = {"type": "http", "headers": raw, "client": (peer, 1), "query_string": query.encode()}
    return HTTPConnection(scope)


@pytest.mark.parametrize(
    "headers",
    [
        {"authorization": "Bearer secret"},
        {"authorization": "bearer  secret "},
        {"x_api_key": "secret"},
        {"x_api_key": "secret", "authorization": "Basic x"},
    ],
)
async def test_a_key_is_taken_from_either_header(keys: Keys, headers: dict[str, str]) -> None:
    found = await door(keys).identify(request(peer="8.8.8.8", **headers))
    assert found == Principal("k1", frozenset({"read"}))


async def test_the_query_counts_only_where_it_is_allowed(keys: Keys) -> None:
    asked = request(query="key=secret")
    assert (await door(keys).identify(asked, allow_query=True)).id == "k1"
    with pytest.raises(AuthenticationError, match="needs an API key"):
        await door(keys).identify(asked)


@pytest.mark.parametrize("given", ["wrong", "secret2", "s" * 10_000])
async def test_a_wrong_key(keys: Keys, given: str) -> None:
    with pytest.raises(AuthenticationError, match="not valid"):
        await door(keys).identify(request(x_api_key=given))


async def test_a_verdict_holds_for_its_time(keys: Keys) -> None:
    authenticator = door(keys)
    for _ in range(3):
        await authenticator.identify(request(x_api_key="secret"))
    assert keys.asked == ["secret"]
    del keys.known["secret"]
    keys.known["other"] = Key("k2", frozenset())
    keys.now = 5.0
    with pytest.raises(AuthenticationError):
        await authenticator.identify(request(x_api_key="secret"))
    assert keys.asked == ["secret", "secret"]


async def test_a_keys_rate(keys: Keys) -> None:
    keys.known["slow"] = Key("k2", frozenset({"read"}), rate_per_minute=1)
    authenticator = door(keys)
    await authenticator.identify(request(x_api_key="slow"))
    with pytest.raises(RateLimitedError):
        await authenticator.identify(request(x_api_key="slow"))


@pytest.mark.parametrize("peer", ["127.0.0.1", "127.8.9.1", "::1", "::ffff:127.0.0.1"])
@pytest.mark.parametrize("host", ["localhost:8000", "127.0.0.1:8000", "[::1]:8000"])
async def test_without_keys_this_machine_may_do_everything(peer: str, host: str) -> None:
    found = await door(Keys()).identify(request(peer, host=host, origin="http://localhost:8000"))
    assert found.is_admin
    assert found.id == ""


@pytest.mark.parametrize(
    "asked",
    [
        request("8.8.8.8"),
        request("10.0.0.1"),
        request("::ffff:10.0.0.1"),
        request("testclient"),
        request(x_forwarded_for="8.8.8.8"),
        request(x_forwarded_for="127.0.0.1"),
        request("8.8.8.8", x_forwarded_for="127.0.0.1"),
        request(forwarded="for=127.0.0.1"),
        request(host="evil.com"),
        request(host="localhost.evil.com"),
        request(host="[::1"),
        request(host=""),
        request(origin="http://evil.com"),
        request(origin="null"),
    ],
)
async def test_without_keys_nobody_else_is_answered(asked: HTTPConnection) -> None:
    with pytest.raises(PermissionDeniedError, match="its own machine"):
        await door(Keys()).identify(asked)


async def test_scopes() -> None:
    reader = Principal("k1", frozenset({"read"}))
    reader.require("read")
    with pytest.raises(PermissionDeniedError, match="'submit'"):
        reader.require("submit")
    Principal("k2", frozenset({"admin"})).require("submit")
    assert reader.may_see("k1")
    assert not reader.may_see("")
    assert Principal("k2", frozenset({"admin"})).may_see("k1")


async def test_the_first_key_counts_at_once_for_who_has_it() -> None:
    keys = Keys()
    asked = door(keys)
    assert (await asked.identify(request())).is_admin
    keys.known["secret"] = Key("k1", frozenset({"read"}))
    assert (await asked.identify(request(x_api_key="secret"))).id == "k1"
    with pytest.raises(AuthenticationError, match="needs an API key"):
        await asked.identify(request())
