"""Single batches with the steady model, timed from inside: for batch_throughput.py."""

from __future__ import annotations

import multiprocessing
import time
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import psutil

from benchmarks.steady_model import SteadyModel
from dream_cad.mesh.export import resolve_format
from jobs.batch.attempts import SharedTally
from jobs.batch.intake import Work, take_in
from jobs.batch.manifest import Manifest
from jobs.batch.pipeline import run_pipeline
from jobs.batch.planning import Planner, plan_stages
from jobs.batch.pools import Pools
from jobs.batch.reading import open_source, read_records
from jobs.batch.rows import RowChecker
from jobs.batch.storage import Storage

MODULE = "benchmarks.steady_model"
MODEL = "steady"
_MIB = 2**20
_SAMPLES = 10


@dataclass(frozen=True)
class BatchShape:
    """One batch.

    Attributes:
        rows: of the input.
        options: of the model, for every row.
        actors: of the model.
        max_part_rows: most rows of a part.
        format: of the meshes.
    """

    rows: int
    options: dict[str, Any] = field(default_factory=dict)
    actors: int = 1
    max_part_rows: int = 64
    format: str = "stl"


class Memory:
    """Resident memory of this process over the rows that have ended."""

    def __init__(self, rows: int) -> None:
        self._process = psutil.Process()
        self._step = max(rows // _SAMPLES, 1)
        self._next = 0
        self.samples: list[tuple[int, float]] = []

    def note(self, rows: int) -> None:
        """Take a sample, if a tenth of the rows has passed since the last."""
        if rows >= self._next:
            self.samples.append((rows, round(self._process.memory_info().rss / _MIB, 1)))
            self._next = rows + self._step


def run_batch(shape: BatchShape, folder: Path) -> dict[str, Any]:
    """Make a batch and return its figures. Call it connected to Ray.

    ``rows_per_s`` counts from the first block that ends, when actors are loaded, to the last.
    """
    source = folder / "in.txt"
    with source.open("w") as stream:
        stream.writelines(f"row {number}\n" for number in range(shape.rows))
    storage = Storage(str(folder / "out"))
    planner = Planner([], modules=(MODULE,))
    reading, making = Memory(shape.rows), Memory(shape.rows)
    started = time.perf_counter()
    work = _take_in(source, shape, planner, storage, reading)
    taken_in = time.perf_counter()
    first: tuple[float, int] | None = None
    done = 0
    for advance in _advances(work, shape, planner, storage):
        done += advance
        making.note(done)
        first = first or (time.perf_counter(), done)
    ended = time.perf_counter()
    counts = Manifest(storage).join()
    joined = time.perf_counter()
    if first is None or done != shape.rows or sum(counts.values()) != shape.rows:
        raise RuntimeError(f"{done} rows ended and {counts} are in the manifest: {shape.rows}.")
    making.note(shape.rows * 2)  # after the join
    return {
        "rows": shape.rows,
        "actors": shape.actors,
        "parts": len(work.by_model[MODEL].parts),
        "format": shape.format,
        "take_in_ms_a_row": _ms(taken_in - started, shape.rows),
        "until_the_first_block_s": round(first[0] - taken_in, 2),
        "rows_per_s": round((done - first[1]) / (ended - first[0]), 2),
        "pipeline_ms_a_row": _ms(ended - first[0], done - first[1]),
        "join_ms_a_row": _ms(joined - ended, shape.rows),
        "driver_rss_mib_reading": reading.samples,
        "driver_rss_mib_making": making.samples,
    }


def _take_in(
    source: Path, shape: BatchShape, planner: Planner, storage: Storage, memory: Memory
) -> Work:
    def records() -> Any:
        for record in read_records(open_source(str(source))):
            memory.note(record.index)
            yield record

    checker = RowChecker(planner.plan, MODEL, ".", shape.options)
    return take_in(records(), checker, storage, max_part_rows=shape.max_part_rows)


def _advances(work: Work, shape: BatchShape, planner: Planner, storage: Storage) -> Any:
    todo = work.by_model[MODEL]
    name = resolve_format(None, shape.format)
    setup, _ = plan_stages(planner, MODEL, todo, storage=storage, format=name, tally=SharedTally())
    # Small shares: measured is what the stages cost, not how Ray counts the CPUs of a laptop.
    pools = Pools(model=shape.actors, text=0, model_cpus=0.5, finisher_cpus=0.25)
    for news in run_pipeline(replace(setup, has_quality=False), todo, pools):
        yield news.completed + news.failed


def plain_rate(processes: int, rows: int, cpu_s: float) -> float:
    """Return rows per second of plain processes that call the model and do nothing else."""
    with multiprocessing.get_context("spawn").Pool(processes) as pool:
        pool.map(_generate, [(1, 0.0)] * processes)  # imports are over
        started = time.perf_counter()
        pool.map(_generate, [(rows, cpu_s)] * processes, chunksize=1)
        return processes * rows / (time.perf_counter() - started)


def _generate(task: tuple[int, float]) -> None:
    rows, cpu_s = task
    model = SteadyModel()
    for _ in range(rows):
        model.generate_from_text("a row", cpu_s=cpu_s)


def _ms(seconds: float, rows: int) -> float:
    return round(1000 * seconds / max(rows, 1), 4)
