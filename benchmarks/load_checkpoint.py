"""Cold load of a TripoSR checkpoint of published size against reading and copying its bytes.

``python -m benchmarks.load_checkpoint [--runs 5]`` writes results/load_checkpoint.json. Every
measurement is a fresh process with its imports done; the two kinds take turns. The file is in the
page cache for both. The baseline reads the file in blocks into one staging buffer and copies each
block to its final place in newly allocated memory; nothing is allocated twice.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
import torch

from benchmarks.environment import describe_machine, summarize, write_result
from dream_cad.models.triposr.config import TripoSRConfig
from dream_cad.models.triposr.network import TripoSRNetwork
from dream_cad.models.triposr.weights import load_network

_BLOCK = 2**24


def write_checkpoint(folder: Path) -> Path:
    """Write random weights of the published sizes in the published layout."""
    config = TripoSRConfig.published()
    config.to_yaml(folder / "config.yaml")
    with torch.device("meta"):
        shapes = {key: t.shape for key, t in TripoSRNetwork(config).state_dict().items()}
    generator = torch.Generator().manual_seed(0)
    path = folder / "model.ckpt"
    torch.save({key: torch.rand(s, generator=generator) for key, s in shapes.items()}, path)
    return path


def read_and_copy(path: Path) -> float:
    """Seconds to read the file and copy its bytes to new memory."""
    start = time.perf_counter()
    place = np.empty(path.stat().st_size, np.uint8)
    staging = np.empty(_BLOCK, np.uint8)
    at = 0
    with path.open("rb", buffering=0) as file:
        while count := file.readinto(staging.data):
            place[at : at + count] = staging[:count]
            at += count
    return time.perf_counter() - start


def anonymous_bytes() -> int:
    """Memory of this process that is not a mapped file."""
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith("RssAnon"):
            return int(line.split()[1]) * 1024
    raise RuntimeError("/proc/self/status has no RssAnon")


def measure(kind: str, path: Path) -> dict[str, float]:
    """Run one measurement in a fresh process."""
    command = [sys.executable, "-m", "benchmarks.load_checkpoint", "--child", kind, str(path)]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    return dict(json.loads(done.stdout))


def run_child(kind: str, path: Path) -> None:
    """One measurement, printed as JSON."""
    before = anonymous_bytes()
    start = time.perf_counter()
    if kind == "load":
        network = load_network(path.parent)
        seconds = time.perf_counter() - start
        weights = sum(t.nbytes for t in network.state_dict().values())
    else:
        seconds, weights = read_and_copy(path), 0
    grown = anonymous_bytes() - before
    print(json.dumps({"seconds": seconds, "grown": grown, "weights": weights}))


def main() -> None:
    """Measure and write the result."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--runs", type=int, default=5)
    parser.add_argument("--child", nargs=2, metavar=("KIND", "PATH"))
    arguments = parser.parse_args()
    if arguments.child:
        run_child(arguments.child[0], Path(arguments.child[1]))
        return
    machine = describe_machine()
    runs: dict[str, list[dict[str, float]]] = {"read_and_copy": [], "load": []}
    with tempfile.TemporaryDirectory() as folder:
        path = write_checkpoint(Path(folder))
        size = path.stat().st_size
        measure("read_and_copy", path)  # brings the file into the page cache
        for _ in range(arguments.runs):
            for kind, taken in runs.items():
                taken.append(measure(kind, path))
    seconds = {kind: [run["seconds"] for run in taken] for kind, taken in runs.items()}
    baseline, ours = (summarize(seconds[kind]) for kind in runs)
    result = {
        "what": "TripoSR, published size, float32, CPU: load_network against read and copy",
        "machine": machine,
        "file_bytes": size,
        "read_and_copy": baseline,
        "load": ours,
        "ratio_of_medians": round(ours["median_s"] / baseline["median_s"], 3),
        "ratio_of_minima": round(ours["min_s"] / baseline["min_s"], 3),
        "limit": 1.3,
        "anonymous_memory_over_weights": round(
            max(run["grown"] / run["weights"] for run in runs["load"]), 3
        ),
    }
    print(json.dumps(result, indent=1))
    print(write_result("load_checkpoint", result))


if __name__ == "__main__":
    main()
