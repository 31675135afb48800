"""Batches that are killed and run again: for batch_throughput.py."""

from __future__ import annotations

import contextlib
import json
import subprocess
import sys
import time
from collections import Counter
from pathlib import Path
from typing import Any

import psutil
from pyarrow import parquet

from benchmarks.batch_runs import MODEL, MODULE
from benchmarks.steady_model import BEGUN, MADE

_ROWS = 600
_CPU_S = 0.02
_ACTORS = 2
_PATIENCE_S = 120.0
_BLOCKS_AN_ACTOR = 2


def measure_kills(folder: Path, kills: int) -> dict[str, Any]:
    """Return, for each of some kills spread over a batch, the rows that the model made twice.

    The model writes down each row that it begins and each that it has made, in both runs. What may
    be made twice is said beforehand, from the batch's shape alone: for each actor the block that it
    works on and the one that is finished behind it. More than that breaks the bound.
    """
    runs = []
    for number in range(kills):
        place = folder / str(number)
        place.mkdir()
        runs.append(_killed_once(place, round(_ROWS * (number + 1) / (kills + 1))))
    return {"cpu_s_a_row": _CPU_S, "actors": _ACTORS, "runs": runs}


def _killed_once(folder: Path, after: int) -> dict[str, Any]:
    log = folder / "log"
    source = folder / "in.jsonl"
    options = {"cpu_s": _CPU_S, "log": str(log)}
    rows = [{"prompt": f"row {number}", "options": options} for number in range(_ROWS)]
    source.write_text("".join(f"{json.dumps(row)}\n" for row in rows))
    command = [sys.executable, "-W", "ignore", "-m", "jobs.generate_batch", "--input", str(source)]
    command += ["--output", str(folder / "out"), "--model", MODEL, "--module", MODULE]
    command += ["--actors", str(_ACTORS), "--contact-sheet", "0", "--no-quality", "--format", "stl"]
    with subprocess.Popen(command, stderr=subprocess.DEVNULL) as process:
        _wait(lambda: log.exists() and log.read_text().count(BEGUN) >= after)
        _kill(process.pid)
    begun, made = _logged(log, BEGUN), _logged(log, MADE)
    ended = _ended(folder / "out")
    largest = max(len(block) for block in _blocks(folder / "out"))
    subprocess.run(command, stderr=subprocess.DEVNULL, check=True)
    begun_in_all, made_in_all = _logged(log, BEGUN), _logged(log, MADE)
    finished = parquet.read_table(folder / "out" / "manifest.parquet")
    return {
        "rows": _ROWS,
        "begun_before": len(begun),
        "made_before": len(made),
        "ended_before": len(ended),
        "largest_block": largest,
        "rows_allowed": _BLOCKS_AN_ACTOR * _ACTORS * largest,
        "rows_begun_twice": _repeated(begun_in_all),
        "rows_made_twice": _repeated(made_in_all),
        "made_in_all": len(made_in_all),
        "ended_twice": finished.num_rows - len(set(finished["id"].to_pylist())),
        "missing": _ROWS - finished.num_rows,
    }


def _logged(log: Path, mark: str) -> Counter[str]:
    """Return how often each prompt stands in the log after a mark."""
    lines = log.read_text().splitlines()
    return Counter(line.removeprefix(mark) for line in lines if line.startswith(mark))


def _repeated(counts: Counter[str]) -> int:
    return sum(count - 1 for count in counts.values())


def _ended(output: Path) -> set[str]:
    return {
        prompt
        for path in (output / "manifest").glob("*.parquet")
        for prompt in parquet.read_table(path, columns=["prompt"])["prompt"].to_pylist()
    }


def _blocks(output: Path) -> list[set[str]]:
    parts = (output / "work").rglob("*.json")
    return [{row["prompt"] for row in json.loads(part.read_text())} for part in parts]


def _kill(pid: int) -> None:
    """Kill a process and all below it at once, as a power cut would."""
    root = psutil.Process(pid)
    victims = [root, *root.children(recursive=True)]
    for victim in victims:
        with contextlib.suppress(psutil.NoSuchProcess):
            victim.kill()
    psutil.wait_procs(victims)


def _wait(condition: Any) -> None:
    deadline = time.monotonic() + _PATIENCE_S
    while not condition():
        if time.monotonic() > deadline:
            raise TimeoutError(f"The batch did not get that far in {_PATIENCE_S} s.")
        time.sleep(0.02)
