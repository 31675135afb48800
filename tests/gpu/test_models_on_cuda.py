"""Every model at tiny size on a GPU: what a CPU makes, in every precision.

Skipped where there is no CUDA device; `python -m pytest tests/gpu` on a machine that has one.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from scipy.spatial import cKDTree

from dream_cad import ModelFactory
from dream_cad.models.base import GenerationResult
from tests import (
    tiny_hunyuan3d,
    tiny_mvdream,
    tiny_stable_fast_3d,
    tiny_trellis,
    tiny_triposr,
)

DEVICE = "cuda:0"

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="there is no CUDA device"),
]


@dataclass(frozen=True)
class Tiny:
    """A tiny model.

    Attributes:
        name: registered.
        write: writes its checkpoint below a folder and returns where that is.
        options: of a generation.
        prompt: None for a picture.
    """

    name: str
    write: Callable[[Path], Path]
    options: dict[str, Any] = field(default_factory=dict)
    prompt: str | None = None


TINY = {
    "triposr": Tiny("triposr", tiny_triposr.write_checkpoint),
    "stable-fast-3d": Tiny(
        "stable-fast-3d", tiny_stable_fast_3d.write_checkpoint, {"texture_size": 256}
    ),
    "trellis": Tiny("trellis", tiny_trellis.write_checkpoint, {"seed": 3}),
    "hunyuan3d-mini": Tiny(
        "hunyuan3d-mini", tiny_hunyuan3d.write_checkpoint, {"seed": 3, "octree_resolution": 32}
    ),
    "mvdream": Tiny(
        "mvdream",
        tiny_mvdream.write_checkpoint,
        {
            "seed": 3,
            "num_inference_steps": 3,
            "resolution": 32,
            "density_threshold": 0.5,
            "remove_background": False,
        },
        tiny_mvdream.PROMPT,
    ),
}


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    written = {}
    for name, tiny in TINY.items():
        root = tmp_path_factory.mktemp(name)
        made = tiny.write(root / "TRELLIS-image-large" if name == "trellis" else root)
        written[name] = root if name == "hunyuan3d-mini" else made
    return written


def generate(tiny: Tiny, folder: Path, device: str, precision: str) -> GenerationResult:
    model = ModelFactory.create_model(
        tiny.name, checkpoint=folder, device=device, precision=precision
    )
    try:
        if tiny.prompt is not None:
            return model.generate_from_text(tiny.prompt, **tiny.options)
        return model.generate_from_image(tiny_triposr.picture(), **tiny.options)
    finally:
        model.unload_model()


def distance(first: GenerationResult, second: GenerationResult) -> float:
    """Mean distance of each mesh's vertices to the other's; both fill the unit cube."""
    there = cKDTree(second.vertices).query(first.vertices)[0].mean()
    back = cKDTree(first.vertices).query(second.vertices)[0].mean()
    return float(there + back) / 2


@pytest.mark.parametrize("name", TINY)
def test_cuda_makes_what_a_cpu_makes(name: str, folders: dict[str, Path]) -> None:
    on_cpu = generate(TINY[name], folders[name], "cpu", "fp32")
    on_gpu = generate(TINY[name], folders[name], DEVICE, "fp32")
    assert len(on_gpu.faces) == pytest.approx(len(on_cpu.faces), rel=0.05)
    assert distance(on_gpu, on_cpu) < 0.01
    assert on_gpu.metadata["device"].startswith(DEVICE.split(":")[0])


@pytest.mark.parametrize("precision", ["fp16", "bf16"])
@pytest.mark.parametrize("name", TINY)
def test_half_precision_runs_on_cuda(name: str, precision: str, folders: dict[str, Path]) -> None:
    result = generate(TINY[name], folders[name], DEVICE, precision)
    assert np.isfinite(result.vertices).all()
    assert len(result.faces) > 50


@pytest.mark.parametrize("name", TINY)
def test_unloading_gives_the_memory_back(name: str, folders: dict[str, Path]) -> None:
    before = torch.cuda.memory_allocated()
    generate(TINY[name], folders[name], DEVICE, "fp32")
    assert torch.cuda.memory_allocated() <= before + 2**20
