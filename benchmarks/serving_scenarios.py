"""What benchmarks/serving.py does to a running server, one function a figure."""

from __future__ import annotations

import json
import random
import statistics
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from sqlalchemy import create_engine, text

from benchmarks.serving_cluster import Cluster, wait_ready
from benchmarks.serving_load import Request, Target, percentiles, rate_of, time_requests
from dream_cad.queue import JobQueue
from dream_cad.queue.database import with_driver

CALLERS = 8
BATCH = 10_000
_TRIAL_WORK_S = 0.02
_PATIENCE_S = 600.0


def _job(number: int) -> dict[str, Any]:
    return {"prompt": f"a cube, number {number}", "use_cache": False}


BARE = Request("POST", "/bare/run", _job)
ECHO = Request("POST", "/bare/echo", _job)
HEALTH = Request("GET", "/healthz", lambda _: None)
GENERATE = Request("POST", "/v1/generate", _job)
SUBMIT = Request("POST", "/v1/jobs", _job, 202)


def warm_up(target: Target) -> None:
    """Let every part of the way run a few times."""
    for request in (BARE, GENERATE, SUBMIT):
        time_requests(target, request, 40)
    wait_until_empty(target)


def measure_latency(target: Target, rounds: int, requests: int) -> dict[str, Any]:
    """Return ms of bare calls and of durable jobs, one caller, in turns."""
    bare: list[float] = []
    durable: list[float] = []
    for _ in range(rounds):
        bare += time_requests(target, BARE, requests)
        durable += time_requests(target, GENERATE, requests)
    found: dict[str, Any] = {"bare": percentiles(bare), "durable": percentiles(durable)}
    for name in ("p50_ms", "p99_ms"):
        found[f"added_{name}"] = round(found["durable"][name] - found["bare"][name], 2)
    stages = _timings(target)
    # What the stages themselves take (export, preview, publishing) is no cost of the dispatch.
    beyond = found["added_p50_ms"] - 1000 * sum(stages.values())
    return {**found, "stages_of_a_job_s": stages, "added_beyond_stages_p50_ms": round(beyond, 2)}


def _timings(target: Target) -> dict[str, float]:
    jobs = json.loads(target.get("/v1/jobs?status=completed&limit=100")[1])["jobs"]
    names = {name for job in jobs for name in job["timings"]}
    return {
        name: statistics.median(job["timings"].get(name, 0.0) for job in jobs)
        for name in sorted(names)
    }


def measure_rates(target: Target, seconds: float, rounds: int) -> dict[str, Any]:
    """Return requests a second of eight callers: bare, echoes, durable jobs, accepts.

    The echo of a submit is a POST of the same body: Serve's proxy spends more than twice the time
    on a request with a body (7 ms of CPU against 3), so a GET of the gateway is told apart.
    """
    rates: dict[str, list[float]] = {}
    for _ in range(rounds):
        for name, request in (("bare", BARE), ("echo", ECHO), ("completed", GENERATE)):
            rates.setdefault(name, []).append(rate_of(target, request, seconds, CALLERS))
        # Nothing starts meanwhile: accepts alone.
        target.post("/v1/admin/pause", {})
        rates.setdefault("get", []).append(rate_of(target, HEALTH, seconds, CALLERS))
        rates.setdefault("accepts", []).append(rate_of(target, SUBMIT, seconds, CALLERS))
        waiting = _waiting(target)
        target.post("/v1/admin/resume", {})
        start = time.monotonic()
        wait_until_empty(target)
        rates.setdefault("completed_unwatched", []).append(waiting / (time.monotonic() - start))
    found: dict[str, Any] = {
        f"{name}_per_s": round(statistics.median(all_of), 1) for name, all_of in rates.items()
    }
    found["accepts_over_echo"] = _ratio(rates, "accepts", "echo")
    found["accepts_over_get"] = _ratio(rates, "accepts", "get")
    found["completed_over_bare"] = _ratio(rates, "completed", "bare")
    found["completed_unwatched_over_bare"] = _ratio(rates, "completed_unwatched", "bare")
    return found


def _ratio(rates: dict[str, list[float]], name: str, base: str) -> float:
    """Return the median of the ratios of the rounds."""
    pairs = zip(rates[name], rates[base], strict=True)
    return round(statistics.median(ours / theirs for ours, theirs in pairs), 3)


def _waiting(target: Target) -> int:
    depth = json.loads(target.get("/v1/cluster")[1])["depth"]
    return sum(entry["count"] for entry in depth)


def wait_until_empty(target: Target) -> None:
    """Wait until nothing waits or runs."""
    deadline = time.monotonic() + _PATIENCE_S
    while True:
        cluster = json.loads(target.get("/v1/cluster")[1])
        running = sum(model["running"] for model in cluster["models"].values())
        if not cluster["depth"] and running == 0:
            return
        if time.monotonic() > deadline:
            raise RuntimeError("the queue does not become empty")
        time.sleep(0.05)


@dataclass(frozen=True)
class Start:
    """A line of the model's log."""

    at: float
    work_s: float
    prompt: str


def read_starts(log: Path) -> list[Start]:
    """Return the starts that the model has noted, in order."""
    if not log.exists():
        return []
    rows = [line.split(" ", 2) for line in log.read_text().splitlines()]
    return [Start(float(row[0]), float(row[1]), row[2]) for row in rows if len(row) == 3]


