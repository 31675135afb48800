"""Create models by name, and register one's own."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from typing import Any, TypeVar

from dream_cad.checkpoints import nano_folder
from dream_cad.exceptions import InsufficientVRAMError, InvalidConfigError
from dream_cad.gpu import get_total_vram
from dream_cad.models.base import Model3D, ModelCapabilities
from dream_cad.models.registry import (
    ModelRegistry,
    add_implementation,
    resolve_implementation,
)
from dream_cad.settings import get_settings

ModelClass = TypeVar("ModelClass", bound=type[Model3D])


class ModelFactory:
    """Creates models by name."""

    @staticmethod
    def create_model(model_name: str | None = None, **kwargs: Any) -> Model3D:
        """Create a model, ready to generate; its weights are loaded by the first generation.

        Args:
            model_name: one of ``list_available_models()``; DREAM_CAD_DEFAULT_MODEL when None.
            **kwargs: options of the model's constructor, for example ``precision="fp16"``.

        Raises:
            ModelNotFoundError: no model of that name is registered.
            InsufficientVRAMError: the model needs a GPU with more memory than there is, and has
                no small checkpoint that runs without one.
            ModelUnavailableError: the model is not in this version, or cannot be imported.
            InvalidConfigError: an option is unknown or has a wrong value.
        """
        name = get_settings().default_model if model_name is None else model_name
        capabilities = ModelRegistry().require_capabilities(name)
        if not can_run_without_gpu(name, kwargs):
            require_vram(name, capabilities)
        model_class = resolve_implementation(name)
        _check_arguments(name, model_class, kwargs)
        return model_class(**kwargs)

    @staticmethod
    def list_available_models() -> list[str]:
        """Return the names of all models: the five built-in ones, then what users registered."""
        return ModelRegistry().list_models()


def register_model(
    name: str, capabilities: ModelCapabilities | None = None
) -> Callable[[ModelClass], ModelClass]:
    """Register a Model3D subclass under ``name`` (class decorator).

    Args:
        name: up to 64 letters, digits, ``-``, ``_`` or ``.``.
        capabilities: what the model needs and can do. Without them it counts as needing no GPU.

    Raises:
        InvalidConfigError: the name is malformed or belongs to another class, the class is no
            Model3D, or the capabilities make no sense.
    """

    def register(model_class: ModelClass) -> ModelClass:
        add_implementation(name, model_class, capabilities)
        return model_class

    return register


def require_vram(name: str, capabilities: ModelCapabilities) -> None:
    """Refuse a model that this machine's GPU is too small for.

    Raises:
        InsufficientVRAMError: the GPU of this process has less than ``min_vram_gb``.
    """
    available = get_total_vram()
    if available >= capabilities.min_vram_gb:
        return
    entry = ModelRegistry().get_entry(name)
    has_text = "no GPU was found" if available == 0 else f"the GPU has {available:.1f} GB"
    message = f"Model {name!r} needs {capabilities.min_vram_gb:g} GB of GPU memory; {has_text}."
    if not entry.is_implemented:
        message += " It is also not in this version."
    raise InsufficientVRAMError(
        message,
        hint=_smaller_models_hint(available),
        details={
            "model": name,
            "min_vram_gb": capabilities.min_vram_gb,
            "available_vram_gb": available,
        },
    )


def can_run_without_gpu(name: str, options: dict[str, Any]) -> bool:
    """Tell whether the model can be created whatever the GPU.

    So it is, for a model that this version brings, where a nano checkpoint ships with the
    package, and where the caller chose the CPU or a certain checkpoint, which the model then
    takes or refuses by itself.
    """
    if not ModelRegistry().get_entry(name).is_implemented:
        return False
    if nano_folder(name) is not None or str(options.get("device", "")).startswith("cpu"):
        return True
    return options.get("checkpoint", "auto") != "auto" or get_settings().checkpoint != "auto"


def _smaller_models_hint(available_gb: float) -> str | None:
    registry = ModelRegistry()
    fitting = [
        name
        for name in registry.list_models()
        if registry.get_entry(name).is_implemented
        and (
            nano_folder(name) is not None
            or registry.require_capabilities(name).min_vram_gb <= available_gb
        )
    ]
    return f"These run here: {', '.join(fitting)}." if fitting else None


def _check_arguments(name: str, model_class: type[Model3D], kwargs: dict[str, Any]) -> None:
    signature = inspect.signature(model_class)
    try:
        signature.bind(**kwargs)
    except TypeError as error:
        allowed = [
            parameter.name
            for parameter in signature.parameters.values()
            if parameter.kind is not inspect.Parameter.VAR_KEYWORD
        ]
        raise InvalidConfigError(
            f"Model {name!r}: {error}.",
            hint=f"Options: {', '.join(allowed) or 'none'}.",
            details={"model": name, "allowed": allowed},
        ) from error
