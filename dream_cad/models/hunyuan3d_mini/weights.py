"""Load a Hunyuan3D-2mini variant from the published layout."""

from __future__ import annotations

from pathlib import Path

import torch

from dream_cad.exceptions import InvalidConfigError
from dream_cad.models.hunyuan3d_mini.config import Hunyuan3DConfig, Variant
from dream_cad.models.hunyuan3d_mini.network import Hunyuan3DNetwork
from dream_cad.models.loading import assign_weights, find_weights, read_weights, verify_weights

FOLDERS: dict[Variant, str] = {
    "standard": "hunyuan3d-dit-v2-mini",
    "fast": "hunyuan3d-dit-v2-mini-fast",
    "turbo": "hunyuan3d-dit-v2-mini-turbo",
}
CONFIG_FILE = "config.yaml"
WEIGHTS_FILES = ("model.fp16.safetensors", "model.safetensors")


def find_variant(folder: Path, variant: Variant) -> Path:
    """Return the folder of a variant: inside a checkout of the repository, or ``folder`` itself.

    Raises:
        InvalidConfigError: there is no such variant.
    """
    if variant not in FOLDERS:
        raise InvalidConfigError(
            f"variant is {variant!r}; choose one of {', '.join(FOLDERS)}.",
            details={"allowed": list(FOLDERS)},
        )
    inside = folder / FOLDERS[variant]
    return inside if inside.is_dir() else folder


def load_network(
    folder: Path, *, device: torch.device | str = "cpu", dtype: torch.dtype = torch.float32
) -> Hunyuan3DNetwork:
    """Load a variant's folder: weights verified against its config.yaml, in evaluation mode.

    Args:
        folder: ``config.yaml`` with ``model.fp16.safetensors``.
        device: where to put the networks.
        dtype: of all weights.

    Raises:
        CheckpointError: a file is missing or damaged, or the two do not fit each other.
    """
    path = find_weights(folder, WEIGHTS_FILES, model="hunyuan3d-mini")
    config = Hunyuan3DConfig.from_yaml(folder / CONFIG_FILE)
    with torch.device("meta"):
        network = Hunyuan3DNetwork(config)
    state = read_weights(path)
    verify_weights(state, network, path)
    assign_weights(network, state, device=torch.device(device), dtype_of=lambda _: dtype)
    return network
