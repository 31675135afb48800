"""Stable Fast 3D after its network: surface, unwrap, bake and export of an asset of 20,000 faces.

``python -m benchmarks.stable_fast_3d_asset [--runs 3] [--size 1024]`` writes
results/stable_fast_3d_asset.json. Grid, planes and decoder have the published sizes; the decoder's
weights are random, so the shapes are those of ``benchmarks.texturing``, whose levels stand in for
the density that the field is asked for. Seconds that the field's network takes (density on the
grid, offsets, albedo and normals of the texels) are stated beside those of all else.
``benchmarks.texturing`` compares with loops over faces and texels.
"""

from __future__ import annotations

import argparse
import json
import math
import sys
import time
from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from torch import Tensor

from benchmarks.environment import describe_machine, summarize, write_result
from benchmarks.texturing import SHAPES
from dream_cad.mesh.export import mesh_bytes
from dream_cad.mesh.texels import count_overlaps
from dream_cad.models.base import ignore_progress
from dream_cad.models.stable_fast_3d.config import StableFast3DConfig
from dream_cad.models.stable_fast_3d.decoder import MaterialMLP
from dream_cad.models.stable_fast_3d.field import SceneField
from dream_cad.models.stable_fast_3d.finish import RawShape, finish
from dream_cad.models.stable_fast_3d.options import StableFast3DOptions
from dream_cad.surface.marching_tets import march_tets
from dream_cad.surface.tet_grid import tet_grid

LIMIT_S = 6.0
FACES = 20_000


class TimedField(SceneField):
    """A field that notes how long its network takes."""

    seconds = 0.0

    def query(self, points: Tensor, *heads: str) -> dict[str, Tensor]:
        """Query, and add to ``seconds``."""
        start = time.perf_counter()
        try:
            return super().query(points, *heads)
        finally:
            TimedField.seconds += time.perf_counter() - start


@torch.no_grad()
def random_field() -> TimedField:
    """Published sizes, random weights with the variance of a trained network's layers."""
    config = StableFast3DConfig.published()
    torch.manual_seed(0)
    decoder = MaterialMLP(config.decoder).eval()
    for parameter in decoder.parameters():
        if parameter.ndim > 1:
            parameter.uniform_(-1, 1).mul_(math.sqrt(3 / parameter.shape[1]))
    side = config.plane_size * config.post_processor.scale_factor
    planes = torch.randn(3, config.decoder.in_channels // 3, side, side)
    return TimedField(planes, decoder, radius=config.radius)


def make_asset(shape: str, field: TimedField, options: StableFast3DOptions) -> dict[str, Any]:
    """Do all that comes after the scene code; seconds by step, and facts of the asset."""
    resolution, radius = StableFast3DConfig.published().isosurface_resolution, field.radius
    grid = tet_grid(resolution)
    points = torch.from_numpy(2 * radius * grid.vertices - np.float32(radius))
    level = SHAPES[shape](*(points.numpy() / radius).T).astype(np.float32)
    steps: dict[str, tuple[float, float]] = {}

    def step(name: str, work: Callable[[], Any]) -> Any:
        start, asked = time.perf_counter(), TimedField.seconds
        made = work()
        steps[name] = (time.perf_counter() - start, TimedField.seconds - asked)
        return made

    step("density", lambda: field.query(points, "density"))
    surface = step(
        "surface",
        lambda: march_tets(
            grid,
            level,
            lambda used: 0 * field.query(points[used], "vertex_offset")["vertex_offset"].numpy(),
        ),
    )
    vertices = (2 * radius * surface.vertices - radius).astype(np.float32)
    raw = RawShape(vertices, surface.faces[:, ::-1].copy(), field, roughness=0.6, metallic=0.1)
    mesh = step("clean, simplify, unwrap, bake", lambda: finish(raw, options, ignore_progress))
    content = step("export", lambda: mesh_bytes(mesh, "glb"))
    overlapping, covered = count_overlaps(
        mesh.faces, mesh.uv_coords, texture_size=options.texture_size
    )
    return {
        "faces_of_surface": len(surface.faces),
        "faces": len(mesh.faces),
        "coverage": round(covered / options.texture_size**2, 3),
        "overlapping_texels": overlapping,
        "glb_bytes": len(content),
        "steps": {
            name: {"all_s": round(took, 3), "field_s": round(asked, 3)}
            for name, (took, asked) in steps.items()
        },
    }


def measure(size: int, runs: int) -> dict[str, Any]:
    """Make each shape ``runs`` times."""
    field = random_field()
    options = StableFast3DOptions(texture_size=size, target_faces=FACES)
    shapes: dict[str, Any] = {}
    for shape in SHAPES:
        make_asset(shape, field, options)  # the first one builds grids and compiles loops
        made = [make_asset(shape, field, options) for _ in range(runs)]
        after = [[row for name, row in one["steps"].items() if name != "density"] for one in made]
        bare = [sum(row["all_s"] - row["field_s"] for row in rows) for rows in after]
        shapes[shape] = {
            **made[-1],
            "seconds": summarize([sum(row["all_s"] for row in rows) for rows in after]),
            "seconds_without_field": summarize(bare),
            "seconds_with_density": summarize(
                [sum(row["all_s"] for row in one["steps"].values()) for one in made]
            ),
            "is_within_limit": float(np.median(bare)) <= LIMIT_S,
        }
    return {"texture_size": size, "limit_s": LIMIT_S, "shapes": shapes}


def main() -> None:
    """Measure, print and write."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--runs", type=int, default=3)
    parser.add_argument("--size", type=int, default=1024)
    arguments = parser.parse_args()
    result = {"machine": describe_machine(), **measure(arguments.size, arguments.runs)}
    write_result("stable_fast_3d_asset", result)
    sys.stdout.write(json.dumps(result, indent=1) + "\n")


if __name__ == "__main__":
    main()
