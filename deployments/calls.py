"""Typed doors to the parts of Ray's API that its annotations leave open."""

from __future__ import annotations

from typing import Any, cast

import ray
from ray import serve
from ray.serve import Deployment
from ray.serve.handle import DeploymentHandle, DeploymentResponseGenerator


def stream_of(
    handle: DeploymentHandle[Any], method: str, *args: Any
) -> DeploymentResponseGenerator[Any]:
    """Call a generator method of a deployment."""
    stream = getattr(handle.options(stream=True), method).remote(*args)
    return cast("DeploymentResponseGenerator[Any]", stream)


def cancel_stream(stream: DeploymentResponseGenerator[Any]) -> None:
    """Stop a generator method; harmless once it has ended."""
    stream.cancel()  # type: ignore[no-untyped-call]


def list_nodes() -> list[dict[str, Any]]:
    """Return the cluster's nodes."""
    return cast("list[dict[str, Any]]", ray.nodes())  # type: ignore[no-untyped-call]


def make_deployment(replica: type, **options: Any) -> Deployment:
    """Return the deployment of a replica class."""
    return serve.deployment(**options)(replica)
