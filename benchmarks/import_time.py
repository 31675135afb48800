"""Seconds that ``import dream_cad`` takes in a fresh interpreter, over those of starting one.

    python -m benchmarks.import_time

Baseline of the same run: an interpreter that imports nothing. Writes results/import_time.json.
"""

from __future__ import annotations

import subprocess
import sys
import time
from statistics import median

from benchmarks.environment import describe_machine, summarize, write_result

RUNS = 15
LIMIT_S = 0.3
PROGRAMS = {
    "nothing": "pass",
    "import dream_cad": "import dream_cad",
    "list the models": "from dream_cad import ModelFactory; ModelFactory.list_available_models()",
    "dream-cad --version": "import dream_cad.cli as cli; cli.run(['--version'])",
    "import torch": "import torch",
}


def measure(code: str) -> float:
    """Return the wall seconds of one fresh interpreter."""
    start = time.perf_counter()
    subprocess.run([sys.executable, "-c", code], check=True, stdout=subprocess.DEVNULL)
    return time.perf_counter() - start


def main() -> None:
    """Measure, print and record."""
    machine = describe_machine()
    for code in PROGRAMS.values():
        measure(code)  # compiles the byte code and fills the page cache
    seconds: dict[str, list[float]] = {name: [] for name in PROGRAMS}
    for _ in range(RUNS):  # in turns, so that a busy moment does not fall on one program alone
        for name, code in PROGRAMS.items():
            seconds[name].append(measure(code))
    import_s = median(seconds["import dream_cad"]) - median(seconds["nothing"])
    result = {
        "command": "python -m benchmarks.import_time",
        "machine": machine,
        "import_s": round(import_s, 4),
        "limit_s": LIMIT_S,
        "is_within_limit": import_s <= LIMIT_S,
        "programs": {name: summarize(all_) for name, all_ in seconds.items()},
    }
    path = write_result("import_time", result)
    print(f"import dream_cad: {import_s * 1000:.0f} ms over a bare interpreter ({path})")


if __name__ == "__main__":
    main()
