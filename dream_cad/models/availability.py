"""Whether a model can run on this machine, with which checkpoint, and if not, why."""

from __future__ import annotations

from dataclasses import dataclass

from dream_cad.checkpoints import nano_folder
from dream_cad.exceptions import DreamCadError
from dream_cad.gpu import get_total_vram
from dream_cad.models.base import ModelCapabilities
from dream_cad.models.registry import ModelEntry, ModelRegistry, resolve_implementation
from dream_cad.settings import get_settings


@dataclass(frozen=True)
class ModelAvailability:
    """What ``dream-cad models`` and GET /v1/models tell about a model.

    Attributes:
        available: whether it can be created here with the present settings.
        checkpoint: ``"published"`` or ``"nano"``; None when unavailable, and for models of users,
            which bring weights of their own or none.
        reason: one sentence: what it would run with, or what is missing.
        device: ``"cuda:<n>"`` or ``"cpu"``; None when unavailable.
    """

    available: bool
    checkpoint: str | None
    reason: str
    device: str | None


def get_availability(name: str, *, vram_gb: float | None = None) -> ModelAvailability:
    """Tell whether ``name`` can run here.

    Args:
        name: a registered model.
        vram_gb: GPU memory to judge by, in GB; that of this process's GPU when None. A router
            passes that of the cluster's GPUs.

    Raises:
        ModelNotFoundError: no model of that name is registered.
    """
    registry = ModelRegistry()
    entry = registry.get_entry(name)
    if not entry.is_implemented:
        return _unavailable("not in this version")
    try:
        capabilities = registry.require_capabilities(name)
        if entry.origin != "built-in":
            resolve_implementation(name)
    except DreamCadError as error:
        return _unavailable(str(error))
    memory_gb = get_total_vram() if vram_gb is None else vram_gb
    if entry.origin == "built-in":
        return _built_in_availability(entry, capabilities, memory_gb)
    if memory_gb < capabilities.min_vram_gb:
        return _unavailable(_too_small(capabilities, memory_gb))
    device = _device(has_gpu=memory_gb > 0)
    return ModelAvailability(True, None, "registered by the user", device)


def _built_in_availability(
    entry: ModelEntry, capabilities: ModelCapabilities, memory_gb: float
) -> ModelAvailability:
    choice = get_settings().checkpoint
    fits = memory_gb >= capabilities.min_vram_gb
    has_nano = nano_folder(entry.name) is not None
    if choice == "published" or (choice == "auto" and fits):
        text = "published weights" if fits else "published weights, slow without a large GPU"
        return ModelAvailability(True, "published", text, _device(has_gpu=fits))
    if has_nano:
        text = "small bundled weights"
        if choice == "auto":
            text += f"; published ones: {_too_small(capabilities, memory_gb)}"
        return ModelAvailability(True, "nano", text, _device(has_gpu=memory_gb > 0))
    if choice == "nano":
        return _unavailable("no nano checkpoint is shipped for it")
    return _unavailable(_too_small(capabilities, memory_gb))


def _too_small(capabilities: ModelCapabilities, memory_gb: float) -> str:
    present = f"{memory_gb:.1f} GB" if memory_gb else "no GPU"
    return f"need {capabilities.min_vram_gb:g} GB of GPU memory, {present} here"


def _device(*, has_gpu: bool) -> str:
    return f"cuda:{get_settings().gpu_id}" if has_gpu else "cpu"


def _unavailable(reason: str) -> ModelAvailability:
    return ModelAvailability(False, None, reason, None)
