"""Hunyuan3D's volume decoding at published size: adaptive and FlashVDM against every point.

``python -m benchmarks.volume_decoding [--octree 256 384] [--chunks 4]`` writes
results/volume_decoding.json.

Queries are counted exactly and surfaces compared exactly, on a field of overlapping blobs that
costs next to nothing. Seconds are those of the ShapeVAE's geometry decoder at its published size,
with formula weights, whose values do not change how long it takes: the dense path would run for
hours, so each path's seconds are its queries times the seconds a query, measured on chunks drawn
from the path's own queries, the paths in turns; the seconds that the adaptive path spends beside
its queries (masks, indices) are measured whole and added. "flash" shares attention inside boxes; on
random weights its values say nothing, so its surface is left to the numeric cases.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from torch import Tensor

from benchmarks.environment import describe_machine, write_result
from dream_cad.models.hunyuan3d_mini.field import ExactField, FlashField
from dream_cad.models.hunyuan3d_mini.pipeline import BOUNDS, CPU_CHUNK
from dream_cad.models.hunyuan3d_mini.shape_vae import ShapeVAE, ShapeVAEConfig
from dream_cad.surface.logit_grid import march_logits
from dream_cad.surface.volume import adaptive_volume, grid_points
from tests.reference.formula_weights import normal, parameter

# Centre x, y, z and radius of each blob.
BLOBS = ((0.0, 0.0, -0.2, 0.55), (0.0, 0.15, 0.35, 0.4), (0.3, -0.2, 0.3, 0.35))
LIMITS = {"queries_times_fewer": 5.0, "times_faster": 3.0}
_STEEPNESS = 20.0
_KEPT = 200_000
_SLAB = 2_000_000


class Blobs:
    """A cheap field that counts what it is asked, and keeps some of the questions."""

    def __init__(self) -> None:
        self.queries = 0
        self.seconds = 0.0
        self.fine_points = torch.empty(0, 3)

    def coarse(self, points: Tensor) -> Tensor:
        """Return the blobs' logits on a grid."""
        return self._logits(points.reshape(-1, 3)).view(points.shape[:3])

    def fine(self, points: Tensor) -> Tensor:
        """Return the blobs' logits at points."""
        self.fine_points = points[:_KEPT]
        return self._logits(points)

    def _logits(self, points: Tensor) -> Tensor:
        start = time.perf_counter()
        self.queries += len(points)
        found = torch.cat([_blob_logits(part) for part in torch.split(points, _SLAB)])
        self.seconds += time.perf_counter() - start
        return found


def _blob_logits(points: Tensor) -> Tensor:
    distances = [radius - (points - torch.tensor(centre)).norm(dim=-1) for *centre, radius in BLOBS]
    return torch.stack(distances).amax(dim=0) * _STEEPNESS


def published_decoder() -> tuple[ExactField, FlashField]:
    """Return both fields over the published geometry decoder, with formula weights."""
    config = ShapeVAEConfig()
    vae = ShapeVAE(config).eval()
    with torch.no_grad():
        for name, tensor in vae.state_dict().items():
            tensor.copy_(torch.from_numpy(parameter(name, tuple(tensor.shape))))
        latents = torch.from_numpy(normal("latents", (1, config.num_latents, config.embed_dim)))
        memory = vae.geo_decoder.remember(vae.decode(latents))
    decoder = vae.geo_decoder
    return ExactField(decoder, memory, CPU_CHUNK), FlashField(decoder, memory, "mean", CPU_CHUNK)


