"""Load Stable Fast 3D from a folder in the published layout, or from nano's."""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path

import torch
from torch import Tensor

from dream_cad.exceptions import CheckpointError
from dream_cad.models.loading import assign_weights, read_weights, verify_weights
from dream_cad.models.stable_fast_3d.config_file import read_config
from dream_cad.models.stable_fast_3d.network import StableFast3DNetwork
from dream_cad.settings import Precision

DTYPES: dict[Precision, torch.dtype] = {
    "fp32": torch.float32,
    "fp16": torch.float16,
    "bf16": torch.bfloat16,
}
CONFIG_FILE = "config.yaml"
WEIGHTS_FILE = "model.safetensors"

# CLIP's text tower, which published files hold and nothing reads.
_TEXT_TOWER = re.compile(
    r"image_estimator\.model\."
    r"(positional_embedding$|text_projection$|logit_scale$|token_embedding\.|transformer\.|ln_final\.)"
)
# Published files store each modulation under one of two names.
_TIED = re.compile(r"image_tokenizer\.modulations\.(\d+)\.(.+)")


def find_weights(folder: Path) -> Path:
    """Return the weights file of a checkpoint folder.

    Raises:
        CheckpointError: there is none.
    """
    path = folder / WEIGHTS_FILE
    if not path.is_file():
        raise CheckpointError(
            f"{folder} holds no Stable Fast 3D weights; {WEIGHTS_FILE} was expected.",
            hint="Run 'dream-cad pull stable-fast-3d', or name another checkpoint.",
        )
    return path


def load_network(
    folder: Path, *, device: torch.device | str = "cpu", dtype: torch.dtype = torch.float32
) -> StableFast3DNetwork:
    """Load a checkpoint folder: weights verified against its config.yaml, in evaluation mode.

    The decoder stays float32, see StableFast3DNetwork.

    Args:
        folder: ``config.yaml`` with ``model.safetensors``.
        device: where to put the network.
        dtype: of everything but the decoder.

    Raises:
        CheckpointError: a file is missing or damaged, or the two do not fit each other.
    """
    path = find_weights(folder)
    config = read_config(folder / CONFIG_FILE)
    with torch.device("meta"):
        network = StableFast3DNetwork(config)
    state = rename_tied(read_weights(path))
    verify_weights(state, network, path)

    def dtype_of(key: str) -> torch.dtype:
        return torch.float32 if key.startswith(("decoder.", "bbox")) else dtype

    assign_weights(network, state, device=torch.device(device), dtype_of=dtype_of)
    return network


def rename_tied(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Return the tensors that inference reads, modulations under their layers' names.

    Raises:
        CheckpointError: a modulation is stored under both names with different values.
    """
    renamed: dict[str, Tensor] = {}
    for key, tensor in state.items():
        if _TEXT_TOWER.match(key):
            continue
        name = key
        if tied := _TIED.fullmatch(key):
            layer, norm = divmod(int(tied[1]), 2)
            name = (
                f"image_tokenizer.model.encoder.layer.{layer}.norm{norm + 1}_modulation.{tied[2]}"
            )
        if name in renamed and not torch.equal(renamed[name], tensor):
            raise CheckpointError(
                f"{name} is stored twice, with different values.",
                hint="The file is damaged, or of a version this release does not know.",
            )
        renamed[name] = tensor
    return renamed
