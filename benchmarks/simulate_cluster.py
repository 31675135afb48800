"""A cluster of 1,000 GPUs and a million jobs on paper.

    python -m benchmarks.simulate_cluster [--jobs 1000000] [--gpus 1000]

Simulated clock, GPUs and jobs; the decisions are the product's own functions: the order of claims,
fair shares and ageing (dream_cad.queue.order, the same that the SQL claim calls), and replicas that
follow the queue (deployments.autoscaling.QueuePolicy with the defaults of serve_config.yaml). The
look-up of candidates is in memory, since a million durable claims take an hour: a test runs it
beside the SQLite queue on the same random traces and compares every claim. Not simulated: the text
stage, look-ahead (a slot's next job is claimed when it is free), failures, the milliseconds of a
claim. Seconds of jobs and loading are assumptions (benchmarks/simulation/workload.py).

Policies: the served cluster (lanes), workers that take any model and like the loaded one
(BatchProcessor), any GPU first-in first-out, and GPUs divided among models for ever, by the shares
of the whole run (which nobody knows beforehand). Every one gets the same jobs. Fairness is measured
in both that bursty run and a second one, a flood in which all owners wait for all models
throughout: Jain's index of received over due (benchmarks/simulation/fairness.py), the same for
every policy; beside it stands the figure used before, of GPU-seconds over weight. Writes
results/simulate_cluster.json.
"""

from __future__ import annotations

import argparse
import gc
import resource
import time
from collections.abc import Callable
from typing import Any

from benchmarks.environment import describe_machine, write_result
from benchmarks.simulation.engine import Cluster, Waiting
from benchmarks.simulation.line import Fifo as FifoLine
from benchmarks.simulation.line import Line
from benchmarks.simulation.policies import Fifo, Lanes, Static, Workers
from benchmarks.simulation.workload import MODELS, Load, make_flood, make_load, mean_seconds

POLICIES: dict[str, tuple[type[Cluster], bool]] = {
    "dream_cad, served": (Lanes, True),
    "dream_cad, workers": (Workers, True),
    "first-in first-out": (Fifo, False),
    "static partition": (Static, False),
}
TARGETS = {"utilisation_of_bound": 0.95, "jain": 0.95}
_FLOOD_SHARE = 0.2


def line_for(load: Load, *, is_ours: bool) -> Waiting:
    """Return an empty queue: ours, or a plain one."""
    return Line(load.weights) if is_ours else FifoLine()


def simulate(name: str, make: Callable[[], Load], gpus: int, ends_after: float) -> dict[str, Any]:
    """Run one policy over a load of its own and return its figures."""
    cluster, is_ours = POLICIES[name]
    load = make()
    started = time.process_time()
    record = cluster(load, line_for(load, is_ours=is_ours), gpus, ends_after).run()
    found = record.summary(gpus)
    found["jobs"] = len(load.jobs)
    found["cpu_s"] = round(time.process_time() - started, 1)
    del load, record
    gc.collect()
    return found


def judge(found: dict[str, Any]) -> dict[str, bool]:
    """Return which targets the served cluster meets; a job's length is that of the longest kind."""
    longest = max(seconds for seconds, _, _ in MODELS.values())
    served = found["dream_cad, served"]
    return {
        "utilisation": served["utilisation_of_bound"] >= TARGETS["utilisation_of_bound"],
        "urgent_p99_within_the_longest_job": served["wait_s"]["urgent"]["p99"] <= longest,
        "urgent_p99_within_the_mean_job": served["wait_s"]["urgent"]["p99"] <= mean_seconds(),
        "jain_in_a_flood": (served["flood"]["fairness"]["mean"] or 0.0) >= TARGETS["jain"],
        "jain_in_bursts": (served["fairness"]["mean"] or 0.0) >= TARGETS["jain"],
    }


def table(found: dict[str, Any]) -> str:
    """Return the figures as a Markdown table."""
    lines = [
        "| | of the bound | URGENT p50 / p99 | HIGH p99 | NORMAL p50 / p99 | LOW p99 "
        "| changes of model an hour | Jain in a flood / in bursts | all done after |",
        "|---|--:|--:|--:|--:|--:|--:|--:|--:|",
    ]
    for name in POLICIES:
        row = found[name]
        wait = row["wait_s"]
        lines.append(
            f"| {name} | {row['utilisation_of_bound']:.1%} | {_s(wait, 'urgent', 'p50')} / "
            f"{_s(wait, 'urgent', 'p99')} | {_s(wait, 'high', 'p99')} | "
            f"{_s(wait, 'normal', 'p50')} / {_s(wait, 'normal', 'p99')} | {_s(wait, 'low', 'p99')} "
            f"| {row['swaps_per_hour']:,} | {row['flood']['fairness']['mean'] or 0:.3f} / "
            f"{row['fairness']['mean'] or 0:.3f} "
            f"| {_end(row)} |"
        )
    return "\n".join(lines)


def _end(row: dict[str, Any]) -> str:
    hours = f"{row['makespan_h']:.2f} h"
    share = row["jobs_ended"] / row["jobs"]
    return hours if row["jobs_ended"] == row["jobs"] else f"{share:.0%} in {hours}"


def _s(wait: dict[str, Any], priority: str, which: str) -> str:
    value = wait[priority].get(which)
    return "-" if value is None else f"{value:,.1f} s"


def main() -> None:
    """Simulate, print and record."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--jobs", type=int, default=1_000_000)
    parser.add_argument("--gpus", type=int, default=1000)
    options = parser.parse_args()
    machine = describe_machine()
    flood = round(options.jobs * _FLOOD_SHARE)
    found = {}
    for name in POLICIES:
        row = simulate(name, lambda: make_load(options.jobs, options.gpus), options.gpus, 1.5)
        row["flood"] = simulate(name, lambda: make_flood(flood, options.gpus), options.gpus, 1.0)
        found[name] = row
        print(name, row, flush=True)
    result = {
        "command": "python -m benchmarks.simulate_cluster",
        "machine": machine,
        "jobs": options.jobs,
        "gpus": options.gpus,
        "flood_jobs": flood,
        "models": {
            name: {"seconds": seconds, "load_s": load_s, "share": share}
            for name, (seconds, load_s, share) in MODELS.items()
        },
        "targets_met": judge(found),
        "peak_rss_mib": round(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024),
        "policies": found,
    }
    path = write_result("simulate_cluster", result)
    print(table(found))
    print(result["targets_met"], path)


if __name__ == "__main__":
    main()
