"""TripoSR's backbone at published width: fused attention and prefix against plain attention.

``python -m benchmarks.backbone_attention [--layers 2] [--runs 5]`` writes
results/backbone_attention.json. Fewer layers than the published 16 keep it short; all layers are
alike, and the time of one layer is the difference between two depths.
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Callable
from functools import partial

import torch
import torch.nn.functional as F

from benchmarks.environment import describe_machine, summarize, write_result
from dream_cad.models.triposr.config import TripoSRConfig
from dream_cad.models.triposr.network import Transformer1D
from dream_cad.nn.attention import Attention, AttentionKernel, plain_attention


def set_kernel(backbone: Transformer1D, kernel: AttentionKernel) -> None:
    """Let every attention of the backbone use ``kernel``."""
    for module in backbone.modules():
        if isinstance(module, Attention):
            module.kernel = kernel


def timed(work: Callable[[], torch.Tensor]) -> tuple[float, torch.Tensor]:
    """Seconds and result of one call."""
    start = time.perf_counter()
    result = work()
    return time.perf_counter() - start, result


@torch.inference_mode()
def main() -> None:
    """Measure and write the result."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--layers", type=int, default=2)
    parser.add_argument("--runs", type=int, default=5)
    arguments = parser.parse_args()
    machine = describe_machine()
    config = TripoSRConfig.published()
    torch.manual_seed(0)
    backbone = Transformer1D(
        config.num_channels,
        config.num_attention_heads,
        config.attention_head_dim,
        arguments.layers,
        config.vit.hidden_size,
    ).eval()
    tokens = torch.randn(1, config.num_channels, 3 * config.plane_size**2)
    context = torch.randn(1, 1025, config.vit.hidden_size)
    prefix = backbone.prefix(tokens)
    ways: dict[str, tuple[AttentionKernel, torch.Tensor | None]] = {
        "plain": (plain_attention, None),
        "fused": (F.scaled_dot_product_attention, None),
        "fused_with_prefix": (F.scaled_dot_product_attention, prefix),
    }
    seconds: dict[str, list[float]] = {name: [] for name in ways}
    outputs: dict[str, torch.Tensor] = {}
    for run in range(arguments.runs + 1):
        for name, (kernel, known) in ways.items():
            set_kernel(backbone, kernel)
            taken, outputs[name] = timed(partial(backbone, tokens, context, known))
            if run:  # the first round warms up
                seconds[name].append(taken)
    times = {name: summarize(taken) for name, taken in seconds.items()}
    result = {
        "what": f"Transformer1D, 3072 tokens x 1024, context 1025 x 768, {arguments.layers} of 16 "
        "layers, float32",
        "machine": machine,
        **times,
        "fused_over_plain": round(times["fused"]["median_s"] / times["plain"]["median_s"], 3),
        "with_prefix_over_plain": round(
            times["fused_with_prefix"]["median_s"] / times["plain"]["median_s"], 3
        ),
        "largest_difference": max(
            float((outputs[name] - outputs["plain"]).abs().max()) for name in outputs
        ),
    }
    print(json.dumps(result, indent=1))
    print(write_result("backbone_attention", result))


if __name__ == "__main__":
    main()