def paths_at(octree: int) -> tuple[dict[str, Any], Tensor, Tensor]:
    """Count queries and compare surfaces; returns the figures and questions of both paths."""
    adaptive = Blobs()
    start = time.perf_counter()
    grid = adaptive_volume(adaptive, octree, bounds=BOUNDS)
    beside_s = time.perf_counter() - start - adaptive.seconds
    side = grid.shape[0] - 1
    dense = Blobs()
    whole = dense.coarse(grid_points(side, BOUNDS))
    ours, plain = (march_logits(one.numpy(), bounds=BOUNDS) for one in (grid, whole))
    is_same = ours.faces.shape == plain.faces.shape and np.array_equal(ours.faces, plain.faces)
    difference = float(np.abs(ours.vertices - plain.vertices).max()) if is_same else None
    drawn = torch.randint(len(whole.view(-1)), (_KEPT,), generator=torch.Generator().manual_seed(0))
    axis = torch.linspace(-BOUNDS, BOUNDS, side + 1)
    index = torch.stack(torch.unravel_index(drawn.sort().values, whole.shape), dim=-1)
    found = {
        "octree_resolution": octree,
        "cells_a_side": side,
        "dense_queries": dense.queries,
        "adaptive_queries": adaptive.queries,
        "queries_times_fewer": round(dense.queries / adaptive.queries, 2),
        "faces": len(plain.faces),
        "same_surface": is_same,
        "largest_vertex_difference": difference,
        "adaptive_beside_queries_s": round(beside_s, 3),
    }
    return found, axis[index], adaptive.fine_points


def seconds_a_query(
    ask: Callable[[Tensor], Tensor], points: Tensor, chunks: int, first: int
) -> list[float]:
    """Return seconds a query of ``chunks`` chunks of consecutive questions."""
    seconds = []
    for number in range(chunks):
        begin = (first + number * 7919 * CPU_CHUNK) % max(len(points) - CPU_CHUNK, 1)
        chunk = points[begin : begin + CPU_CHUNK]
        start = time.perf_counter()
        ask(chunk)
        seconds.append((time.perf_counter() - start) / len(chunk))
    return seconds


def measure(octree: int, exact: ExactField, flash: FlashField, chunks: int) -> dict[str, Any]:
    """Return the figures of one resolution."""
    found, everywhere, near = paths_at(octree)
    asked: dict[str, tuple[ExactField | FlashField, Tensor]]
    asked = {"dense": (exact, everywhere), "adaptive": (exact, near), "flash": (flash, near)}
    each: dict[str, list[float]] = {name: [] for name in asked}
    for turn in range(chunks):
        for name, (field, points) in asked.items():
            each[name] += seconds_a_query(field.fine, points, 1, turn * CPU_CHUNK)
    median = {name: float(np.median(values)) for name, values in each.items()}
    found["us_a_query"] = {name: round(value * 1e6, 1) for name, value in median.items()}
    dense_s = median["dense"] * found["dense_queries"]
    found["dense_s_extrapolated"] = round(dense_s, 1)
    for name in ("adaptive", "flash"):
        own = median[name] * found["adaptive_queries"] + found["adaptive_beside_queries_s"]
        found[f"{name}_s_extrapolated"] = round(own, 1)
        found[f"{name}_times_faster"] = round(dense_s / own, 2)
    return found


def main() -> None:
    """Measure, print and record."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--octree", type=int, nargs="+", default=[256, 384])
    parser.add_argument("--chunks", type=int, default=4)
    parser.add_argument("--threads", type=int, default=2)
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    machine = describe_machine()
    exact, flash = published_decoder()
    results = [measure(octree, exact, flash, args.chunks) for octree in args.octree]
    print("| octree | queries, dense | adaptive | fewer | dense s | adaptive s | flash s | same |")
    print("|--:|--:|--:|--:|--:|--:|--:|---|")
    for row in results:
        print(
            f"| {row['octree_resolution']} | {row['dense_queries']:,} | "
            f"{row['adaptive_queries']:,} | {row['queries_times_fewer']} | "
            f"{row['dense_s_extrapolated']} | {row['adaptive_s_extrapolated']} | "
            f"{row['flash_s_extrapolated']} | {row['same_surface']} |"
        )
    is_met = all(
        row["queries_times_fewer"] >= LIMITS["queries_times_fewer"]
        and row["adaptive_times_faster"] >= LIMITS["times_faster"]
        and row["same_surface"]
        for row in results
    )
    result = {"machine": machine, "limits": LIMITS, "is_met": is_met, "results": results}
    print(write_result("volume_decoding", result))


if __name__ == "__main__":
    main()
