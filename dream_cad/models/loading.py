"""Read weights files and put them into networks: verified, without a second copy."""

from __future__ import annotations

import pickle
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor, nn

from dream_cad.exceptions import CheckpointError
from dream_cad.settings import Precision

DTYPES: dict[Precision, torch.dtype] = {
    "fp32": torch.float32,
    "fp16": torch.float16,
    "bf16": torch.bfloat16,
}

_SHOWN = 5
_DAMAGED = (RuntimeError, ValueError, KeyError, EOFError, pickle.UnpicklingError, SafetensorError)


def find_weights(folder: Path, names: Sequence[str], *, model: str) -> Path:
    """Return the weights file of a checkpoint folder.

    Args:
        folder: in the published layout.
        names: files to look for; the first that is there wins.
        model: registered name of the model, for the error.

    Raises:
        CheckpointError: there is none of them.
    """
    for name in names:
        if (folder / name).is_file():
            return folder / name
    raise CheckpointError(
        f"{folder} holds no weights of {model}; {' or '.join(names)} was expected.",
        hint=f"Run 'dream-cad pull {model}', or name a folder in the published layout.",
    )


def read_weights(path: Path) -> Mapping[str, Tensor]:
    """Map a weights file into memory; nothing is read before it is used.

    Args:
        path: ``.safetensors``, or a torch zip (``.ckpt``, ``.pt``, ``.bin``) holding one flat
            dictionary of tensors. Pickles are read weights-only: no code in them runs.

    Raises:
        CheckpointError: the file is missing, damaged, or holds something else.
    """
    try:
        if path.suffix == ".safetensors":
            return load_file(path)
        state = torch.load(path, map_location="cpu", weights_only=True, mmap=True)
    except OSError as error:
        raise CheckpointError(f"{path} cannot be read: {error}") from error
    except _DAMAGED as error:
        raise CheckpointError(
            f"{path} is damaged or no weights file: {_first_line(error)}",
            hint="Fetch it again and compare its SHA-256.",
        ) from error
    if not isinstance(state, Mapping) or not all(torch.is_tensor(v) for v in state.values()):
        raise CheckpointError(f"{path} does not hold a flat dictionary of tensors.")
    return state


def _first_line(error: Exception) -> str:
    return str(error).strip().partition("\n")[0][:200] or type(error).__name__


def verify_weights(state: Mapping[str, Tensor], network: nn.Module, source: Path) -> None:
    """Compare a state dict with a network, key by key and shape by shape.

    Raises:
        CheckpointError: names the first missing, unexpected and differently shaped entries.
    """
    wanted = network.state_dict()
    missing = [key for key in wanted if key not in state]
    unexpected = [key for key in state if key not in wanted]
    shapes = [
        f"{key} {tuple(state[key].shape)} instead of {tuple(tensor.shape)}"
        for key, tensor in wanted.items()
        if key in state and state[key].shape != tensor.shape
    ]
    differences = [
        f"{len(names)} {what}: {_some(names)}"
        for what, names in (
            ("missing", missing),
            ("unexpected", unexpected),
            ("of another shape", shapes),
        )
        if names
    ]
    if differences:
        raise CheckpointError(
            f"{source} does not fit the network ({len(wanted)} tensors): {'; '.join(differences)}.",
            hint="Check that weights and configuration belong together and are of this model.",
            details={"missing": missing, "unexpected": unexpected, "shapes": shapes},
        )


def _some(names: Iterable[str]) -> str:
    listed = list(names)
    more = f" and {len(listed) - _SHOWN} more" if len(listed) > _SHOWN else ""
    return ", ".join(listed[:_SHOWN]) + more


def assign_weights(
    network: nn.Module,
    state: Mapping[str, Tensor],
    *,
    device: torch.device,
    dtype_of: Callable[[str], torch.dtype],
) -> None:
    """Copy each tensor once, cast and onto the device, and make it the network's own.

    Args:
        network: built on the meta device; afterwards in evaluation mode without gradients.
            Buffers that no checkpoint holds are left on the meta device: the caller sets them.
        state: verified weights, usually mapped from a file.
        device: where the network shall live.
        dtype_of: dtype for a key.
    """
    tensors = {
        key: value.to(device=device, dtype=dtype_of(key), copy=True) for key, value in state.items()
    }
    network.load_state_dict(tensors, strict=True, assign=True)
    network.eval().requires_grad_(False)
