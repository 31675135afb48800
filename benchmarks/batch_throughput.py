"""Throughput of batches, what a row costs, what a kill costs, and the driver's memory.

    python -m benchmarks.batch_throughput [--only overhead rate kill memory] [--rows 1000000]

Batches with a model of fixed CPU cost on a Ray of their own, meshes not assessed:

- overhead: 10,000 rows that cost the model nothing: reading, checking, distributing, exporting,
  writing mesh and manifest, joining. As stl (the smallest writer) and as glb (the default).
- rate: rows of fixed CPU time (no sleep) against what one process makes that does nothing else,
  measured alone before and after, times the actors: rows of 0.1 s, and of 0.5 s, which the nano
  models take. On one actor less than there are cores, which leaves Ray, the driver and the
  finishers a core as the CPUs of a GPU machine do; and on as many, where all of these take their
  time from the actors.
- kill: ``jobs.generate_batch`` killed (SIGKILL, all of its Ray too) and run again; rows that the
  model made twice by its own count, against two blocks an actor.
- memory: a million rows that end without a mesh; resident memory of the driver as rows are read
  and as rows end, and what the same ids take in Python's own set.

Writes results/batch_throughput.json; parts measured apart keep their own machine and time.
"""

from __future__ import annotations

import argparse
import json
import os
import tempfile
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

from benchmarks.batch_kill import measure_kills
from benchmarks.batch_memory import measure_memory
from benchmarks.batch_runs import MODULE, BatchShape, plain_rate, run_batch
from benchmarks.environment import RESULTS, describe_machine, write_result
from deployments.process import import_modules
from jobs.generate_batch import connected

TARGETS = {
    "share_of_actors_rate": 0.95,
    "overhead_ms_a_row": 2.0,
    "rows_made_twice_over_two_blocks_an_actor": 1.0,
    "driver_growth_mib_a_million_rows": 64.0,
}
_NAME = "batch_throughput"
_OVERHEAD_ROWS = 10_000
_RATE_S = 30.0
_PLAIN_S = 6.0
_COSTS_S = (0.1, 0.5)
_UNSTEADY = 0.03
"""If one actor's rate before and after differ by more, others used the machine: not judged."""


def measure_overhead(folder: Path, _: argparse.Namespace) -> dict[str, Any]:
    """Return what a row costs that costs the model nothing."""
    found = {}
    with connected():
        for name in ("stl", "glb"):
            run = run_batch(BatchShape(_OVERHEAD_ROWS, format=name), _made(folder / name))
            parts = ("take_in_ms_a_row", "pipeline_ms_a_row", "join_ms_a_row")
            run["overhead_ms_a_row"] = round(sum(run[part] for part in parts), 4)
            found[name] = run
    return found


def measure_rate(folder: Path, _: argparse.Namespace) -> dict[str, Any]:
    """Return the share of (one actor's rate x actors) that batches reach, by what a row costs."""
    with connected():
        return {f"{cost:g} s": _rate_at(cost, _made(folder / f"{cost:g}")) for cost in _COSTS_S}


def _rate_at(cpu_s: float, folder: Path) -> dict[str, Any]:
    cores = len(os.sched_getaffinity(0))
    alone = partial(plain_rate, 1, round(_PLAIN_S / cpu_s), cpu_s)
    before = alone()
    batches = {}
    for actors in sorted({max(cores - 1, 1), cores}):
        shape = BatchShape(round(_RATE_S / cpu_s) * actors, {"cpu_s": cpu_s}, actors)
        batches[actors] = run_batch(shape, _made(folder / str(actors)))
    after = alone()
    one = (before + after) / 2
    return {
        "cores": cores,
        "is_steady": abs(after - before) <= _UNSTEADY * one,
        "one_actor_rows_per_s": {"before": round(before, 3), "after": round(after, 3)},
        "batches": [
            {"share_of_actors_rate": round(batch["rows_per_s"] / (one * actors), 4), **batch}
            for actors, batch in batches.items()
        ],
    }


