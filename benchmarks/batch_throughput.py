"""Throughput and overhead of batches, and how flat the driver's memory stays.

    python -m benchmarks.batch_throughput [--rows 10000] [--actors 1] [--seconds 0.05]

Two batches on a Ray of their own, with the cube model of the cluster tests and no assessment. Rows
that cost nothing show the overhead of a row: reading, checking, distributing, exporting, writing
mesh and manifest. Rows of a fixed time show how much of (one actor's rate x actors) is reached;
that time is slept, so that actors do not share CPUs with what is measured. The driver's resident
memory is sampled while rows end. Writes results/batch_throughput.json.
"""

from __future__ import annotations

import argparse
import tempfile
import time
from pathlib import Path
from typing import Any

import psutil

from benchmarks.environment import describe_machine, write_result
from dream_cad.mesh.export import resolve_format
from jobs.batch.attempts import create_tally
from jobs.batch.intake import take_in
from jobs.batch.manifest import Manifest
from jobs.batch.pipeline import run_pipeline
from jobs.batch.planning import Planner, plan_stages
from jobs.batch.pools import Pools
from jobs.batch.reading import open_source, read_records
from jobs.batch.rows import RowChecker
from jobs.batch.storage import Storage
from jobs.generate_batch import connected

MODULE = "benchmarks.steady_model"
_MIB = 2**20
_TARGETS = {"share_of_actors_rate": 0.95, "overhead_ms_a_row": 2.0}


def run_batch(rows: int, actors: int, seconds: float, folder: Path) -> dict[str, Any]:
    """Make ``rows`` rows of ``seconds`` each; returns the figures. Call it connected to Ray."""
    source = folder / "in.txt"
    source.write_text("".join(f"row {number}\n" for number in range(rows)))
    storage = Storage(str(folder / "out"))
    planner = Planner([], modules=(MODULE,))
    checker = RowChecker(planner.plan, "steady", ".", {"seconds": seconds})
    process = psutil.Process()
    started = time.perf_counter()
    work = take_in(read_records(open_source(str(source))), checker, storage, max_part_rows=64)
    taken_in = time.perf_counter()
    setup, _ = plan_stages(
        planner,
        "steady",
        work.by_model["steady"],
        storage=storage,
        format=resolve_format(None, "stl"),
        tally=create_tally(),
    )
    pools = Pools(model=actors, text=0, model_cpus=0.25, finisher_cpus=0.25)
    memory: list[float] = []
    first: tuple[float, int] | None = None
    done = 0
    for news in run_pipeline(setup, work.by_model["steady"], pools):
        done += news.completed
        memory.append(process.memory_info().rss / _MIB)
        if first is None:
            first = (time.perf_counter(), done)
    ended = time.perf_counter()
    Manifest(storage).join()
    joined = time.perf_counter()
    if first is None or done != rows:
        raise RuntimeError(f"{done} of {rows} rows were made.")
    steady_s = ended - first[0]
    rate = (done - first[1]) / steady_s
    middle = len(memory) // 2
    return {
        "rows": rows,
        "actors": actors,
        "seconds_a_row": seconds,
        "take_in_ms_a_row": round(1000 * (taken_in - started) / rows, 3),
        "until_the_first_block_s": round(first[0] - taken_in, 2),
        "rows_per_s": round(rate, 1),
        "join_ms_a_row": round(1000 * (joined - ended) / rows, 3),
        "driver_mib_middle": round(memory[middle]),
        "driver_mib_end": round(memory[-1]),
    }


def main() -> None:
    """Measure, print and record."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--rows", type=int, default=10_000)
    parser.add_argument("--actors", type=int, default=1)
    parser.add_argument("--seconds", type=float, default=0.05)
    options = parser.parse_args()
    machine = describe_machine()
    with tempfile.TemporaryDirectory() as folder, connected():
        empty = run_batch(options.rows, options.actors, 0.0, _made(Path(folder) / "empty"))
        count = max(options.rows // 10, 200)
        steady = run_batch(count, options.actors, options.seconds, _made(Path(folder) / "steady"))
    overhead = empty["take_in_ms_a_row"] + 1000 / empty["rows_per_s"] + empty["join_ms_a_row"]
    share = steady["rows_per_s"] * options.seconds / options.actors
    result = {
        "command": "python -m benchmarks.batch_throughput",
        "machine": machine,
        "targets": _TARGETS,
        "overhead_ms_a_row": round(overhead, 3),
        "share_of_actors_rate": round(share, 4),
        "no_work": empty,
        "fixed_time": steady,
    }
    print(result)
    print(write_result("batch_throughput", result))


def _made(folder: Path) -> Path:
    folder.mkdir()
    return folder


if __name__ == "__main__":
    main()
