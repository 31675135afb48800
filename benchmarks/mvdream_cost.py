"""What MVDream costs at its published size: a UNet step against its matrix products, and memory.

``python -m benchmarks.mvdream_cost [--runs 3] [--threads 2]`` writes results/mvdream_cost.json. No
published weights are needed. The step runs on this machine with random weights: as time does
not depend on their values, all layers use slices of one random buffer, which keeps 3.5 GB of
weights out of memory. Memory is computed, not measured: the networks run on torch's meta device
in half precision, as on a GPU, and the bytes of all tensors alive are counted;
workspaces of GPU kernels and the allocator's rounding come on top.
"""

from __future__ import annotations

import argparse
import json
import time
import weakref
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, TypeVar

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils.flop_counter import FlopCounterMode

from benchmarks.environment import describe_machine, summarize, write_result
from dream_cad.models.mvdream.config import LGMConfig, MVDreamConfig
from dream_cad.models.mvdream.lgm import LGM
from dream_cad.models.mvdream.network import MVDreamNetwork
from dream_cad.models.mvdream.unet import MultiViewUNet

Network = TypeVar("Network", bound=nn.Module)

VIEWS, TOKENS = 4, 77
LIMIT_GIB = 10.0
_GEMM = 2048


class LiveBytes(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """Counts the bytes of all storages that operations inside the block made and that are alive.

    Args:
        weights: modules whose parameters are not counted: a layer makes views of its own.
    """

    def __init__(self, *weights: nn.Module) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.now = self.peak = 0
        parameters = [p for module in weights for p in module.parameters()]
        self._known: set[int] = {p.untyped_storage()._cdata for p in parameters}

    def __torch_dispatch__(
        self, func: Any, types: Any, args: Any = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        """Run the operation, and watch what it made."""
        made = func(*args, **(kwargs or {}))
        for tensor in made if isinstance(made, tuple | list) else (made,):
            if isinstance(tensor, Tensor):
                self._watch(tensor)
        return made

    def _watch(self, tensor: Tensor) -> None:
        storage = tensor.untyped_storage()
        key, size = storage._cdata, storage.nbytes()
        if key in self._known:
            return
        self._known.add(key)
        self.now += size
        self.peak = max(self.peak, self.now)
        weakref.finalize(storage, self._forget, key, size)

    def _forget(self, key: int, size: int) -> None:
        self._known.discard(key)
        self.now -= size


@contextmanager
def fused_attention() -> Iterator[None]:
    """Let attention on the meta device leave its result alone, as fused kernels do.

    There torch holds every score; on a GPU (float16, heads of 64) it does not.
    """
    plain = F.scaled_dot_product_attention

    def fused(query: Tensor, key: Tensor, value: Tensor, **_: object) -> Tensor:
        return query.new_empty((*query.shape[:-1], value.shape[-1]))

    F.scaled_dot_product_attention = fused  # type: ignore[assignment]
    try:
        yield
    finally:
        F.scaled_dot_product_attention = plain


def step_input(device: str, dtype: torch.dtype) -> tuple[Tensor, Tensor, Tensor, Tensor, int]:
    """Latents, timesteps, text and cameras of one guided step: prompt and negative prompt."""
    batch = 2 * VIEWS
    config = MVDreamConfig.published()
    side, width = config.unet.image_size, config.unet.context_dim
    return (
        torch.zeros(batch, 4, side, side, device=device, dtype=dtype),
        torch.full((batch,), 500, device=device),
        torch.zeros(batch, TOKENS, width, device=device, dtype=dtype),
        torch.zeros(batch, config.unet.camera_dim, device=device, dtype=dtype),
        VIEWS,
    )


@torch.no_grad()
def count_products() -> dict[str, int]:
    """Floating-point operations of one guided UNet step, by kind of product."""
    with torch.device("meta"):
        unet = MultiViewUNet(MVDreamConfig.published().unet)
    with FlopCounterMode(display=False) as counter:
        unet(*step_input("meta", torch.float32))
    kinds = Counter[str]()
    for operation, count in counter.get_flop_counts()["Global"].items():
        kinds[str(operation).removeprefix("aten.")] += int(count)
    return dict(kinds)


@torch.no_grad()
def shared_weights(unet: Network) -> Network:
    """Give a network of the meta device slices of one random buffer as weights."""
    pool = torch.randn(max(parameter.numel() for parameter in unet.parameters())) * 0.02
    for module in unet.modules():
        for name, parameter in list(module.named_parameters(recurse=False)):
            values = pool[: parameter.numel()].view(parameter.shape)
            setattr(module, name, nn.Parameter(values, requires_grad=False))
    return unet.eval()


def seconds_of(work: Callable[[], object], runs: int) -> tuple[list[float], list[float]]:
    """Wall and CPU seconds of each run after one that warms up."""
    wall, cpu = [], []
    for _ in range(runs + 1):
        start, begun = time.perf_counter(), time.process_time()
        work()
        wall.append(time.perf_counter() - start)
        cpu.append(time.process_time() - begun)
    return wall[1:], cpu[1:]


@torch.no_grad()
def measure_step(runs: int) -> dict[str, Any]:
    """Seconds of a guided step, and its products' rate against one large matrix product's.

    Rates are by CPU seconds of all threads: other work on the machine changes them less.
    """
    with torch.device("meta"):
        unet = MultiViewUNet(MVDreamConfig.published().unet)
    shared_weights(unet)
    given = step_input("cpu", torch.float32)
    wall, cpu = seconds_of(lambda: unet(*given), runs)
    square = torch.randn(_GEMM, _GEMM)
    product = min(seconds_of(lambda: square @ square, max(3 * runs, 9))[1])
    products = count_products()
    rate = sum(products.values()) / min(cpu)
    peak = 2 * _GEMM**3 / product
    return {
        "what": f"float32, {2 * VIEWS} views of {given[0].shape[-1]}² latents, classifier-free "
        "guidance in one batch",
        "wall": summarize(wall),
        "cpu": summarize(cpu),
        "teraflop": {name: round(count / 1e12, 4) for name, count in products.items()},
        "total_teraflop": round(sum(products.values()) / 1e12, 4),
        "gigaflop_per_cpu_s": round(rate / 1e9, 1),
        "large_product_gigaflop_per_cpu_s": round(peak / 1e9, 1),
        "share_of_large_product": round(rate / peak, 3),
    }


@torch.no_grad()
def peak_of(work: Callable[[], object], *weights: nn.Module) -> int:
    """Bytes alive at once that the work makes; neither its input nor the weights are counted."""
    live = LiveBytes(*weights)
    with live:
        work()
    return live.peak


def lgm_road_memory() -> dict[str, Any]:
    """Weights and the largest activations of each stage of the lgm road, in GiB of float16."""
    half = torch.float16
    with torch.device("meta"):
        network = MVDreamNetwork(MVDreamConfig.published()).to(half).eval()
        lgm = LGM(LGMConfig()).to(half).eval()
    ids = torch.zeros(1, TOKENS, dtype=torch.long, device="meta")
    side = network.config.unet.image_size
    latents = torch.zeros(VIEWS, 4, side, side, device="meta")
    views = torch.zeros(1, VIEWS, 9, lgm.config.input_size, lgm.config.input_size, device="meta")
    stages: dict[str, Callable[[], object]] = {
        "text": lambda: network.text_encoder(ids),
        "unet step": lambda: network.unet(*step_input("meta", half)),
        "decode": lambda: network.decode(latents),
        "gaussians": lambda: lgm(views),
    }
    weights = sum(p.numel() * p.element_size() for m in (network, lgm) for p in m.parameters())
    peaks = {name: peak_of(work, network, lgm) for name, work in stages.items()}
    total = weights + max(peaks.values())
    return {
        "weights_gib": round(weights / 2**30, 3),
        "activations_gib": {name: round(peak / 2**30, 3) for name, peak in peaks.items()},
        "peak_gib": round(total / 2**30, 3),
        "limit_gib": LIMIT_GIB,
    }


def main() -> None:
    """Measure, compute and write the result."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--runs", type=int, default=3)
    parser.add_argument("--threads", type=int, default=2)
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    machine = describe_machine()
    with fused_attention():
        memory = lgm_road_memory()
    result = {
        "machine": machine,
        "unet_step": measure_step(arguments.runs),
        "lgm_road_memory": memory,
    }
    print(json.dumps(result, indent=1))
    print(write_result("mvdream_cost", result))


if __name__ == "__main__":
    main()
