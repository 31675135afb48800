"""How far a follower's events are behind the sampler's steps: model to SSE on a real cluster.

``python -m benchmarks.progress_lag [--steps 60]`` writes results/progress_lag.json. The model notes
the time of each step just before it reports it; a client that follows the job's events notes when
each arrives, on the same machine's monotonic clock. Steps of 250 ms, as of a large model, and of
50 ms, of which the server may leave some out; what arrives counts. The target is 200 ms.
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.environment import describe_machine, write_result
from benchmarks.serving_cluster import start_cluster
from dream_cad.client import Client

LIMIT_MS = 200.0
STEPS_S = (0.25, 0.05)


def follow(url: str, folder: Path, step_s: float, steps: int) -> dict[str, Any]:
    """Run one job and return the lag of its steps in milliseconds."""
    log = folder / f"steps-{step_s}"
    options = {"work_s": step_s * steps, "steps": steps, "step_log": str(log)}
    seen: dict[int, float] = {}
    with Client(url) as client:
        job = client.submit(f"a job of {steps} steps", options=options, use_cache=False)
        for event in client.events(job.id):
            stage = event.job.stage or ""
            if "step " in stage:
                number = int(stage.rpartition("step ")[2].partition("/")[0])
                seen.setdefault(number, time.monotonic())
    made = {int(step): float(at) for at, step in map(str.split, log.read_text().splitlines())}
    lags = np.array([1000 * (at - made[step]) for step, at in seen.items()])
    return {
        "step_s": step_s,
        "steps": steps,
        "arrived": len(lags),
        "p50_ms": round(float(np.median(lags)), 1),
        "p95_ms": round(float(np.percentile(lags, 95)), 1),
        "max_ms": round(float(lags.max()), 1),
        "is_within_limit": bool(lags.max() <= LIMIT_MS),
    }


def main() -> None:
    """Measure, print and write."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--steps", type=int, default=60)
    steps = parser.parse_args().steps
    machine = describe_machine()
    with tempfile.TemporaryDirectory() as place:
        folder = Path(place)
        with start_cluster(f"sqlite:///{folder}/jobs.sqlite3", folder) as cluster:
            with Client(cluster.url) as client:
                client.generate("the model is warm, and so is the way")
            runs = [follow(cluster.url, folder, step_s, steps) for step_s in STEPS_S]
    result = {"machine": machine, "limit_ms": LIMIT_MS, "runs": runs}
    write_result("progress_lag", result)
    sys.stdout.write(json.dumps(result, indent=1) + "\n")


if __name__ == "__main__":
    main()
