"""What an operator may say of the HTTP edge: part of ``args`` in serve_config.yaml."""

from __future__ import annotations

import ipaddress
from typing import Annotated

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, SecretStr

_MEBIBYTE = 2**20


def _checked_host(host: str) -> str:
    name = host.removeprefix("*.")
    if not name or any(character in name for character in "*/@ ") or "://" in host:
        raise ValueError("a host is a name, '*.name' or an address; no scheme, port or path")
    if ":" in name:
        ipaddress.IPv6Address(name)  # or it names a port
    return host.lower()


def _checked_network(network: str) -> str:
    return str(ipaddress.ip_network(network))


Host = Annotated[str, AfterValidator(_checked_host)]
Network = Annotated[str, AfterValidator(_checked_network)]


class _Args(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)


class FetchArgs(_Args):
    """Pictures by URL (``image_url``); nothing is fetched unless hosts are listed."""

    allowed_hosts: list[Host] = Field(
        default_factory=list, description="Names, '*.names' or addresses to fetch from."
    )
    allowed_networks: list[Network] = Field(
        default_factory=list, description="Private networks that those hosts may be in."
    )
    max_bytes: int = Field(32 * _MEBIBYTE, ge=1024)
    timeout_s: float = Field(15.0, gt=0, le=300, description="Redirects included.")


class WebhookArgs(_Args):
    """Calls to clients when a job has ended; none unless hosts are listed."""

    allowed_hosts: list[Host] = Field(
        default_factory=list, description="Names, '*.names' or addresses that may be called."
    )
    allowed_networks: list[Network] = Field(
        default_factory=list, description="Private networks that those hosts may be in."
    )
    secret: SecretStr | None = Field(
        None, description="Signs calls for jobs without an API key; whsec_<base64>."
    )
    timeout_s: float = Field(15.0, gt=0, le=120, description="Of one call.")
    max_attempts: int = Field(8, ge=1, le=20)
    retry_base_s: float = Field(5.0, gt=0, description="First pause; then it grows fivefold.")
    retry_max_s: float = Field(21_600.0, gt=0, description="Longest pause.")
    concurrency: int = Field(8, ge=1, le=256)


class EdgeArgs(_Args):
    """Limits of the HTTP API beside those of the queue."""

    max_batch_items: int = Field(20_000, ge=1, le=1_000_000)
    anonymous_rate_per_minute: int | None = Field(
        None, ge=1, description="Requests of clients without a key; unlimited when not given."
    )
    key_cache_s: float = Field(5.0, ge=0, le=60, description="How long a verified key is trusted.")
