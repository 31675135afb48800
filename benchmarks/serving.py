"""Serving figures: latency, accepts, completions, a deep queue, priority, fair shares.

    python -m benchmarks.serving [--quick] [--databases sqlite postgresql] [--no-outside]

A model that does nothing, on this machine's CPUs, on SQLite and on a PostgreSQL started for the
run (Debian's binaries, fsync on). Baselines of the same run, measured in turns with ours: a bare
Serve deployment (HTTP -> handle), an echo of the
same body, the gateway answering by itself (GET /healthz), and outside: LitServe
and FastAPI + Celery on a Redis that flushes each write, doing the same durable work (in a virtual
environment that the benchmark makes under build/). Writes results/serving.json.
"""

from __future__ import annotations

import argparse
import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from benchmarks import serving_scenarios as scenarios
from benchmarks.environment import describe_machine, write_result
from benchmarks.queue_claims import time_each
from benchmarks.serving_cluster import start_cluster
from benchmarks.serving_outside import measure_celery, measure_litserve
from dream_cad.queue import JobQueue
from dream_cad.queue.keys import SCOPES
from tests.postgres import PostgresServer, find_binaries

LIMITS: dict[str, tuple[str, float]] = {
    "latency.added_p50_ms": ("<=", 10.0),
    "latency.added_p99_ms": ("<=", 25.0),
    "rates.accepts_over_echo": (">=", 0.6),
    "rates.completed_over_bare": (">=", 0.6),
    "deep_queue.batch_accepts_per_s": (">=", 5000.0),
    "claim.p99_ms": ("<=", 5.0),
    "deep_queue.router_growth_after_first_batch": ("<=", 1.1),
    "deep_queue.ready_after_kill_s": ("<=", 5.0),
    "priority.inversions": ("<=", 0),
    "fairness.small_share": (">=", 0.45),
}


def measure(url: str, folder: Path, *, quick: bool) -> dict[str, Any]:
    """Measure everything on one database."""
    found: dict[str, Any] = {"load_averages": {}}

    def note(name: str, figures: dict[str, Any]) -> None:
        load = round(os.getloadavg()[0], 2)
        found[name], found["load_averages"][name] = figures, load
        print(f"{name} (load {load}): {figures}", flush=True)

    with start_cluster(url, folder) as cluster:
        target = cluster.target()
        scenarios.warm_up(target)
        note("latency", scenarios.measure_latency(target, 2 if quick else 5, 50))
        note("rates", scenarios.measure_rates(target, 3.0, 1 if quick else 3))
        note("priority", scenarios.measure_priority(target, folder, 50 if quick else 1000))
        note("fairness", scenarios.measure_fairness(cluster, url))
        admin = cluster.target(_admin_key(url))
        scenarios.cancel_all(admin)
        jobs = 20_000 if quick else 100_000
        note("deep_queue", scenarios.measure_deep_queue(cluster, admin, jobs))
    note("claim", measure_claims(url))
    return found


def measure_claims(url: str) -> dict[str, float]:
    """Return ms a claim from the deep queue that the server left behind."""
    queue = JobQueue(url)
    queue.resume()
    queue.get_next_job("noop")  # compiles the statements
    found = time_each(lambda: queue.get_next_job("noop"), 1000)
    queue.close()
    return found


def _admin_key(url: str) -> str:
    queue = JobQueue(url)
    _, plaintext = queue.keys.create_key("admin", scopes=SCOPES)
    queue.close()
    return plaintext


@contextmanager
def database(name: str, folder: Path) -> Iterator[str]:
    """Give the URL of a fresh database."""
    if name == "sqlite":
        yield f"sqlite:///{folder / 'jobs.sqlite3'}"
        return
    binaries = find_binaries()
    if binaries is None:
        raise RuntimeError("PostgreSQL is not installed (Debian: postgresql).")
    with PostgresServer(binaries, fsync=True) as server:
        yield server.create_database("serving")


def verdicts(found: dict[str, Any]) -> dict[str, bool]:
    """Say of each figure whether it is within its limit."""
    return {
        name: value <= limit if sign == "<=" else value >= limit
        for name, (sign, limit) in LIMITS.items()
        if (value := figure(found, name)) is not None
    }


def figure(found: dict[str, Any], name: str) -> float | None:
    """Return one figure by its dotted name."""
    section, _, key = name.partition(".")
    value: float | None = found.get(section, {}).get(key)
    return value


def print_table(result: dict[str, Any]) -> None:
    """Print the figures beside their limits."""
    names = [name for name in ("sqlite", "postgresql") if name in result]
    print(f"{'figure':45}{'limit':>10}" + "".join(f"{name:>14}" for name in names))
    for row, (sign, limit) in LIMITS.items():
        cells = "".join(f"{figure(result[name], row)!s:>14}" for name in names)
        print(f"{row:45}{sign + str(limit):>10}{cells}")
    for name in ("litserve", "celery"):
        if name in result:
            print(f"{name}: {result[name]}")


def main() -> None:
    """Measure, print and record."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--quick", action="store_true", help="few repetitions; writes no file")
    parser.add_argument("--databases", nargs="+", default=["sqlite", "postgresql"])
    parser.add_argument("--no-outside", action="store_true")
    options = parser.parse_args()
    result: dict[str, Any] = {
        "command": "python -m benchmarks.serving",
        "machine": describe_machine(),
        "limits": {name: f"{sign} {limit}" for name, (sign, limit) in LIMITS.items()},
    }
    for name in options.databases:
        with tempfile.TemporaryDirectory() as folder, database(name, Path(folder)) as url:
            result[name] = measure(url, Path(folder), quick=options.quick)
        result[name]["within_limit"] = verdicts(result[name])
    if not options.no_outside:
        requests = 50 if options.quick else 250
        with tempfile.TemporaryDirectory() as folder:
            result["litserve"] = measure_litserve(Path(folder), 3.0, requests)
            result["celery"] = measure_celery(Path(folder), 3.0, requests)
    print_table(result)
    if not options.quick:
        print(write_result("serving", result))


if __name__ == "__main__":
    main()
