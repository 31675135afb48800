"""Load TripoSR from a folder in the published layout, or from nano's."""

from __future__ import annotations

from pathlib import Path

import torch

from dream_cad.exceptions import CheckpointError
from dream_cad.models.loading import assign_weights, read_weights, verify_weights
from dream_cad.models.triposr.config import TripoSRConfig
from dream_cad.models.triposr.network import TripoSRNetwork
from dream_cad.settings import Precision

DTYPES: dict[Precision, torch.dtype] = {
    "fp32": torch.float32,
    "fp16": torch.float16,
    "bf16": torch.bfloat16,
}
CONFIG_FILE = "config.yaml"
# Ours first: where both lie in a folder, safetensors is the one somebody converted on purpose.
WEIGHTS_FILES = ("model.safetensors", "model.ckpt")


def find_weights(folder: Path) -> Path:
    """Return the weights file of a checkpoint folder.

    Raises:
        CheckpointError: there is none.
    """
    for name in WEIGHTS_FILES:
        if (folder / name).is_file():
            return folder / name
    raise CheckpointError(
        f"{folder} holds no TripoSR weights; {' or '.join(WEIGHTS_FILES)} was expected.",
        hint="Run 'dream-cad pull triposr', or name another checkpoint.",
    )


def load_network(
    folder: Path, *, device: torch.device | str = "cpu", dtype: torch.dtype = torch.float32
) -> TripoSRNetwork:
    """Load a checkpoint folder: weights verified against its config.yaml, in evaluation mode.

    The network is built on the meta device and the weights are copied once, from the mapped
    file to their place. The decoder stays float32, see TripoSRNetwork.

    Args:
        folder: ``config.yaml`` with ``model.safetensors`` or ``model.ckpt``.
        device: where to put the network.
        dtype: of everything but the decoder.

    Raises:
        CheckpointError: a file is missing or damaged, or the two do not fit each other.
    """
    path = find_weights(folder)
    config = TripoSRConfig.from_yaml(folder / CONFIG_FILE)
    with torch.device("meta"):
        network = TripoSRNetwork(config)
    state = read_weights(path)
    verify_weights(state, network, path)

    def dtype_of(key: str) -> torch.dtype:
        return torch.float32 if key.startswith("decoder.") else dtype

    target = torch.device(device)
    assign_weights(network, state, device=target, dtype_of=dtype_of)
    network.image_tokenizer.reset_constants(target)
    return network
