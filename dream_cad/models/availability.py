"""Whether a model can run on this machine, with which checkpoint, and if not, why."""

from __future__ import annotations

from dataclasses import dataclass

from dream_cad.exceptions import DreamCadError
from dream_cad.gpu import get_total_vram
from dream_cad.models.base import ModelCapabilities
from dream_cad.models.registry import ModelRegistry, resolve_implementation
from dream_cad.models.weights import choose_checkpoint
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
        return _built_in_availability(name, capabilities, memory_gb)
    if memory_gb < capabilities.min_vram_gb:
        return _unavailable(
            f"needs {capabilities.min_vram_gb:g} GB of GPU memory, {memory_gb:.1f} GB here"
        )
    device = _device(has_gpu=memory_gb > 0)
    return ModelAvailability(True, None, "registered by the user", device)


def _built_in_availability(
    name: str, capabilities: ModelCapabilities, memory_gb: float
) -> ModelAvailability:
    minimum = capabilities.min_vram_gb
    try:
        checkpoint = choose_checkpoint(name, "auto", min_vram_gb=minimum, vram_gb=memory_gb)
    except DreamCadError as error:
        return _unavailable(str(error))
    fits = memory_gb >= minimum
    if checkpoint.kind == "published":
        text = "published weights" if fits else "published weights, on the CPU"
        return ModelAvailability(True, "published", text, _device(has_gpu=fits))
    text = "small bundled weights"
    if get_settings().checkpoint == "auto":
        what = "'dream-cad pull' fetches the published ones" if fits else _too_small(minimum)
        text = f"{text}; {what}"
    return ModelAvailability(True, checkpoint.kind, text, _device(has_gpu=memory_gb > 0))


def _too_small(minimum_gb: float) -> str:
    return f"the published ones want a GPU with {minimum_gb:g} GB"


def _device(*, has_gpu: bool) -> str:
    return f"cuda:{get_settings().gpu_id}" if has_gpu else "cpu"


def _unavailable(reason: str) -> ModelAvailability:
    return ModelAvailability(False, None, reason, None)
