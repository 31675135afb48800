"""How the trainings write nano checkpoints: the published layout, in half precision."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import torch
from safetensors.torch import save_file
from torch import Tensor


def write_checkpoint(
    write_config: Callable[[Path], None], state: dict[str, Tensor], folder: Path
) -> None:
    """Write ``config.yaml`` and float16 ``model.safetensors`` into a folder, which is made.

    Args:
        write_config: writes the architecture's hyper-parameters to a path.
        state: the weights by their published keys, of any float type.
        folder: of the checkpoint.
    """
    folder.mkdir(parents=True, exist_ok=True)
    write_config(folder / "config.yaml")
    half = {key: value.to(torch.float16).contiguous() for key, value in state.items()}
    save_file(half, folder / "model.safetensors")
