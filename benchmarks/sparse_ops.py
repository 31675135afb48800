"""Sparse convolution and windowed attention of TRELLIS against dense, masked ones.

``python -m benchmarks.sparse_ops [--voxels 20000] [--runs 3]`` writes results/sparse_ops.json:
times at published widths on a shell of voxels in 64^3, differences, and the memory that both need
from 25,000 to 200,000 voxels, one process a size (Linux). Times are seconds of CPU of one thread,
so that what else runs on the machine does not change the ratio much.
"""

from __future__ import annotations

import argparse
import json
import multiprocessing
import time
from collections.abc import Callable
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor

from benchmarks.environment import describe_machine, summarize, write_result
from dream_cad.nn.sparse.conv import dense_masked_conv, submanifold_conv
from dream_cad.nn.sparse.groups import grouped_attention
from dream_cad.nn.sparse.tensor import SparseTensor, VoxelSet

_CONV_CHANNELS = 128
_HEADS, _HEAD_WIDTH, _WINDOW, _SHIFT = 12, 64, 8, 4
_CURVE = (25_000, 50_000, 100_000, 200_000)


def shell(count: int, side: int) -> VoxelSet:
    """The ``count`` voxels of a grid nearest to a sphere, as the surface of an object lies."""
    axis = torch.arange(side)
    grid = torch.cartesian_prod(axis, axis, axis)
    distance = (grid - (side - 1) / 2).float().norm(dim=1)
    nearest = (distance - 0.4 * side).abs().argsort(stable=True)[:count].sort().values
    coords = grid[nearest]
    return VoxelSet(torch.cat((torch.zeros_like(coords[:, :1]), coords), dim=1))


def dense_window_attention(q: Tensor, k: Tensor, v: Tensor, voxels: VoxelSet) -> Tensor:
    """Attend in every window of the dense grid, empty cells masked: what sparsity saves."""
    coords = voxels.coords[:, 1:] + _SHIFT
    cells = int(coords.max()) // _WINDOW + 1
    window, inside = coords // _WINDOW, coords % _WINDOW
    rows = (window[:, 0] * cells + window[:, 1]) * cells + window[:, 2]
    places = (inside[:, 0] * _WINDOW + inside[:, 1]) * _WINDOW + inside[:, 2]
    shape = (cells**3, _WINDOW**3)
    occupied = torch.zeros(shape, dtype=torch.bool)
    occupied[rows, places] = True

    def spread(x: Tensor) -> Tensor:
        dense = x.new_zeros(*shape, *x.shape[1:])
        dense[rows, places] = x
        return dense.transpose(1, 2)

    # An empty window has nothing to attend to: its mask is opened, and its rows are never read.
    mask = occupied | ~occupied.any(dim=1, keepdim=True)
    out = F.scaled_dot_product_attention(
        spread(q), spread(k), spread(v), attn_mask=mask[:, None, None, :]
    )
    return out.transpose(1, 2)[rows, places]


def measure(ways: dict[str, Callable[[], Tensor]], runs: int) -> dict[str, object]:
    """Take the CPU seconds of ways of the same result in turn, and compare them."""
    seconds: dict[str, list[float]] = {name: [] for name in ways}
    outputs: dict[str, Tensor] = {}
    for run in range(runs + 1):
        for name, work in ways.items():
            start = time.process_time()
            outputs[name] = work()
            if run:  # the first round warms up
                seconds[name].append(time.process_time() - start)
    times = {name: summarize(taken) for name, taken in seconds.items()}
    return {
        **times,
        "dense_over_sparse": round(times["dense"]["median_s"] / times["sparse"]["median_s"], 2),
        "largest_difference": float((outputs["sparse"] - outputs["dense"]).abs().max()),
    }


def conv_ways(voxels: VoxelSet) -> dict[str, Callable[[], Tensor]]:
    """A submanifold convolution of the stage-2 flow."""
    c = _CONV_CHANNELS
    x = SparseTensor(voxels, torch.randn(len(voxels), c))
    weight, bias = torch.randn(c, 3, 3, 3, c) * (27 * c) ** -0.5, torch.randn(c)
    return {
        "sparse": lambda: submanifold_conv(x, weight, bias),
        "dense": lambda: dense_masked_conv(x, weight, bias),
    }


def attention_ways(voxels: VoxelSet) -> dict[str, Callable[[], Tensor]]:
    """Shifted windows of a decoder."""
    q, k, v = torch.randn(3, len(voxels), _HEADS, _HEAD_WIDTH)
    return {
        "sparse": lambda: grouped_attention(q, k, v, voxels.buckets(_WINDOW, _SHIFT)),
        "dense": lambda: dense_window_attention(q, k, v, voxels),
    }


def peak_megabytes(count: int) -> float:
    """What this process's memory grows by, for maps and both sparse operations."""
    torch.set_num_threads(2)
    voxels = shell(count, 128)
    before = _megabytes("VmRSS")
    Path("/proc/self/clear_refs").write_text("5")  # the peak begins anew
    with torch.inference_mode():
        for ways in (conv_ways(voxels), attention_ways(voxels)):
            ways["sparse"]()
    return round(_megabytes("VmHWM") - before, 1)


def _megabytes(name: str) -> float:
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith(f"{name}:"):
            return int(line.split()[1]) / 1024
    raise RuntimeError(f"/proc/self/status has no {name}")


def main() -> None:
    """Measure and write the result."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--voxels", type=int, default=20_000)
    parser.add_argument("--runs", type=int, default=3)
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    torch.manual_seed(0)
    voxels = shell(arguments.voxels, 64)
    with torch.inference_mode():
        convolution = measure(conv_ways(voxels), arguments.runs)
        attention = measure(attention_ways(voxels), arguments.runs)
    # A process each, so that what one size leaves behind is not another's.
    context = multiprocessing.get_context("spawn")
    with context.Pool(1, maxtasksperchild=1) as pool:
        memory = {str(count): pool.apply(peak_megabytes, (count,)) for count in _CURVE}
    result = {
        "what": f"{arguments.voxels} voxels of a shell in 64^3, float32: 3x3x3 convolution of "
        f"{_CONV_CHANNELS} channels; attention in windows of {_WINDOW}, {_HEADS} heads of "
        f"{_HEAD_WIDTH}. CPU seconds of one thread. Memory in 128^3, both operations with their "
        "maps.",
        "machine": describe_machine(),
        "convolution": convolution,
        "attention": attention,
        "memory_mb_by_voxels": memory,
    }
    print(json.dumps(result, indent=1))
    print(write_result("sparse_ops", result))


if __name__ == "__main__":
    main()
