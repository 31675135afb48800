"""Peak memory of Stable Fast 3D beyond its weights, at the published size on a CPU.

``python -m benchmarks.stable_fast_3d_memory [--texture-size 1024]`` writes
results/stable_fast_3d_memory.json. The weights are random with the variance of a trained network's
layers: memory and time do not depend on their values, but for the surface, for which a ball stands
in. Peaks are those of the process, sampled every 20 ms, by stage.
"""

from __future__ import annotations

import argparse
import json
import math
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
import psutil
import torch
from PIL import Image, ImageDraw

from benchmarks.environment import describe_machine, write_result
from dream_cad.models.base import ignore_progress
from dream_cad.models.stable_fast_3d.config import StableFast3DConfig
from dream_cad.models.stable_fast_3d.finish import RawShape, finish
from dream_cad.models.stable_fast_3d.network import StableFast3DNetwork
from dream_cad.models.stable_fast_3d.options import StableFast3DOptions
from dream_cad.models.stable_fast_3d.pipeline import StableFast3DPipeline
from dream_cad.surface.marching_tets import march_tets
from dream_cad.surface.tet_grid import tet_grid

_PERIOD = 0.02


class PeakMeter:
    """Largest resident memory and seconds of each stage."""

    def __init__(self) -> None:
        self.stages: dict[str, dict[str, float]] = {}
        self._process = psutil.Process()
        self.base = self._process.memory_info().rss

    @contextmanager
    def stage(self, name: str) -> Iterator[None]:
        """Watch the block."""
        peak, is_over = [0], threading.Event()

        def watch() -> None:
            while not is_over.wait(_PERIOD):
                peak[0] = max(peak[0], self._process.memory_info().rss)

        watcher = threading.Thread(target=watch)
        start = time.perf_counter()
        watcher.start()
        try:
            yield
        finally:
            is_over.set()
            watcher.join()
        self.stages[name] = {
            "peak_beyond_weights_gib": round((peak[0] - self.base) / 2**30, 3),
            "seconds": round(time.perf_counter() - start, 1),
        }


@torch.no_grad()
def random_network() -> StableFast3DNetwork:
    """The published sizes with random weights, filled in place."""
    with torch.device("meta"):
        network = StableFast3DNetwork(StableFast3DConfig.published())
    network = network.to_empty(device="cpu").eval().requires_grad_(False)
    torch.manual_seed(0)
    for name, parameter in network.named_parameters():
        if parameter.ndim > 1:
            parameter.uniform_(-1, 1).mul_(math.sqrt(3 / parameter[0].numel()))
        else:
            parameter.fill_(1.0 if name.endswith(("weight", "lambda1")) else 0.0)
    network.bbox.copy_(torch.tensor([[-0.87] * 3, [0.87] * 3]))
    return network


def picture() -> Image.Image:
    """A disc with alpha."""
    image = Image.new("RGBA", (640, 640))
    ImageDraw.Draw(image).ellipse((100, 100, 540, 540), fill="teal")
    return image


def measure(texture_size: int) -> dict[str, Any]:
    """Run every stage once."""
    pipeline = StableFast3DPipeline(random_network())
    config = pipeline.config
    options = StableFast3DOptions(texture_size=texture_size, target_faces=20_000)
    meter = PeakMeter()
    with meter.stage("encode"):
        (codes,) = pipeline.encode([picture()])
    field = pipeline.field(codes.planes)
    with meter.stage("density_on_grid"):
        grid = tet_grid(config.isosurface_resolution)
        points = torch.from_numpy(2 * config.radius * grid.vertices - np.float32(config.radius))
        field.query(points, "density")
    with meter.stage("surface"):  # of a ball: random weights make noise, not an object
        level = (0.6 - np.linalg.norm(points.numpy(), axis=1)).astype(np.float32)

        def offsets(used: Any) -> Any:
            return field.query(points[used], "vertex_offset")["vertex_offset"].numpy()

        surface = march_tets(grid, level, offsets)
    vertices = 2 * config.radius * surface.vertices - config.radius
    raw = RawShape(
        vertices.astype(np.float32),
        surface.faces[:, ::-1].copy(),
        field.to("cpu"),
        roughness=codes.roughness,
        metallic=codes.metallic,
    )
    with meter.stage("finish"):
        mesh = finish(raw, options, ignore_progress)
    return {
        "weights_gib": round(
            sum(p.numel() * p.element_size() for p in pipeline.network.parameters()) / 2**30, 3
        ),
        "faces_of_surface": len(surface.faces),
        "faces_of_mesh": len(mesh.faces),
        "texture_size": texture_size,
        "stages": meter.stages,
        "peak_beyond_weights_gib": max(
            stage["peak_beyond_weights_gib"] for stage in meter.stages.values()
        ),
    }


def main() -> None:
    """Measure, print and write."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--texture-size", type=int, default=1024)
    arguments = parser.parse_args()
    result = {"machine": describe_machine(), **measure(arguments.texture_size)}
    write_result("stable_fast_3d_memory", result)
    sys.stdout.write(json.dumps(result, indent=1) + "\n")


if __name__ == "__main__":
    main()