PARTS: dict[str, Callable[[Path, argparse.Namespace], dict[str, Any]]] = {
    "overhead": measure_overhead,
    "rate": measure_rate,
    "kill": lambda folder, options: measure_kills(folder, options.kills),
    "memory": lambda folder, options: measure_memory(folder, options.rows),
}


def judge(parts: dict[str, Any]) -> dict[str, bool]:
    """Return which targets are met, of the parts that were measured."""
    met = {}
    if "overhead" in parts:
        for name in ("stl", "glb"):
            cost = parts["overhead"][name]["overhead_ms_a_row"]
            met[f"overhead_{name}"] = cost <= TARGETS["overhead_ms_a_row"]
    if "rate" in parts:
        for cost, rate in _rates(parts):
            for batch in rate["batches"]:
                share = batch["share_of_actors_rate"]
                is_met = rate["is_steady"] and share >= TARGETS["share_of_actors_rate"]
                met[f"rate_{batch['actors']}_actors_{cost}"] = is_met
    if "kill" in parts:
        limit = TARGETS["rows_made_twice_over_two_blocks_an_actor"]
        met["kill"] = all(
            run["rows_made_twice"] <= limit * run["rows_allowed"]
            and run["ended_twice"] == run["missing"] == 0
            for run in parts["kill"]["runs"]
        )
    if "memory" in parts:
        growth = parts["memory"]["growth_mib_a_million_rows"]
        met["memory"] = growth <= TARGETS["driver_growth_mib_a_million_rows"]
    return met


def _rates(parts: dict[str, Any]) -> list[tuple[str, dict[str, Any]]]:
    return [(cost, rate) for cost, rate in parts["rate"].items() if cost != "machine"]


def table(parts: dict[str, Any]) -> str:
    """Return the figures as a Markdown table."""
    lines = ["| | measured | target |", "|---|--:|--:|"]
    if "rate" in parts:
        lines.extend(
            f"| of (one actor's rate x {batch['actors']} actors), rows of {cost} "
            f"| {batch['share_of_actors_rate']:.1%} | 95% |"
            for cost, rate in _rates(parts)
            for batch in rate["batches"]
        )
    if "overhead" in parts:
        for name in ("stl", "glb"):
            run = parts["overhead"][name]
            cost = f"{run['overhead_ms_a_row']:.2f} ms"
            lines.append(f"| a row of {run['rows']:,}, as {name} | {cost} | 2 ms |")
    if "kill" in parts:
        lines += [
            f"| rows made twice, killed at {run['ended_before']} of {run['rows']} "
            f"| {run['rows_made_twice']} | {run['rows_allowed']} |"
            for run in parts["kill"]["runs"]
        ]
    if "memory" in parts:
        memory = parts["memory"]
        growth = f"{memory['growth_mib_a_million_rows']:.0f} MiB"
        lines.append(f"| driver, a million rows ({memory['rows']:,} made) | {growth} | 64 MiB |")
    return "\n".join(lines)


def main() -> None:
    """Measure, print and record."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--only", nargs="+", choices=list(PARTS), default=list(PARTS))
    parser.add_argument("--rows", type=int, default=1_000_000, help="of the part memory")
    parser.add_argument("--kills", type=int, default=3)
    options = parser.parse_args()
    import_modules((MODULE,))
    path = RESULTS / f"{_NAME}.json"
    parts = json.loads(path.read_text())["parts"] if path.exists() else {}
    with tempfile.TemporaryDirectory() as folder:
        for name in options.only:
            machine = describe_machine()
            parts[name] = {**PARTS[name](_made(Path(folder) / name), options), "machine": machine}
            print(name, parts[name], flush=True)
            result = {
                "command": f"python -m benchmarks.{_NAME}",
                "targets": TARGETS,
                "targets_met": judge(parts),
                "parts": parts,
            }
            write_result(_NAME, result)
    print(table(parts))
    print(judge(parts), path)


def _made(folder: Path) -> Path:
    folder.mkdir()
    return folder


if __name__ == "__main__":
    main()
