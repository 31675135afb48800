"""Sparse convolution and windowed attention against their dense masked equivalents.

``python -m benchmarks.sparse_operators [--runs 3] [--threads 2]`` writes
results/sparse_operators.json. Voxels are a shell in a grid of 64^3, as TRELLIS's are; channels
are those of the structured latent's convolutions (128) and of its decoders (12 heads of 64). The
dense twins:

* convolution: ``conv3d`` over the whole grid, read at the occupied voxels;
* windowed attention: every window of 8^3 cells whole, empty cells masked out. (One N x N masked
  attention would need 19 GB at 20,000 voxels.)

The curve runs from 12,500 to 200,000 voxels, each size in a process of its own: the largest
resident memory while the maps are made and the operator runs, over that before. The comparison is
of wall seconds with as many threads as asked for: it wants a quiet machine. The curve's are of CPU.
"""

from __future__ import annotations

import argparse
import multiprocessing
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from benchmarks.environment import describe_machine, summarize, write_result
from dream_cad.nn.sparse.conv import dense_masked_conv, submanifold_conv
from dream_cad.nn.sparse.groups import grouped_attention
from dream_cad.nn.sparse.tensor import SparseTensor, VoxelSet

VOXELS, SIDE, CHANNELS = 20_000, 64, 128
HEADS, WIDTH, WINDOW = 12, 64, 8
CURVE = (12_500, 25_000, 50_000, 100_000, 200_000)
_CURVE_SIDE = 256


def shell(count: int, side: int) -> Tensor:
    """Return the ``count`` voxels (count, 4) nearest to a sphere, in order."""
    # as thick a shell at every size: about three voxels
    wanted = (count / (4 * torch.pi * 3)) ** 0.5
    axis = torch.arange(side)
    steps = (axis + 0.5 - side / 2) ** 2
    flat = steps[:, None] + steps
    parts, distances = [], []
    for x in range(side):
        away = ((flat + steps[x]).sqrt() - wanted).abs()
        y, z = (away < 3).nonzero(as_tuple=True)
        parts.append(torch.stack((torch.full_like(y, x), y, z), dim=1))
        distances.append(away[y, z])
    nearest = torch.cat(distances).argsort(stable=True)[:count].sort().values
    chosen = torch.cat(parts)[nearest]
    if len(chosen) != count:
        raise ValueError(f"{count} voxels do not fit into {side}^3")
    return torch.cat((torch.zeros_like(chosen[:, :1]), chosen), dim=1)


