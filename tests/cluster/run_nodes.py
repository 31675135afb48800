"""Several Ray nodes on this machine, with fake GPUs of different kinds, until input is closed.

Prints the address of the cluster and the URL of the application (empty without one). Then obeys
lines of its input, and answers each with a line: ``add A10``, ``kill A10``. With an address in the
settings the nodes are somebody else's, and only the application is run.
"""

from __future__ import annotations

import json
import logging
import os
import sys

import ray
from ray import serve
from ray.cluster_utils import Cluster
from ray.serve.config import HTTPOptions
from ray.serve.schema import LoggingConfig

from deployments.app import build_app
from deployments.args import AppArgs
from deployments.local import free_port
from tests.cluster.namespaces import FAST_DEATH, STORE_BYTES


class Nodes:
    """A head without GPUs, and workers that are killed as machines are: without a word."""

    def __init__(self, worker_cpus: int) -> None:
        self._worker_cpus = worker_cpus
        head = {"num_cpus": 4, "num_gpus": 0, "object_store_memory": STORE_BYTES}
        self._cluster = Cluster(
            initialize_head=True,
            head_node_args={**head, "_system_config": FAST_DEATH, "include_dashboard": False},
        )
        self._workers: dict[str, object] = {}

    @property
    def address(self) -> str:
        return str(self._cluster.address)

    def add(self, kind: str) -> None:
        self._workers[kind] = self._cluster.add_node(
            num_cpus=self._worker_cpus,
            num_gpus=1,
            object_store_memory=STORE_BYTES,
            resources={f"accelerator_type:{kind}": 1},
            labels={"ray.io/accelerator-type": kind},
        )

    def kill(self, kind: str) -> None:
        self._cluster.remove_node(self._workers.pop(kind), allow_graceful=False)


def main() -> None:
    settings = json.loads(sys.argv[1])
    logging.getLogger("ray").setLevel(logging.ERROR)
    os.environ.setdefault("RAY_worker_niceness", "0")
    if "address" in settings:
        _say(settings["address"])
        _say(_serve(settings["address"], settings["args"]))
        sys.stdin.read()
        return
    # A node without CPUs takes models alone: what the application itself needs stays on the head.
    nodes = Nodes(0 if settings["args"] else 2)
    for kind in settings["kinds"]:
        nodes.add(kind)
    _say(nodes.address)
    _say(_serve(nodes.address, settings["args"]) if settings["args"] else "")
    for line in sys.stdin:
        verb, kind = line.split()
        getattr(nodes, verb)(kind)
        _say("done")


def _serve(address: str, args: dict[str, object]) -> str:
    port = free_port()
    quiet = LoggingConfig(log_level="ERROR")
    ray.init(address, log_to_driver=False, logging_level=logging.ERROR)
    http = HTTPOptions(host="127.0.0.1", port=port, request_timeout_s=3700)
    serve.start(http_options=http, logging_config=quiet)
    serve.run(build_app(AppArgs.model_validate(args)), name="tests", logging_config=quiet)
    return f"http://127.0.0.1:{port}"


def _say(text: str) -> None:
    sys.stdout.write(f"{text}\n")
    sys.stdout.flush()


if __name__ == "__main__":
    main()
