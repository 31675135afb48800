"""The driver's memory over a million rows: for batch_throughput.py."""

from __future__ import annotations

import hashlib
import time
from pathlib import Path
from typing import Any

import psutil

from benchmarks.batch_runs import BatchShape, run_batch
from jobs.batch.ids import IdSet
from jobs.generate_batch import connected

_MIB = 2**20
_PART_ROWS = 512


def measure_memory(folder: Path, rows: int) -> dict[str, Any]:
    """Return resident memory over the rows, and its growth from the first tenth to the last."""
    ids = measure_ids(rows)
    started = time.perf_counter()
    with connected():
        shape = BatchShape(rows, {"empty": True}, max_part_rows=_PART_ROWS)
        run = run_batch(shape, folder)
    growth = _growth(run["driver_rss_mib_reading"]) + _growth(run["driver_rss_mib_making"])
    return {
        "rows": rows,
        "seconds": round(time.perf_counter() - started, 1),
        "max_part_rows": _PART_ROWS,
        "growth_mib_reading": round(_growth(run["driver_rss_mib_reading"]), 1),
        "growth_mib_making": round(_growth(run["driver_rss_mib_making"]), 1),
        "growth_mib_a_million_rows": round(growth * 1e6 / rows, 1),
        "ids": ids,
        "batch": run,
    }


def measure_ids(count: int) -> dict[str, Any]:
    """Return what the ids of rows take: in IdSet, and in the Python set that it replaced."""
    texts = (hashlib.md5(b"%d" % n, usedforsecurity=False).hexdigest() for n in range(count))
    process = psutil.Process()
    before, started = process.memory_info().rss, time.perf_counter()
    with IdSet() as ours:
        ours.update(texts)
        compact = process.memory_info().rss - before
        compact_s = time.perf_counter() - started
    before, started = process.memory_info().rss, time.perf_counter()
    plain = {hashlib.md5(b"%d" % n, usedforsecurity=False).digest() for n in range(count)}
    grown = process.memory_info().rss - before
    return {
        "count": len(plain),
        "id_set_mib": round(compact / _MIB, 1),
        "id_set_us_each": round(1e6 * compact_s / count, 2),
        "python_set_mib": round(grown / _MIB, 1),
        "python_set_us_each": round(1e6 * (time.perf_counter() - started) / count, 2),
    }


def _growth(samples: list[tuple[int, float]]) -> float:
    """Return MiB from the second sample (buffers are warm then) to the largest after it."""
    return max(rss for _, rss in samples[1:]) - samples[1][1]
