"""Claims from a deep queue, and accepts a second, on SQLite and PostgreSQL.

    python -m benchmarks.queue_claims [--jobs 100000] [--claims 1000]

Three owners of equal weight with a third of the jobs each. A claim is one transaction; on
SQLite it need not wait for the disk (a power cut that undoes it leaves the job waiting), on
PostgreSQL it does. Baseline of the same run: a transaction that sets a switch (two upserts), which
is what any durable step costs on this machine. PostgreSQL is started for the run (Debian's
binaries) with fsync on. Writes results/queue_claims.json.
"""

from __future__ import annotations

import argparse
import resource
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from benchmarks.environment import describe_machine, write_result
from dream_cad.queue import GenerationJob, JobPriority, JobQueue
from tests.postgres import PostgresServer, find_binaries

BATCH = 10_000
GROUP = 64
OWNERS = ("key-a", "key-b", "key-c")
LIMIT_P99_MS = 5.0


def make_jobs(number: int, owner: str) -> list[GenerationJob]:
    """Return jobs of all priorities in turn."""
    priorities = list(JobPriority)
    return [
        GenerationJob(
            prompt=f"a wooden chair, variant {index}",
            model_name="triposr",
            priority=priorities[index % len(priorities)],
            owner=owner,
            config={"seed": index},
        )
        for index in range(number)
    ]


def time_each(verb: Callable[[], object], times: int, share: int = 1) -> dict[str, float]:
    """Return p50, p99 and the worst of a call in ms, and the median of its CPU time here.

    Args:
        verb: what to call.
        times: how often.
        share: things that one call does; the times are those of one thing.
    """
    wall, cpu = [], []
    for _ in range(times):
        start, cpu_start = time.perf_counter(), time.process_time()
        verb()
        cpu.append((time.process_time() - cpu_start) * 1000 / share)
        wall.append((time.perf_counter() - start) * 1000 / share)
    wall.sort()
    return {
        "p50_ms": round(wall[len(wall) // 2], 3),
        "p99_ms": round(wall[int(len(wall) * 0.99)], 3),
        "max_ms": round(wall[-1], 3),
        "cpu_p50_ms": round(sorted(cpu)[len(cpu) // 2], 3),
    }


def claims_in_groups(queue: JobQueue, times: int) -> dict[str, float]:
    """Return ms a claim where ``GROUP`` share a commit, as the router's database thread does."""

    def claim_group() -> None:
        with queue.grouped():
            for _ in range(GROUP):
                queue.get_next_job("triposr")

    return time_each(claim_group, max(times // GROUP, 2), GROUP)


def rate(verb: Callable[[], object], number: int) -> float:
    """Return how many of ``number`` things a second ``verb`` does."""
    start = time.perf_counter()
    verb()
    return round(number / (time.perf_counter() - start))


def add_in_groups(queue: JobQueue) -> None:
    """Add 2,000 jobs, 64 to a commit."""
    new_jobs = make_jobs(2000, OWNERS[0])
    for begin in range(0, len(new_jobs), GROUP):
        queue.add_each(new_jobs[begin : begin + GROUP])


def measure(url: str, jobs: int, claims: int) -> dict[str, Any]:
    """Measure one database."""
    queue = JobQueue(url)
    accepts = {
        "batch_of_10000_per_s": rate(
            lambda: queue.add_batch(make_jobs(BATCH, OWNERS[0]), owner=OWNERS[0]), BATCH
        ),
        "groups_of_64_per_s": rate(lambda: add_in_groups(queue), 2000),
    }
    for owner in OWNERS:
        queue.add_jobs(make_jobs(jobs // len(OWNERS), owner))
    queue.get_next_job("triposr")  # compiles the statements
    result: dict[str, Any] = {
        "accepts": accepts,
        "durable_step": time_each(lambda: queue.pause("nobody"), 200),
        "claim": time_each(lambda: queue.get_next_job("triposr"), claims),
        "claim_of_any_model": time_each(queue.get_next_job, claims // 4),
        "claim_in_group": claims_in_groups(queue, claims),
        "depth": time_each(queue.depth, 10),
    }
    queue.close()
    start = time.perf_counter()
    queue = JobQueue(url)
    taken_back = len(queue.recover())
    result["reopen_and_recover_s"] = round(time.perf_counter() - start, 3)
    result["recovered_jobs"] = taken_back
    queue.close()
    result["is_within_limit"] = result["claim"]["p99_ms"] <= LIMIT_P99_MS
    return result


def main() -> None:
    """Measure, print and record."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--jobs", type=int, default=100_000)
    parser.add_argument("--claims", type=int, default=1000)
    options = parser.parse_args()
    machine = describe_machine()
    found = {}
    with tempfile.TemporaryDirectory() as folder:
        found["sqlite"] = measure(
            f"sqlite:///{Path(folder) / 'jobs.sqlite3'}", options.jobs, options.claims
        )
    binaries = find_binaries()
    if binaries is not None:
        with PostgresServer(binaries, fsync=True) as server:
            url = server.create_database("queue_claims")
            found["postgresql"] = measure(url, options.jobs, options.claims)
    result = {
        "command": "python -m benchmarks.queue_claims",
        "machine": machine,
        "pending_jobs": options.jobs,
        "limit_p99_ms": LIMIT_P99_MS,
        "peak_rss_mib": round(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024),
        **found,
    }
    path = write_result("queue_claims", result)
    for name, row in found.items():
        print(f"{name}: claim {row['claim']}, accepts {row['accepts']}")
    print(path)


if __name__ == "__main__":
    main()