def measure_priority(target: Target, folder: Path, trials: int) -> dict[str, Any]:
    """Submit urgent jobs into a queue full of low ones; count low jobs that start before them.

    A low job that starts after the urgent one's 202 has arrived here, and before it, is an
    inversion.
    """
    log = folder / "priority.log"
    options = {"work_s": _TRIAL_WORK_S, "log": str(log)}
    low = {"options": options, "priority": "low", "prompts": ["low"] * BATCH, "use_cache": False}
    target.post("/v1/batches", low)
    waits, inversions = [], 0
    chance = random.Random(0)
    _wait_for_start(log, "low")
    for trial in range(trials):
        prompt = f"urgent {trial}"
        body = {"prompt": prompt, "priority": "urgent", "options": options, "use_cache": False}
        target.post("/v1/jobs", body)
        accepted = time.monotonic()
        start = _wait_for_start(log, prompt)
        between = [one for one in read_starts(log) if accepted < one.at < start]
        inversions += bool(between)
        waits.append((start - accepted) * 1000)
        time.sleep(chance.uniform(0, 2 * _TRIAL_WORK_S))
        if trial % 100 == 99:
            log.write_text("")
            if _waiting(target) < BATCH // 4:
                target.post("/v1/batches", low)
    cancel_all(target)
    return {
        "trials": trials,
        "inversions": inversions,
        "work_s": _TRIAL_WORK_S,
        "urgent_starts_after": percentiles(waits),
    }


def _wait_for_start(log: Path, prompt: str) -> float:
    deadline = time.monotonic() + _PATIENCE_S
    while time.monotonic() < deadline:
        for start in reversed(read_starts(log)):
            if start.prompt == prompt:
                return start.at
        time.sleep(0.005)
    raise RuntimeError(f"{prompt!r} does not start")


def cancel_all(target: Target) -> None:
    """Cancel what waits."""
    page = json.loads(target.get("/v1/jobs?status=pending&limit=200")[1])["jobs"]
    while page:
        for batch in {job["batch"] for job in page if job["batch"]}:
            target.call("DELETE", f"/v1/batches/{batch}")
        for job in page:
            if not job["batch"]:
                target.call("DELETE", f"/v1/jobs/{job['id']}")
        page = json.loads(target.get("/v1/jobs?status=pending&limit=200")[1])["jobs"]
    wait_until_empty(target)


_UNENDED = text("SELECT count(*) FROM jobs WHERE owner = :small AND completed_at IS NULL")
_SPENT = text("""
SELECT owner, count(*), sum(gpu_seconds) FROM jobs
WHERE owner IN (:flood, :small)
    AND completed_at <= (SELECT max(completed_at) FROM jobs WHERE owner = :small)
GROUP BY owner
""")


def measure_fairness(cluster: Cluster, url: str) -> dict[str, Any]:
    """One key floods with long jobs, another sends a hundredth of them, short ones.

    The share is of measured GPU-seconds, from the flood's first job to the small key's last.
    """
    queue = JobQueue(url)
    keys = {name: queue.keys.create_key(name) for name in ("flood", "small")}
    queue.close()
    owners = {name: key.id for name, (key, _) in keys.items()}
    while cluster.target().get("/v1/jobs?limit=1")[0] == 200:
        time.sleep(0.1)  # until the gateway has seen that there are keys now
    work = {"flood": (0.09, BATCH), "small": (0.03, BATCH // 100)}
    for name, (_, plaintext) in keys.items():
        seconds, number = work[name]
        body = {"prompts": [name] * number, "options": {"work_s": seconds}, "use_cache": False}
        cluster.target(plaintext).post("/v1/batches", body)
    deadline = time.monotonic() + _PATIENCE_S
    engine = create_engine(with_driver(url))
    with engine.connect().execution_options(isolation_level="AUTOCOMMIT") as connection:
        while connection.execute(_UNENDED, {"small": owners["small"]}).scalar():
            if time.monotonic() > deadline:
                raise RuntimeError("the small key's jobs do not end")
            time.sleep(0.2)
        rows = {row[0]: row for row in connection.execute(_SPENT, owners)}
    engine.dispose()
    spent = {name: float(rows[owner][2]) for name, owner in owners.items()}
    return {
        "jobs": {name: number for name, (_, number) in work.items()},
        "work_s": {name: seconds for name, (seconds, _) in work.items()},
        "completed": {name: int(rows[owner][1]) for name, owner in owners.items()},
        "gpu_seconds": {name: round(seconds, 2) for name, seconds in spent.items()},
        "small_share": round(spent["small"] / sum(spent.values()), 3),
    }


def measure_deep_queue(cluster: Cluster, target: Target, jobs: int) -> dict[str, Any]:
    """Fill the queue by batches of 10,000; then kill the router and wait for the next."""
    target.post("/v1/admin/pause", {})
    memory, rates = [cluster.memory_mib("router")], []
    body = {"priority": "low", "use_cache": False}
    for number in range(jobs // BATCH):
        prompts = [f"a chair, variant {number * BATCH + index}" for index in range(BATCH)]
        start = time.monotonic()
        target.post("/v1/batches", {**body, "prompts": prompts})
        rates.append(BATCH / (time.monotonic() - start))
        memory.append(cluster.memory_mib("router"))
    accept = percentiles(time_requests(target, SUBMIT, 100, first=10_000_000))
    found = {
        "jobs": jobs,
        "batch_accepts_per_s": round(statistics.median(rates)),
        "batch_accepts_per_s_worst": round(min(rates)),
        "single_accept": accept,
        "router_mib": memory,
        "router_growth_after_first_batch": round(memory[-1] / memory[1], 3),
    }
    cluster.kill("router")
    start = time.monotonic()
    time.sleep(0.5)  # the dead one's last answers are not the next one's first
    while target.get("/v1/jobs?limit=1")[0] != 200:
        time.sleep(0.02)
    found["answers_after_kill_s"] = round(time.monotonic() - start, 2)
    wait_ready(target)
    found["ready_after_kill_s"] = round(time.monotonic() - start, 2)
    return found
