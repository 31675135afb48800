"""Triplane to mesh at published size: the sparse path against the dense reference.

``python -m benchmarks.surface_extraction [--resolution 256] [--threads 2]`` writes
results/surface_extraction.json. The field is constructed: three overlapping blobs in planes
(3, 40, 64, 64), carried through a decoder 120 -> 9 x 64 -> 4. Runs of both ways take turns, so that
other load meets both. CPU seconds (all threads of the process) stand beside wall seconds because
they hardly depend on what else runs. Peak memory is measured in fresh processes.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import time
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch

from benchmarks.environment import describe_machine, summarize, write_result
from dream_cad.models.triposr.config import TripoSRConfig
from dream_cad.models.triposr.field import TriplaneField
from dream_cad.models.triposr.network import NeRFMLP
from dream_cad.surface.extract import extract_surface
from dream_cad.surface.marching import SurfaceMesh

Method = Literal["sparse", "dense"]
THRESHOLD = 25.0
# Centre x, y, z and radius of each blob.
BLOBS = ((0.0, 0.0, -0.25, 0.42), (0.0, 0.1, 0.2, 0.36), (0.2, -0.2, 0.3, 0.3))
STEEPNESS = 100.0
# SiLU leaves numbers above this nearly as they are, so the blobs pass through all layers.
LIFT = 8.0


def blob_planes(config: TripoSRConfig) -> torch.Tensor:
    """Planes (3, C, H, W) whose sum over planes in channel n is ``r^2 - |p - c|^2`` of blob n."""
    size, radius = 2 * config.plane_size, config.radius
    axis = ((torch.arange(size) + 0.5) * 2 / size - 1) * radius
    planes = torch.randn(3, 40, size, size) * 0.1
    for number, (*center, blob_radius) in enumerate(BLOBS):
        for plane, (along_w, along_h) in enumerate(((0, 1), (0, 2), (1, 2))):
            columns = (axis - center[along_w]) ** 2
            rows = (axis - center[along_h]) ** 2
            # Every axis lies in two planes, hence half of its square in each.
            planes[plane, number] = blob_radius**2 / 3 - (columns[None] + rows[:, None]) / 2
    return planes


@torch.no_grad()
def build_field() -> TriplaneField:
    """Return the field of the blobs in a decoder of published size; the other weights are noise."""
    torch.manual_seed(0)
    config = TripoSRConfig.published()
    decoder = NeRFMLP(120, 64, 9).eval()
    linears = [layer for layer in decoder.layers if isinstance(layer, torch.nn.Linear)]
    count = len(BLOBS)
    for layer in linears[:-1]:
        layer.weight[:count] = 0.0
        layer.bias[:count] = 0.0
        layer.weight[:count, :count] = torch.eye(count)
    for plane in range(3):
        linears[0].weight[:count, 40 * plane : 40 * plane + count] = STEEPNESS * torch.eye(count)
    linears[1].bias[:count] = LIFT
    linears[-1].weight[0, :count] = 1.0
    linears[-1].bias[0] = -LIFT * count - 4.0
    return TriplaneField(
        blob_planes(config), decoder, radius=config.radius, density_bias=config.density_bias
    )


def timed(
    field: TriplaneField, resolution: int, method: Method
) -> tuple[float, float, SurfaceMesh]:
    """Wall seconds, CPU seconds and mesh of one extraction."""
    start, start_cpu = time.perf_counter(), time.process_time()
    mesh = extract_surface(field, resolution=resolution, threshold=THRESHOLD, method=method)
    return time.perf_counter() - start, time.process_time() - start_cpu, mesh


def compare(dense: SurfaceMesh, sparse: SurfaceMesh) -> dict[str, Any]:
    """Counts of both meshes and the largest distance of a vertex from its twin."""
    has_same_faces = np.array_equal(dense.faces, sparse.faces)
    shift = np.abs(dense.vertices - sparse.vertices).max() if has_same_faces else None
    return {
        "faces": len(dense.faces),
        "has_same_faces": has_same_faces,
        "largest_vertex_shift": None if shift is None else float(shift),
    }


def peak_growth(resolution: int) -> float:
    """MiB by which the peak of this process grows over the built field in a sparse extraction."""
    field = build_field()
    timed(field, 16, "sparse")
    # Forgets the high-water mark that building the field left (Linux, proc(5)).
    Path("/proc/self/clear_refs").write_text("5")
    before = _peak_kib()
    timed(field, resolution, "sparse")
    return (_peak_kib() - before) / 1024


def _peak_kib() -> int:
    status = Path("/proc/self/status").read_text()
    return int(status.partition("VmHWM:")[2].split()[0])


def peak_growth_of_fresh_process(resolution: int, threads: int) -> float:
    """Measure ``peak_growth`` where nothing ran before."""
    command = [sys.executable, "-m", "benchmarks.surface_extraction"]
    options = ["--memory-only", str(resolution), "--threads", str(threads)]
    done = subprocess.run(command + options, capture_output=True, text=True, check=True)
    return float(done.stdout)


def measure(resolution: int, threads: int, dense_runs: int, sparse_runs: int) -> dict[str, Any]:
    """Time both ways in turns."""
    machine = describe_machine()
    field = build_field()
    wall: dict[str, list[float]] = {"dense": [], "sparse": []}
    cpu: dict[str, list[float]] = {"dense": [], "sparse": []}
    meshes: dict[str, SurfaceMesh] = {}
    plan: tuple[tuple[Method, int], ...] = (("sparse", sparse_runs), ("dense", dense_runs))
    for turn in range(max(dense_runs, sparse_runs)):
        for method, runs in plan:
            if turn < runs:
                seconds, cpu_seconds, meshes[method] = timed(field, resolution, method)
                wall[method].append(seconds)
                cpu[method].append(cpu_seconds)
    result: dict[str, Any] = {"machine": machine, "resolution": resolution, "threads": threads}
    for name, values in (("wall", wall), ("cpu", cpu)):
        summary = {method: summarize(taken) for method, taken in values.items()}
        ratio = summary["dense"]["median_s"] / summary["sparse"]["median_s"]
        result[name] = summary | {"speedup": round(ratio, 2)}
    result["mesh"] = compare(meshes["dense"], meshes["sparse"])
    return result


def main() -> None:
    """Measure and write the result."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--resolution", type=int, default=256)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--dense-runs", type=int, default=2)
    parser.add_argument("--sparse-runs", type=int, default=5)
    parser.add_argument("--memory-only", type=int, metavar="RESOLUTION")
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    if arguments.memory_only:
        sys.stdout.write(f"{peak_growth(arguments.memory_only)}\n")
        return
    result = measure(
        arguments.resolution, arguments.threads, arguments.dense_runs, arguments.sparse_runs
    )
    result["peak_growth_mib"] = {
        size: round(peak_growth_of_fresh_process(size, arguments.threads)) for size in (256, 512)
    }
    write_result("surface_extraction", result)
    sys.stdout.write(json.dumps(result, indent=1) + "\n")


if __name__ == "__main__":
    main()
