"""50,000 Gaussians to a picture of 512^2: the tile renderer against the exact reference.

``python -m benchmarks.gaussian_rendering [--runs 5] [--rows 8] [--threads 2]`` writes
results/gaussian_rendering.json. The reference (``rasterise``: every Gaussian at every pixel) is
timed on whole rows of pixels, spread evenly over the picture, and extrapolated to all rows: its
work is the same for each pixel. PSNR is over the same rows. The ratio is of CPU seconds (all
threads of the process), which depend less on what else runs; wall seconds stand beside them. Two
clouds: splats of TRELLIS's size on a surface, and of mixed size in a cube.
"""

from __future__ import annotations

import argparse
import math
import time
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from benchmarks.environment import describe_machine, summarize, write_result
from dream_cad.models.trellis.cameras import sphere_views
from dream_cad.splats.cloud import GaussianCloud
from dream_cad.splats.projection import MIP_FILTER, project
from dream_cad.splats.rasterise import blend_pixels
from dream_cad.splats.tiles import draw

COUNT, SIZE = 50_000, 512
VIEW = sphere_views(100)[40]


def surface_cloud() -> GaussianCloud:
    """Return splats as the Gaussian decoder makes them: on a bumpy sphere, opaque, 0.4 % wide."""
    random = np.random.default_rng(0)
    direction = random.normal(size=(COUNT, 3))
    direction /= np.linalg.norm(direction, axis=1, keepdims=True)
    position = direction * 0.4 * (1 + 0.1 * np.sin(6 * direction[:, :1]))
    return _cloud(random, position, 0.5 + 0.5 * random.random((COUNT, 1)), 0.004, 0.4)


def volume_cloud() -> GaussianCloud:
    """Return splats of mixed size and opacity all over the world's cube."""
    random = np.random.default_rng(1)
    position = random.uniform(-0.5, 0.5, (COUNT, 3))
    return _cloud(random, position, random.random((COUNT, 1)), 0.006, 0.7)


def _cloud(
    random: np.random.Generator,
    position: NDArray[np.float64],
    opacity: NDArray[np.float64],
    scale: float,
    spread: float,
) -> GaussianCloud:
    parts = (
        position,
        opacity,
        random.lognormal(np.log(scale), spread, (COUNT, 3)),
        random.normal(size=(COUNT, 4)),
        random.random((COUNT, 3)),
    )
    return GaussianCloud.from_packed(np.concatenate(parts, axis=1))


def measure(cloud: GaussianCloud, runs: int, rows: int) -> dict[str, Any]:
    """Return seconds of both, their ratio, and the PSNR."""
    draw(cloud, VIEW, size=SIZE, screen_filter=MIP_FILTER)
    seconds, cpu = [], []
    for _ in range(runs):
        start, cpu_start = time.perf_counter(), time.process_time()
        picture = draw(cloud, VIEW, size=SIZE, background=(0.0, 0.0, 0.0), screen_filter=MIP_FILTER)
        seconds.append(time.perf_counter() - start)
        cpu.append(time.process_time() - cpu_start)
    chosen = np.linspace(0, SIZE - 1, rows + 2).astype(int)[1:-1]
    pixels = np.stack(np.meshgrid(np.arange(SIZE), chosen), axis=-1).reshape(-1, 2)
    start = time.process_time()
    exact = blend_pixels(project(cloud, VIEW, SIZE, MIP_FILTER), pixels)[0]
    per_row = (time.process_time() - start) / rows
    ours = picture.image[:, chosen].reshape(3, -1).T
    fast = summarize(cpu)
    return {
        "tiles_cpu": fast,
        "tiles_wall": summarize(seconds),
        "exact_rows_measured": rows,
        "exact_extrapolated_cpu_s": round(per_row * SIZE, 1),
        "times_faster": round(per_row * SIZE / fast["median_s"], 1),
        "psnr_db": round(-10 * math.log10(max(float(np.mean((ours - exact) ** 2)), 1e-20)), 1),
        "largest_difference": float(np.abs(ours - exact).max()),
        "pixels_covered": round(float((picture.alpha > 0.5).mean()), 3),
    }


def main() -> None:
    """Measure and write the result."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--runs", type=int, default=5)
    parser.add_argument("--rows", type=int, default=8)
    parser.add_argument("--threads", type=int, default=2)
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    result: dict[str, Any] = {"machine": describe_machine(), "gaussians": COUNT, "size": SIZE}
    for name, cloud in (("surface", surface_cloud()), ("volume", volume_cloud())):
        result[name] = measure(cloud, args.runs, args.rows)
    print("| cloud | tiles, CPU s | exact, CPU s (extrapolated) | times faster | PSNR, dB |")
    print("|---|--:|--:|--:|--:|")
    for name in ("surface", "volume"):
        row = result[name]
        print(
            f"| {name} | {row['tiles_cpu']['median_s']} | {row['exact_extrapolated_cpu_s']} "
            f"| {row['times_faster']} | {row['psnr_db']} |"
        )
    print(write_result("gaussian_rendering", result))


if __name__ == "__main__":
    main()
