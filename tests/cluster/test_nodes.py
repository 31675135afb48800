"""Several Ray nodes with fake GPUs of different kinds: machines die, nothing is lost or doubled."""

from __future__ import annotations

import contextlib
import json
import os
import sqlite3
import subprocess
import sys
from collections import Counter
from collections.abc import Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import pytest
from pyarrow import parquet

from tests.cluster.conftest import DEADLINE_S, Server, app_args, until

pytestmark = pytest.mark.long

KINDS = ("A10", "L4")
GPU_GB = 24.0  # of a fake GPU; tests.cluster.gpu_cube is for workers alone: it fakes the driver
FRESH = httpx.Limits(keepalive_expiry=1)
"""While a node dies, nothing is asked for longer than the server keeps an idle connection."""
MODULES = ["tests.cluster.gpu_cube"]


@dataclass
class Nodes:
    """A running cluster of several nodes."""

    process: subprocess.Popen[str]
    address: str
    url: str

    def do(self, verb: str, kind: str) -> None:
        """``add`` or ``kill`` a node; returns when Ray knows."""
        assert self.process.stdin is not None
        assert self.process.stdout is not None
        self.process.stdin.write(f"{verb} {kind}\n")
        self.process.stdin.flush()
        # Ray's own words on the death of a node come between.
        assert any(line == "done\n" for line in iter(self.process.stdout.readline, ""))


@contextmanager
def nodes(folder: Path, args: dict[str, Any] | None = None, **more: str) -> Iterator[Nodes]:
    """Run a head and a node of each kind until the end of the block."""
    settings = json.dumps({"kinds": KINDS, "args": args, **more})
    command = [sys.executable, "-W", "ignore", "-m", "tests.cluster.run_nodes", settings]
    environment = {k: v for k, v in os.environ.items() if not k.startswith(("DREAM_CAD_", "RAY_"))}
    with (
        (folder / "nodes.log").open("a") as log,
        subprocess.Popen(
            command,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=log,
            text=True,
            env={**environment, **({"RAY_AUTH_MODE": "disabled"} if more else {})},
        ) as process,
    ):
        assert process.stdin is not None
        assert process.stdout is not None
        address, url = (process.stdout.readline().strip() for _ in range(2))
        assert address, (folder / "nodes.log").read_text()[-3000:]
        yield Nodes(process, address, url)
        with contextlib.suppress(BrokenPipeError):  # a test may have killed it
            process.stdin.close()
        process.wait(60)


def lines(path: Path) -> int:
    return path.read_text().count("\n") if path.exists() else 0


def test_a_batch_goes_on_when_a_node_dies(tmp_path: Path) -> None:
    hold, log = tmp_path / "hold", tmp_path / "log"
    hold.touch()
    options = {"hold": str(hold), "log": str(log)}
    rows = [{"prompt": f"cube {number}", "options": options} for number in range(8)]
    source = tmp_path / "in.jsonl"
    source.write_text("".join(f"{json.dumps(row)}\n" for row in rows))
    command = [sys.executable, "-W", "ignore", "-m", "jobs.generate_batch", "--input", str(source)]
    command += ["--output", str(tmp_path / "out"), "--model", "gpu-cube", "--module", MODULES[0]]
    command += ["--gpu-memory-gb", str(GPU_GB), "--contact-sheet", "0"]
    with (
        nodes(tmp_path) as cluster,
        (tmp_path / "batch.log").open("w") as said,
        subprocess.Popen(
            command, env={**os.environ, "RAY_ADDRESS": cluster.address}, stderr=said
        ) as batch,
    ):
        # A row on the GPU of each node.
        until(lambda: batch.poll() is not None or lines(log) >= len(KINDS), "rows at work")
        assert batch.poll() is None, (tmp_path / "batch.log").read_text()[-3000:]
        begun = log.read_text().splitlines()
        cluster.do("kill", "A10")
        hold.unlink()
        assert batch.wait(DEADLINE_S) == 0, (tmp_path / "batch.log").read_text()[-3000:]
    manifest = parquet.read_table(tmp_path / "out" / "manifest.parquet").to_pylist()
    assert sorted(row["prompt"] for row in manifest) == sorted(str(row["prompt"]) for row in rows)
    assert {row["status"] for row in manifest} == {"completed"}
    assert len(list((tmp_path / "out" / "meshes").rglob("*.glb"))) == len(rows)
    made = Counter(log.read_text().splitlines())
    redone = {prompt for prompt, times in made.items() if times > 1}
    assert redone
    assert redone <= set(begun)


def serving_args(folder: Path, replicas: int = len(KINDS)) -> dict[str, Any]:
    models = [{"name": "gpu-cube", "num_replicas": replicas, "num_cpus": 0}]
    return app_args(folder, models=models, modules=MODULES, gpu_memory_gb=GPU_GB)


@contextmanager
def served(folder: Path) -> Iterator[tuple[Nodes, Server]]:
    with (
        nodes(folder, serving_args(folder)) as cluster,
        httpx.Client(base_url=cluster.url, timeout=DEADLINE_S, limits=FRESH) as client,
    ):
        until(lambda: client.get("/readyz").status_code == 200, "ready")
        server = Server(client, folder, None, cluster.process.pid)
        until(lambda: slots(server) == len(KINDS), "a slot on each node")
        yield cluster, server


def slots(server: Server) -> int:
    return int(server.client.get("/v1/cluster").json()["models"]["gpu-cube"]["slots"])


def check_each_ended_once(folder: Path, jobs: int) -> None:
    with closing(sqlite3.connect(folder / "jobs.sqlite3")) as database:
        ends = database.execute(
            "SELECT job_id, count(*) FROM job_events"
            " WHERE kind IN ('completed', 'failed', 'cancelled') GROUP BY job_id"
        ).fetchall()
    assert len(ends) == jobs
    assert {count for _, count in ends} == {1}
    assert len(list((folder / "outputs" / "jobs").glob("*/result.json"))) == jobs


def test_served_jobs_go_on_when_a_node_dies_and_when_all_do(tmp_path: Path) -> None:
    with served(tmp_path) as (cluster, server):
        hold = server.hold()
        running = [server.submit(f"held {n}", "urgent", hold=str(hold)) for n in range(2)]
        for job_id in running:
            server.until(job_id, "running", stage="holding")
        waiting = [server.submit(f"behind {n}") for n in range(6)]
        cluster.do("kill", "A10")
        # One of the two was on that node: it waits for the GPU that is left.
        until(lambda: "pending" in {server.get(job)["status"] for job in running}, "back in line")
        hold.unlink()
        jobs = [server.ended(job_id) for job_id in [*running, *waiting]]
        assert {job["status"] for job in jobs} == {"completed"}
        assert sorted(job["attempts"] for job in jobs[:2]) == [1, 2]
        cluster.do("add", "A10")
        until(lambda: slots(server) == len(KINDS), "the new node serves")
        check_each_ended_once(tmp_path, len(jobs))
        again = server.hold()
        held = [server.submit(f"before the end {n}", hold=str(again)) for n in range(4)]
        server.until(held[0], "running", stage="holding")
        server.kill_everything()
    # The queue is all that is left: a new cluster, head and all, takes it up.
    again.unlink()
    with served(tmp_path) as (_, server):
        assert {server.ended(job_id)["status"] for job_id in held} == {"completed"}
        assert server.get(held[0])["attempts"] == 2
    check_each_ended_once(tmp_path, len(jobs) + len(held))
