"""Load a diffusers pipeline folder onto a device; torch and diffusers are imported on use."""

from __future__ import annotations

import gc
import logging
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from dream_cad.exceptions import CheckpointError, InsufficientVRAMError, InvalidConfigError
from dream_cad.images.pipeline_folder import count_weight_bytes, find_variant
from dream_cad.settings import Precision, get_settings
from dream_cad.utils import clear_gpu_cache

_DTYPES = {"fp32": "float32", "fp16": "float16", "bf16": "bfloat16"}
_NEEDS_BFLOAT16 = ("Flux", "ZImage")
"""Pipelines whose activations overflow in float16."""
_ACTIVATION_RESERVE = 0.8
"""Share of the free GPU memory that weights may take; the rest is for activations."""


def choose_device(device: str | None) -> str:
    """Return the device to run on.

    Raises:
        InvalidConfigError: not ``cpu`` or ``cuda:<n>``, or no such GPU.
    """
    import torch

    count = torch.cuda.device_count() if torch.cuda.is_available() else 0
    if device is None:
        return f"cuda:{get_settings().gpu_id}" if count else "cpu"
    try:
        parsed = torch.device(device)
    except RuntimeError as error:
        raise InvalidConfigError(
            f"{device!r} is not a device.", hint='Use "cpu" or "cuda:0".'
        ) from error
    if parsed.type == "cuda" and (parsed.index or 0) >= count:
        raise InvalidConfigError(
            f"The device {device!r} is asked for, but this machine has {count} CUDA device(s).",
            hint='Use device="cpu".' if not count else f"Use cuda:0 to cuda:{count - 1}.",
        )
    return device


def choose_precision(
    precision: Precision | None, model_index: dict[str, Any], device: str
) -> Precision:
    """Return the precision asked for, else fp32 on a CPU and the pipeline's own on a GPU.

    Raises:
        InvalidConfigError: none of fp32, fp16, bf16.
    """
    chosen = precision or get_settings().precision
    if chosen is not None:
        if chosen not in _DTYPES:
            raise InvalidConfigError(f"precision is {chosen!r}; choose one of {list(_DTYPES)}.")
        return chosen
    if device == "cpu":
        return "fp32"
    return "bf16" if model_index["_class_name"].startswith(_NEEDS_BFLOAT16) else "fp16"


def needs_offload(weight_bytes: int, free_bytes: int) -> bool:
    """Tell whether parts must wait in main memory because not all weights fit on the GPU."""
    return weight_bytes > free_bytes * _ACTIVATION_RESERVE


def load_pipeline(folder: Path, *, precision: Precision, device: str) -> Any:
    """Load a text-to-image pipeline.

    Args:
        folder: diffusers layout, its ``model_index.json`` checked by ``read_model_index``.
        precision: dtype of weights and activations.
        device: ``"cpu"`` or ``"cuda:<n>"``. Pipelines too large for the GPU move their parts
            there one after the other.

    Raises:
        CheckpointError: incomplete, damaged, or weights that are not safetensors.
        InsufficientVRAMError: even the largest part does not fit.
    """
    import torch

    variant = find_variant(folder) if precision != "fp32" else None
    try:
        with _quiet_libraries():
            pipeline = _import_pipeline_class().from_pretrained(
                str(folder),
                dtype=getattr(torch, _DTYPES[precision]),
                variant=variant,
                use_safetensors=True,
                local_files_only=True,
            )
        pipeline.set_progress_bar_config(disable=True)
        return _place(pipeline, device, count_weight_bytes(folder, variant))
    except torch.cuda.OutOfMemoryError as error:
        raise InsufficientVRAMError(
            f"The text-to-image pipeline {folder.name!r} does not fit on {device}.",
            hint="Use a smaller pipeline (DREAM_CAD_TEXT_TO_IMAGE) or DREAM_CAD_CHECKPOINT=nano.",
        ) from error
    except Exception as error:  # loaders of damaged files raise anything, also Exception itself
        raise CheckpointError(
            f"The text-to-image pipeline in {str(folder)!r} cannot be loaded: {error}",
            hint="Fetch it again; only safetensors weights are accepted.",
        ) from error


def _import_pipeline_class() -> Any:
    from diffusers import DiffusionPipeline

    return DiffusionPipeline


@contextmanager
def _quiet_libraries() -> Iterator[None]:
    """Silence loading bars and advice on optional packages; errors are raised all the same."""
    import diffusers
    import transformers

    for library in (diffusers, transformers):
        library.utils.logging.disable_progress_bar()
    verbosity = transformers.utils.logging.get_verbosity()
    transformers.utils.logging.set_verbosity(logging.ERROR)
    try:
        yield
    finally:
        transformers.utils.logging.set_verbosity(verbosity)
        for library in (diffusers, transformers):
            library.utils.logging.enable_progress_bar()


def _place(pipeline: Any, device: str, weight_bytes: int) -> Any:
    import torch

    if device == "cpu":
        return pipeline.to("cpu")
    index = torch.device(device).index or 0
    free_bytes, _ = torch.cuda.mem_get_info(index)
    if needs_offload(weight_bytes, free_bytes):
        pipeline.enable_model_cpu_offload(gpu_id=index)
        return pipeline
    return pipeline.to(device)


def release_pipeline(pipeline: Any) -> None:
    """Free a pipeline's tensors even if someone still holds a reference to its shell."""
    pipeline.remove_all_hooks()
    for name in list(pipeline.components):
        setattr(pipeline, name, None)
    gc.collect()
    clear_gpu_cache()
