"""A Ray and a Serve of one's own on this machine, for the demo and for tests."""

from __future__ import annotations

import logging
import os
import socket
from collections.abc import Iterator
from contextlib import contextmanager

import ray
from ray import serve
from ray.serve.config import HTTPOptions
from ray.serve.schema import LoggingConfig

from deployments.app import build_app
from deployments.args import AppArgs

logger = logging.getLogger(__name__)

_OBJECT_STORE_BYTES = 256 * 2**20
_ATTEMPTS = 3
_REQUEST_TIMEOUT_S = 3700.0


@contextmanager
def serve_locally(args: AppArgs, name: str) -> Iterator[str]:
    """Run the application on a Ray of its own, whatever cluster may be near; yield its URL.

    Raises:
        RuntimeError: Ray did not start, or the application could not be deployed.
    """
    port = free_port()
    quiet = LoggingConfig(log_level="ERROR")
    for logger_name in ("ray", "ray.serve"):
        logging.getLogger(logger_name).setLevel(logging.ERROR)
    _start_ray()
    try:
        http = HTTPOptions(host="127.0.0.1", port=port, request_timeout_s=_REQUEST_TIMEOUT_S)
        serve.start(http_options=http, logging_config=quiet)
        serve.run(build_app(args), name=name, logging_config=quiet)
        yield f"http://127.0.0.1:{port}"
    finally:
        ray.shutdown()  # the cluster is ours alone: Serve's own shutdown would only take longer


def _start_ray() -> None:
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    # Ray calls it so. Its workers would run at nice 15, and somebody waits for them.
    os.environ.setdefault("RAY_worker_niceness", "0")
    for attempt in range(1, _ATTEMPTS + 1):
        try:
            ray.init(
                address="local",
                num_cpus=max(os.cpu_count() or 1, 2),
                include_dashboard=False,
                logging_level=logging.ERROR,
                log_to_driver=False,
                object_store_memory=_OBJECT_STORE_BYTES,
            )
        except Exception as error:
            ray.shutdown()
            if attempt == _ATTEMPTS:
                raise RuntimeError(
                    f"Ray did not start in {_ATTEMPTS} attempts: {error} The machine may be busy."
                ) from error
            logger.warning("Ray did not start, trying again: %s", error)
        else:
            return


def free_port() -> int:
    """Return a TCP port of the loopback interface that nobody listens on now."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])
