"""Seconds from a prompt to a GLB file with the bundled nano checkpoints, warm, in one process.

``python -m benchmarks.prompt_to_glb [--runs 8]`` writes results/prompt_to_glb.json. The baseline in
the same run is the same work with the surface extracted densely.
"""

from __future__ import annotations

import argparse
import json
import os
import tempfile
import time
from functools import partial
from pathlib import Path

from rich.console import Console
from rich.table import Table

from benchmarks.environment import describe_machine, summarize, write_result
from dream_cad.models.triposr import TripoSR, pipeline
from dream_cad.settings import reload_settings
from dream_cad.surface.extract import extract_surface

PROMPTS = ("a red wooden chair", "a blue car", "a green vase", "a yellow table")
LIMIT_S = 5.0


def seconds_of(model: TripoSR, prompt: str, folder: Path) -> tuple[float, dict[str, float]]:
    """Generate and save once; return the seconds of everything and of each stage."""
    start = time.perf_counter()
    result = model.generate_from_text(prompt, seed=1)
    result.save(folder / "mesh.glb")
    return time.perf_counter() - start, dict(result.metadata["profile"])


def main() -> None:
    """Measure, print a table and write the result."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--runs", type=int, default=8)
    arguments = parser.parse_args()
    os.environ["DREAM_CAD_PROFILE"] = "true"
    reload_settings()
    machine = describe_machine()
    ways = {"sparse": extract_surface, "dense": partial(extract_surface, method="dense")}
    seconds: dict[str, list[float]] = {name: [] for name in ways}
    stages: dict[str, list[float]] = {}
    with tempfile.TemporaryDirectory() as folder, TripoSR(checkpoint="nano") as model:
        seconds_of(model, PROMPTS[0], Path(folder))  # loads and warms up
        for run in range(arguments.runs):
            for name, way in ways.items():
                vars(pipeline)["extract_surface"] = way
                taken, profile = seconds_of(model, PROMPTS[run % len(PROMPTS)], Path(folder))
                seconds[name].append(taken)
                if name == "sparse":
                    for stage, value in profile.items():
                        stages.setdefault(stage, []).append(value)
    result = {
        "what": "prompt to GLB file, nano checkpoints, warm, library in one process",
        "machine": machine,
        "limit_s": LIMIT_S,
        **{name: summarize(values) for name, values in seconds.items()},
        "stages_sparse": {stage: summarize(values) for stage, values in stages.items()},
    }
    table = Table("path", "median s", "min s", "max s", "n")
    for name, values in seconds.items():
        summary = summarize(values)
        table.add_row(name, *(str(summary[key]) for key in ("median_s", "min_s", "max_s", "n")))
    Console().print(table)
    print(json.dumps(result["stages_sparse"], indent=1))
    print(write_result("prompt_to_glb", result))


if __name__ == "__main__":
    main()
