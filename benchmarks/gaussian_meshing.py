"""65,536 Gaussians to a coloured mesh: density, surface, colours.

``python -m benchmarks.gaussian_meshing [--scale 0.005] [--runs 3]`` writes
results/gaussian_meshing.json. The cloud is constructed: splats of mixed shape on a bumpy sphere.
CPU seconds (all threads of the process) stand beside wall seconds: they depend less on what else
runs.
"""

from __future__ import annotations

import argparse
import time
from typing import Any

import numpy as np

from benchmarks.environment import describe_machine, summarize, write_result
from dream_cad.splats.cloud import GaussianCloud
from dream_cad.splats.kernels import Kernels
from dream_cad.splats.meshing import MeshingOptions, SplatColors, density_grid, mesh_density

COUNT = 65_536


def make_cloud(scale: float) -> GaussianCloud:
    """Return the cloud; ``scale`` is the median deviation of the splats."""
    random = np.random.default_rng(0)
    direction = random.normal(size=(COUNT, 3))
    direction /= np.linalg.norm(direction, axis=1, keepdims=True)
    position = direction * 0.5 * (1 + 0.1 * np.sin(6 * direction[:, :1]))
    parts = (
        position,
        random.uniform(0.3, 1, (COUNT, 1)),
        random.lognormal(np.log(scale), 0.5, (COUNT, 3)),
        random.normal(size=(COUNT, 4)),
        random.random((COUNT, 3)),
    )
    return GaussianCloud.from_packed(np.concatenate(parts, axis=1))


def run_once(cloud: GaussianCloud, options: MeshingOptions) -> dict[str, float]:
    """Return CPU and wall seconds of each stage."""
    laps: dict[str, float] = {}
    cpu, wall = time.process_time(), time.perf_counter()

    def lap(name: str) -> None:
        nonlocal cpu, wall
        laps[f"{name}_cpu_s"] = time.process_time() - cpu
        laps[f"{name}_wall_s"] = time.perf_counter() - wall
        cpu, wall = time.process_time(), time.perf_counter()

    density = density_grid(Kernels(cloud, options.lattice, options.kappa))
    lap("density")
    mesh = mesh_density(density, options)
    lap("surface")
    SplatColors(cloud, options.lattice, options.kappa)(mesh.vertices)
    lap("colors")
    for clock in ("cpu_s", "wall_s"):
        laps[f"total_{clock}"] = sum(v for name, v in laps.items() if name.endswith(clock))
    return laps | {"faces": float(len(mesh.faces))}


def main() -> None:
    """Measure and write the result."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--scale", type=float, default=0.005)
    parser.add_argument("--runs", type=int, default=3)
    args = parser.parse_args()
    options = MeshingOptions()
    cloud = make_cloud(args.scale)
    runs = [run_once(cloud, options) for _ in range(args.runs)]
    result: dict[str, Any] = {
        "machine": describe_machine(),
        "gaussians": COUNT,
        "scale": args.scale,
        "resolution": options.resolution,
        "stages": {name: summarize([run[name] for run in runs]) for name in runs[0]},
    }
    print(write_result("gaussian_meshing", result))


if __name__ == "__main__":
    main()
