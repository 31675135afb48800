"""Load TripoSR from a folder in the published layout, or from nano's."""

from __future__ import annotations

from pathlib import Path

import torch

from dream_cad.models.loading import assign_weights, find_weights, read_weights, verify_weights
from dream_cad.models.triposr.config import TripoSRConfig
from dream_cad.models.triposr.network import TripoSRNetwork

CONFIG_FILE = "config.yaml"
# Ours first: where both lie in a folder, safetensors is the one somebody converted on purpose.
WEIGHTS_FILES = ("model.safetensors", "model.ckpt")


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
    path = find_weights(folder, WEIGHTS_FILES, model="triposr")
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
