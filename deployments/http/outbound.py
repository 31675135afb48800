"""Requests that the server makes for a client: only to listed hosts, at checked addresses.

A name is resolved once, every address it has is checked, and the connection goes to one of those
addresses (pinned), so that a name that changes between check and use gains nothing. Nothing
follows a redirect by itself, and proxies of the environment are not used.
"""

from __future__ import annotations

import asyncio
import ipaddress
import socket
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any
from urllib.parse import urlsplit

import httpx

from dream_cad.exceptions import DownloadError, InvalidConfigError

Address = ipaddress.IPv4Address | ipaddress.IPv6Address
Network = ipaddress.IPv4Network | ipaddress.IPv6Network
Resolver = Callable[[str, int], Awaitable[list[str]]]
"""From (host, port) to the addresses of the host, as text."""

_MAX_URL_CHARS = 2_048
_PORTS = {"http": 80, "https": 443}


@dataclass(frozen=True)
class Target:
    """A checked URL, taken apart."""

    url: str
    scheme: str
    host: str
    port: int


async def resolve_by_system(host: str, port: int) -> list[str]:
    """Return the addresses of a host, as the operating system resolves it."""
    loop = asyncio.get_running_loop()
    found = await loop.getaddrinfo(host, port, type=socket.SOCK_STREAM)
    return list(dict.fromkeys(str(entry[4][0]) for entry in found))


class HostGuard:
    """Says which URLs the server may call.

    Args:
        hosts: names that may be called: ``hooks.example.com``, ``*.example.com`` (any name below
            it, not itself) or an address. Nothing may be called when it is empty.
        networks: networks beside the public Internet that the hosts may be in, for example
            ``10.0.0.0/8``; plain http is for these alone.
        resolve: finds the addresses of a name.
    """

    def __init__(
        self,
        hosts: Sequence[str],
        networks: Sequence[str] = (),
        resolve: Resolver = resolve_by_system,
    ) -> None:
        self._hosts = tuple(host.lower().rstrip(".") for host in hosts)
        self._networks: tuple[Network, ...] = tuple(ipaddress.ip_network(net) for net in networks)
        self._resolve = resolve

    def check(self, url: str) -> Target:
        """Take a URL apart if its host is listed. Resolves nothing.

        Raises:
            InvalidConfigError: not an http(s) URL, credentials in it, or a host not listed.
        """
        if len(url) > _MAX_URL_CHARS or not url.isascii() or not url.isprintable() or " " in url:
            raise InvalidConfigError(
                f"A URL is at most {_MAX_URL_CHARS} printable ASCII characters without spaces."
            )
        try:
            parts = urlsplit(url)
            host, port = (parts.hostname or "").rstrip("."), parts.port
        except ValueError as error:
            raise InvalidConfigError(f"The URL cannot be read: {error}.") from error
        if parts.scheme not in _PORTS or not host or "\\" in url:
            raise InvalidConfigError("A URL begins with https:// and a host name.")
        if parts.username is not None or parts.password is not None:
            raise InvalidConfigError("A URL with a user name or password is not accepted.")
        if not self._is_listed(host):
            raise InvalidConfigError(
                f"The host {host[:80]!r} is not one that this server may call.",
                hint="An administrator lists hosts in serve_config.yaml.",
            )
        return Target(url, parts.scheme, host, port or _PORTS[parts.scheme])

    def _is_listed(self, host: str) -> bool:
        return any(
            host.endswith(listed[1:]) if listed.startswith("*.") else host == listed
            for listed in self._hosts
        )

    async def pin(self, target: Target) -> str:
        """Return an address of the target to connect to; all that it has are checked.

        Raises:
            DownloadError: it has none, or one of them is not public and not in ``networks``.
        """
        try:
            texts = await self._resolve(target.host, target.port)
        except (OSError, UnicodeError) as error:
            raise DownloadError(f"The host {target.host!r} cannot be resolved.") from error
        addresses = [_unmapped(ipaddress.ip_address(text.partition("%")[0])) for text in texts]
        for address in addresses:
            self._check_address(target, address)
        if not addresses:
            raise DownloadError(f"The host {target.host!r} has no address.")
        return str(addresses[0])

    def _check_address(self, target: Target, address: Address) -> None:
        if any(address in network for network in self._networks):
            return
        if not address.is_global or address.is_multicast or _embeds_private(address):
            raise DownloadError(
                f"The host {target.host!r} is at an address that is not public.",
                hint="An administrator may allow its network in serve_config.yaml.",
            )
        if target.scheme != "https":
            raise DownloadError(
                f"The host {target.host!r} is outside this network: https is required."
            )


@asynccontextmanager
async def open_url(
    guard: HostGuard,
    method: str,
    url: str,
    *,
    timeout_s: float,
    content: bytes | None = None,
    headers: dict[str, str] | None = None,
) -> AsyncIterator[httpx.Response]:
    """Make one request to a checked address; yields the answer before its body is read.

    The caller bounds the total time (``asyncio.timeout``) and the bytes it reads; ``timeout_s``
    bounds each step of the connection.

    Raises:
        InvalidConfigError: the URL is not allowed.
        DownloadError: the address is not allowed, or the host does not answer.
    """
    target = guard.check(url)
    address = await guard.pin(target)
    pinned = httpx.URL(url).copy_with(host=address)
    is_default_port = target.port == _PORTS[target.scheme]
    host = f"[{target.host}]" if ":" in target.host else target.host
    named = {"Host": host if is_default_port else f"{host}:{target.port}"}
    extensions: dict[str, Any] = {"sni_hostname": target.host} if target.scheme == "https" else {}
    try:
        async with (
            httpx.AsyncClient(
                trust_env=False, follow_redirects=False, timeout=timeout_s, verify=True
            ) as client,
            client.stream(
                method,
                pinned,
                content=content,
                headers={"Accept-Encoding": "identity", **(headers or {}), **named},
                extensions=extensions,
            ) as response,
        ):
            yield response
    except httpx.HTTPError as error:
        raise DownloadError(
            f"The host {target.host!r} did not answer: {type(error).__name__}."
        ) from error


def _unmapped(address: Address) -> Address:
    if isinstance(address, ipaddress.IPv6Address) and address.ipv4_mapped is not None:
        return address.ipv4_mapped
    return address


def _embeds_private(address: Address) -> bool:
    """Tell whether an IPv6 transition address (6to4, Teredo, NAT64) leads to a private one."""
    if not isinstance(address, ipaddress.IPv6Address):
        return False
    inner = [address.sixtofour, *(address.teredo or ())]
    if address in ipaddress.IPv6Network("64:ff9b::/96"):
        inner.append(ipaddress.IPv4Address(int(address) & 0xFFFF_FFFF))
    return any(found is not None and not found.is_global for found in inner)
