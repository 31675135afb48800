"""Run the application on a Ray of its own until standard input is closed; prints its URL."""

from __future__ import annotations

import json
import os
import socket
import sys


def main() -> None:
    os.environ["RAY_worker_niceness"] = "0"  # noqa: SIM112 - so Ray calls it
    import ray
    from ray import serve

    from deployments.app import build_app
    from deployments.args import AppArgs

    settings = json.loads(sys.argv[1])
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    ray.init(
        address="local",
        num_cpus=2,
        include_dashboard=False,
        log_to_driver=False,
        logging_level="ERROR",
        object_store_memory=200 * 2**20,
    )
    try:
        serve.start(http_options={"host": "127.0.0.1", "port": port, "request_timeout_s": 600})
        serve.run(build_app(AppArgs.model_validate(settings["args"])), name=settings["name"])
        sys.stdout.write(f"http://127.0.0.1:{port}\n")
        sys.stdout.flush()
        sys.stdin.read()
    finally:
        ray.shutdown()


if __name__ == "__main__":
    main()
