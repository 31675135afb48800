from __future__ import annotations

import socket
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer
from threading import Thread

import pytest

from deployments.http.fetching import ImageFetcher
from deployments.http.outbound import HostGuard, open_url
from deployments.http.settings import FetchArgs
from dream_cad.exceptions import DownloadError, InvalidConfigError, PayloadTooLargeError


def guard_at(*addresses: str, networks: tuple[str, ...] = ()) -> HostGuard:
    async def resolve(host: str, port: int) -> list[str]:
        return list(addresses)

    return HostGuard(["img.example.com", "*.cdn.example.com"], networks, resolve)


@pytest.mark.parametrize(
    "url",
    [
        "https://evil.com/x.png",
        "https://cdn.example.com/x.png",
        "https://img.example.com.evil.com/",
        "https://img.example.com@evil.com/",
        "https://user:pw@img.example.com/",
        "https://evil.com\\@img.example.com/",
        "https://evilcdn.example.com/",
        "file:///etc/passwd",
        "gopher://img.example.com/",
        "//img.example.com/x",
        "https://",
        "https://[::1/",
        "https://img.example.com:99999/",
        "https://img.example.com/a b",
        "https://img.example.com/\r\nX: y",
        "https://127.0.0.1/",
        "https://img.example.com/" + "x" * 3000,
        "",
    ],
)
def test_urls_that_are_refused(url: str) -> None:
    with pytest.raises(InvalidConfigError):
        guard_at("93.184.216.34").check(url)


@pytest.mark.parametrize(
    ("url", "host", "port"),
    [
        ("https://img.example.com/x.png", "img.example.com", 443),
        ("https://IMG.Example.COM:8443/", "img.example.com", 8443),
        ("http://a.b.cdn.example.com./x?y#z", "a.b.cdn.example.com", 80),
    ],
)
def test_urls_of_listed_hosts(url: str, host: str, port: int) -> None:
    target = guard_at().check(url)
    assert (target.host, target.port) == (host, port)


@pytest.mark.parametrize(
    "address",
    [
        "127.0.0.1",
        "10.1.2.3",
        "172.16.0.1",
        "192.168.1.1",
        "169.254.169.254",
        "100.64.0.1",
        "0.0.0.0",
        "224.0.0.1",
        "::1",
        "fe80::1%eth0",
        "fc00::1",
        "::ffff:127.0.0.1",
        "::ffff:10.0.0.1",
        "64:ff9b::7f00:1",
        "2002:7f00:1::",
    ],
)
async def test_addresses_that_are_refused(address: str) -> None:
    guard = guard_at("93.184.216.34", address)
    with pytest.raises(DownloadError, match="not public"):
        await guard.pin(guard.check("https://img.example.com/"))


async def test_a_public_address_is_pinned_and_needs_https() -> None:
    guard = guard_at("93.184.216.34")
    assert await guard.pin(guard.check("https://img.example.com/")) == "93.184.216.34"
    with pytest.raises(DownloadError, match="https is required"):
        await guard.pin(guard.check("http://img.example.com/"))


async def test_a_listed_network_is_allowed() -> None:
    guard = guard_at("10.1.2.3", networks=("10.0.0.0/8",))
    assert await guard.pin(guard.check("http://img.example.com/")) == "10.1.2.3"


async def test_a_host_without_address() -> None:
    guard = guard_at()
    with pytest.raises(DownloadError, match="no address"):
        await guard.pin(guard.check("https://img.example.com/"))


async def test_a_name_that_does_not_resolve() -> None:
    async def resolve(host: str, port: int) -> list[str]:
        raise socket.gaierror("unknown")

    guard = HostGuard(["img.example.com"], (), resolve)
    with pytest.raises(DownloadError, match="cannot be resolved"):
        await guard.pin(guard.check("https://img.example.com/"))


class _Site(BaseHTTPRequestHandler):
    """Pictures, redirects and endless answers on loopback."""

    def do_GET(self) -> None:
        if self.path.startswith("/to?"):
            self.send_response(302)
            self.send_header("Location", self.path[4:])
            self.end_headers()
            return
        body = {"/picture": b"pixels", "/host": self.headers["Host"].encode()}.get(self.path)
        if self.path == "/large":
            body = bytes(100_000)
        self.send_response(404 if body is None else 200)
        self.end_headers()
        self.wfile.write(body or b"")

    def log_message(self, *_: object) -> None:
        return


@pytest.fixture(scope="module")
def site() -> Iterator[int]:
    server = HTTPServer(("127.0.0.1", 0), _Site)
    thread = Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    yield server.server_port
    server.shutdown()
    thread.join()
    server.server_close()


@pytest.fixture
def fetcher() -> ImageFetcher:
    args = FetchArgs(
        allowed_hosts=["img.example.com", "gone.example.com"],
        allowed_networks=["127.0.0.0/8"],
        max_bytes=50_000,
    )

    async def resolve(host: str, port: int) -> list[str]:
        return ["127.0.0.1"] if host == "img.example.com" else ["10.0.0.1"]

    return ImageFetcher(args, HostGuard(args.allowed_hosts, args.allowed_networks, resolve))


async def test_a_picture_is_fetched_under_its_name(fetcher: ImageFetcher, site: int) -> None:
    base = f"http://img.example.com:{site}"
    assert await fetcher.fetch(f"{base}/picture") == b"pixels"
    assert await fetcher.fetch(f"{base}/host") == f"img.example.com:{site}".encode()
    assert await fetcher.fetch(f"{base}/to?/picture") == b"pixels"


@pytest.mark.parametrize(
    ("path", "error", "text"),
    [
        ("/missing", DownloadError, "404"),
        ("/large", PayloadTooLargeError, "50000"),
        ("/to?http://evil.com/", InvalidConfigError, "evil.com"),
        ("/to?http://127.0.0.1/", InvalidConfigError, "127.0.0.1"),
        ("/to?http://gone.example.com/", DownloadError, "not public"),
        ("/to?file:///etc/passwd", InvalidConfigError, "https://"),
    ],
)
async def test_fetches_that_fail(
    fetcher: ImageFetcher, site: int, path: str, error: type[Exception], text: str
) -> None:
    with pytest.raises(error, match=text):
        await fetcher.fetch(f"http://img.example.com:{site}{path}")


async def test_a_circle_of_redirects_ends(fetcher: ImageFetcher, site: int) -> None:
    circle = f"http://img.example.com:{site}/to?"
    with pytest.raises(DownloadError, match="redirects more than"):
        await fetcher.fetch(circle * 6 + f"http://img.example.com:{site}/picture")


async def test_nothing_is_fetched_unless_hosts_are_listed() -> None:
    with pytest.raises(InvalidConfigError, match="fetches no pictures"):
        await ImageFetcher(FetchArgs()).fetch("https://img.example.com/x.png")


async def test_a_closed_port_is_a_download_error() -> None:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    guard = guard_at("127.0.0.1", networks=("127.0.0.0/8",))
    with pytest.raises(DownloadError, match="did not answer"):
        async with open_url(guard, "GET", f"http://img.example.com:{port}/", timeout_s=5):
            pytest.fail("connected")
