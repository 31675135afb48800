"""A denoising step of Hunyuan3D-2mini at published size against its matrix products, and memory.

``python -m benchmarks.denoising_step [--runs 3]`` writes results/denoising_step.json. No published
weights are needed: time does not depend on their values, so all layers use slices of one random
buffer. The products that a step runs (linear layers, attention) are listed by running it on
torch's meta device; each distinct one is then timed alone, at the same dtype and shapes, on the
same threads; the ratio is the step's seconds over the sum of theirs. Steps and products take turns.
Memory is computed on the meta device (see benchmarks/mvdream_cost.py): the bytes of all tensors
alive at once beside the weights, in half precision, with pictures and options at their defaults.
"""

from __future__ import annotations

import argparse
import json
import time
from collections import Counter
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

from benchmarks.environment import describe_machine, summarize, write_result
from benchmarks.mvdream_cost import fused_attention, peak_of, shared_weights
from dream_cad.models.hunyuan3d_mini.config import Hunyuan3DConfig
from dream_cad.models.hunyuan3d_mini.dit import DiTConfig, Hunyuan3DDiT
from dream_cad.models.hunyuan3d_mini.network import Hunyuan3DNetwork
from dream_cad.models.hunyuan3d_mini.pipeline import CUDA_CHUNK
from dream_cad.models.hunyuan3d_mini.schedule import GuidedVelocity

LATENTS, CONDITION = 512, 1370
LIMIT_RATIO, LIMIT_GIB = 1.05, 2.0
_PRODUCTS = ("mm", "addmm", "bmm", "baddbmm")
_ATTENTION = "_scaled_dot_product"

Product = tuple[str, tuple[tuple[int, ...], ...]]


class ListProducts(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """Counts the matrix products that operations inside the block run, by kind and shapes."""

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.found: Counter[Product] = Counter()

    def __torch_dispatch__(
        self, func: Any, types: Any, args: Any = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        """Note the operation if it is a product, and run it."""
        name = func.__name__.partition(".")[0]
        if name in _PRODUCTS or name.startswith(_ATTENTION):
            shapes = tuple(tuple(arg.shape) for arg in args if isinstance(arg, Tensor))
            self.found[name, shapes] += 1
        return func(*args, **(kwargs or {}))


def make_step(device: str) -> Callable[[], Tensor]:
    """Return a guided step of the standard variant: picture and no picture in one batch."""
    config = DiTConfig()
    with torch.device("meta"):
        network = Hunyuan3DDiT(config)
    if device != "meta":
        shared_weights(network)
    condition = torch.zeros(1, CONDITION, config.context_in_dim, device=device)
    latents = torch.zeros(1, LATENTS, config.in_channels, device=device)
    velocity = GuidedVelocity(network, condition, 5.0)
    return lambda: velocity(latents, 0.5)


def run_product(product: Product) -> Callable[[], object]:
    """Return a call of one product on random operands of its shapes."""
    name, shapes = product
    operands = [torch.randn(shape) for shape in shapes]
    if name.startswith(_ATTENTION):
        query, key, value = operands[:3]
        return lambda: torch.nn.functional.scaled_dot_product_attention(query, key, value)
    verb: Callable[..., Tensor] = getattr(torch, name)
    return lambda: verb(*operands)


def seconds_of(work: Callable[[], object], least_s: float = 0.0) -> float:
    """Return seconds a call: the least of three and as many more as ``least_s`` allows."""
    work()
    best, begun, done = float("inf"), time.perf_counter(), 0
    while done < 3 or time.perf_counter() - begun < least_s:
        start = time.perf_counter()
        work()
        best = min(best, time.perf_counter() - start)
        done += 1
    return best


@torch.no_grad()
def measure_step(runs: int) -> dict[str, Any]:
    """Return the step's seconds, its products' and the ratio, turn by turn."""
    lister, on_meta = ListProducts(), make_step("meta")
    with lister:
        on_meta()
    step = make_step("cpu")
    step()
    steps, products = [], []
    for _ in range(runs):
        start = time.perf_counter()
        step()
        steps.append(time.perf_counter() - start)
        products.append(
            sum(seconds_of(run_product(one)) * times for one, times in lister.found.items())
        )
    ratio = min(steps) / min(products)
    return {
        "what": f"float32, batch of 2 (guidance), {LATENTS} latents, {CONDITION} picture tokens",
        "products": sum(lister.found.values()),
        "distinct_products": len(lister.found),
        "step": summarize(steps),
        "products_alone": summarize(products),
        "ratio": round(ratio, 3),
        "limit_ratio": LIMIT_RATIO,
        "is_met": ratio <= LIMIT_RATIO,
    }


@torch.no_grad()
def compute_memory() -> dict[str, Any]:
    """Return weights and the largest activations of each stage, in GiB of float16."""
    half = torch.float16
    config = Hunyuan3DConfig()
    with torch.device("meta"):
        network = Hunyuan3DNetwork(config).to(half).eval()
    picture = torch.zeros(1, 3, config.image_size, config.image_size, device="meta", dtype=half)
    tokens = torch.zeros(1, CONDITION, config.dit.context_in_dim, device="meta", dtype=half)
    latents = torch.zeros(1, LATENTS, config.dit.in_channels, device="meta", dtype=half)
    decoder = network.vae.geo_decoder
    points = torch.zeros(1, CUDA_CHUNK, 3, device="meta")

    def decode() -> object:
        return decoder(points, decoder.remember(network.vae.decode(latents)))

    stages: dict[str, Callable[[], object]] = {
        "condition": lambda: network.conditioner(picture),
        "step": lambda: GuidedVelocity(network.model, tokens, 5.0)(latents, 0.5),
        "decode": decode,
    }
    weights = sum(p.numel() * p.element_size() for p in network.parameters())
    peaks = {name: peak_of(work, network) / 2**30 for name, work in stages.items()}
    return {
        "weights_gib": round(weights / 2**30, 3),
        "activations_gib": {name: round(peak, 3) for name, peak in peaks.items()},
        "beyond_weights_gib": round(max(peaks.values()), 3),
        "limit_gib": LIMIT_GIB,
        "is_met": max(peaks.values()) <= LIMIT_GIB,
    }


def main() -> None:
    """Measure, compute and write the result."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--runs", type=int, default=3)
    parser.add_argument("--threads", type=int, default=2)
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    machine = describe_machine()
    with fused_attention():
        memory = compute_memory()
    result = {"machine": machine, "step": measure_step(args.runs), "memory": memory}
    print(json.dumps(result, indent=1))
    print(write_result("denoising_step", result))


if __name__ == "__main__":
    main()