def dense_windows(qkv: Tensor, coords: Tensor, shift: int) -> Tensor:
    """Attend in whole windows of a dense grid with empty cells masked; returns (N, K, D)."""
    side = SIDE + WINDOW
    x, y, z = (coords[:, 1:] + shift).unbind(1)
    grid = qkv.new_zeros(side, side, side, *qkv.shape[1:])
    occupied = torch.zeros(side, side, side, dtype=torch.bool)
    grid[x, y, z], occupied[x, y, z] = qkv, True
    blocks, mask = _windows(grid), _windows(occupied)
    any_voxel = mask.any(dim=1)
    out = qkv.new_zeros(len(mask), WINDOW**3, HEADS, WIDTH)
    for number in any_voxel.nonzero()[:, 0].tolist():
        q, k, v = blocks[number].permute(1, 2, 0, 3)
        seen = F.scaled_dot_product_attention(q, k, v, attn_mask=mask[number, None, None, :])
        out[number] = seen.transpose(0, 1)
    per_axis = side // WINDOW
    number = ((x // WINDOW) * per_axis + y // WINDOW) * per_axis + z // WINDOW
    cell = ((x % WINDOW) * WINDOW + y % WINDOW) * WINDOW + z % WINDOW
    return out[number, cell]


def _windows(grid: Tensor) -> Tensor:
    per_axis = grid.shape[0] // WINDOW
    split = grid.reshape(per_axis, WINDOW, per_axis, WINDOW, per_axis, WINDOW, *grid.shape[3:])
    rest = range(6, split.ndim)
    return split.permute(0, 2, 4, 1, 3, 5, *rest).reshape(per_axis**3, WINDOW**3, *grid.shape[3:])


def timed(run: Callable[[], Tensor], runs: int) -> tuple[dict[str, Any], Tensor]:
    """Return a summary of wall seconds after one run to warm up, and the output."""
    out, seconds = run(), []
    for _ in range(runs):
        start = time.perf_counter()
        out = run()
        seconds.append(time.perf_counter() - start)
    return summarize(seconds), out


def compare(fast: Callable[[], Tensor], dense: Callable[[], Tensor], runs: int) -> dict[str, Any]:
    """Return both times, their ratio and the largest difference."""
    fast_s, ours = timed(fast, runs)
    dense_s, theirs = timed(dense, runs)
    return {
        "sparse": fast_s,
        "dense_masked": dense_s,
        "times_faster": round(dense_s["median_s"] / fast_s["median_s"], 1),
        "largest_difference": float((ours - theirs).abs().max()),
    }


def operators(count: int, side: int) -> tuple[Callable[[], Tensor], Callable[[], Tensor]]:
    """Return a convolution and an attention over new voxels; their maps are made once."""
    torch.manual_seed(0)
    voxels = VoxelSet(shell(count, side))
    x = SparseTensor(voxels, torch.randn(count, CHANNELS))
    weight = torch.randn(CHANNELS, 3, 3, 3, CHANNELS) / (27 * CHANNELS) ** 0.5
    bias = torch.randn(CHANNELS)
    q, k, v = torch.randn(count, 3, HEADS, WIDTH).unbind(1)
    return (
        lambda: submanifold_conv(x, weight, bias),
        lambda: grouped_attention(q, k, v, voxels.buckets(WINDOW, 4)),
    )


def at_working_size(runs: int) -> dict[str, Any]:
    """Compare both operators with their dense twins at 20,000 voxels in 64^3."""
    torch.manual_seed(0)
    voxels = VoxelSet(shell(VOXELS, SIDE))
    x = SparseTensor(voxels, torch.randn(VOXELS, CHANNELS))
    weight = torch.randn(CHANNELS, 3, 3, 3, CHANNELS) / (27 * CHANNELS) ** 0.5
    bias = torch.randn(CHANNELS)
    qkv = torch.randn(VOXELS, 3, HEADS, WIDTH)
    q, k, v = qkv.unbind(1)
    start = time.process_time()
    maps = len(voxels.neighbours), len(voxels.buckets(WINDOW, 4))
    return {
        "maps_s": round(time.process_time() - start, 3),
        "maps": maps,
        "convolution": compare(
            lambda: submanifold_conv(x, weight, bias),
            lambda: dense_masked_conv(x, weight, bias),
            runs,
        ),
        "windowed_attention": compare(
            lambda: grouped_attention(q, k, v, voxels.buckets(WINDOW, 4)),
            lambda: dense_windows(qkv, voxels.coords, 4),
            runs,
        ),
    }


def peak(count: int, which: int) -> dict[str, Any]:
    """Return CPU seconds and memory of one operator; runs in a process of its own."""
    torch.set_num_threads(1)
    run = operators(count, _CURVE_SIDE)[which]
    Path("/proc/self/clear_refs").write_text("5")  # the high-water mark begins anew
    before, start = _status_kib("VmRSS"), time.process_time()
    with torch.no_grad():
        run()
    seconds = time.process_time() - start
    taken = _status_kib("VmHWM") - before
    return {"voxels": count, "cpu_s": round(seconds, 3), "mib": round(taken / 1024, 1)}


def _status_kib(name: str) -> int:
    lines = Path("/proc/self/status").read_text().splitlines()
    return int(next(line for line in lines if line.startswith(name)).split()[1])


def main() -> None:
    """Measure and write the result."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--runs", type=int, default=3)
    parser.add_argument("--threads", type=int, default=2)
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    result: dict[str, Any] = {
        "machine": describe_machine(),
        "voxels": VOXELS,
        "grid": SIDE,
        "channels": CHANNELS,
        "heads": HEADS,
        "head_width": WIDTH,
        "window": WINDOW,
    }
    with torch.no_grad():
        result |= at_working_size(args.runs)
    names = ("convolution", "windowed_attention")
    with multiprocessing.get_context("spawn").Pool(1, maxtasksperchild=1) as pool:
        for which, name in enumerate(names):
            result[f"{name}_curve"] = [pool.apply(peak, (n, which)) for n in CURVE]
    print("| operator | sparse, s | dense, s | times faster | largest difference |")
    print("|---|--:|--:|--:|--:|")
    for name in names:
        row = result[name]
        print(
            f"| {name} | {row['sparse']['median_s']} | {row['dense_masked']['median_s']} "
            f"| {row['times_faster']} | {row['largest_difference']:.1e} |"
        )
        print([(point["voxels"], point["mib"]) for point in result[f"{name}_curve"]])
    print(write_result("sparse_operators", result))


if __name__ == "__main__":
    main()
