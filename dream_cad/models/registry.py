"""Which models there are: one process-wide table of names, capabilities and implementations."""

from __future__ import annotations

import importlib
import logging
import math
import re
import threading
from dataclasses import dataclass, replace
from difflib import get_close_matches
from importlib.metadata import EntryPoint, entry_points
from typing import Literal

from dream_cad.exceptions import (
    DreamCadError,
    InvalidConfigError,
    ModelNotFoundError,
    ModelUnavailableError,
)
from dream_cad.models.base import Model3D, ModelCapabilities
from dream_cad.models.built_in import BUILT_IN_CAPABILITIES, BUILT_IN_IMPLEMENTATIONS

ENTRY_POINT_GROUP = "dream_cad.models"

_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}")
_UNSTATED = ModelCapabilities(min_vram_gb=0.0, recommended_vram_gb=0.0)
_logger = logging.getLogger(__name__)

Origin = Literal["built-in", "user", "entry-point"]


@dataclass(frozen=True)
class ModelEntry:
    """One row of the table.

    Attributes:
        name: the model's name.
        capabilities: None while an entry point has not been imported.
        implementation: a Model3D subclass, the ``"module:Class"`` or entry point to import it
            from, or None for a model that this version does not bring.
        origin: who registered it.
    """

    name: str
    capabilities: ModelCapabilities | None
    implementation: type[Model3D] | str | EntryPoint | None
    origin: Origin

    @property
    def is_implemented(self) -> bool:
        """Whether this version has code for the model."""
        return self.implementation is not None


def _built_in_entries() -> dict[str, ModelEntry]:
    return {
        name: ModelEntry(name, row, BUILT_IN_IMPLEMENTATIONS.get(name), "built-in")
        for name, row in BUILT_IN_CAPABILITIES.items()
    }


class Table:
    """The entries of this process. Entry points are listed on first use, imported on demand."""

    def __init__(self) -> None:
        self.lock = threading.RLock()
        self.entries = _built_in_entries()
        self._are_entry_points_listed = False

    def list_entry_points(self) -> None:
        """Add the models that installed packages bring; the first call alone does something."""
        with self.lock:
            if self._are_entry_points_listed:
                return
            self._are_entry_points_listed = True
            for point in entry_points(group=ENTRY_POINT_GROUP):
                if point.name in self.entries or not _NAME.fullmatch(point.name):
                    _logger.warning(
                        "entry point %s = %s is left out: the name is taken or not valid",
                        point.name,
                        point.value,
                    )
                    continue
                self.entries[point.name] = ModelEntry(point.name, None, point, "entry-point")


_table = Table()


class ModelRegistry:
    """Capabilities and implementations of all models; every instance shares one table."""

    def register(self, name: str, capabilities: ModelCapabilities) -> None:
        """Register a model's capabilities, or replace those of a model that a user registered.

        Raises:
            InvalidConfigError: the name is malformed or built in, or the numbers make no sense.
        """
        _check_name(name)
        check_capabilities(name, capabilities)
        with _table.lock:
            entry = _table.entries.get(name)
            if entry is not None and entry.origin == "built-in":
                raise InvalidConfigError(
                    f"Model {name!r} is built in; its capabilities cannot be replaced.",
                    hint="Register under another name.",
                )
            base = entry or ModelEntry(name, None, None, "user")
            _table.entries[name] = replace(base, capabilities=capabilities)

    def get_capabilities(self, name: str) -> ModelCapabilities | None:
        """Return the capabilities of a model, or None if there is no such model.

        A model from an entry point is imported to ask it; if that fails it counts as unknown.
        """
        try:
            return self.require_capabilities(name)
        except DreamCadError:
            return None

    def require_capabilities(self, name: str) -> ModelCapabilities:
        """Return the capabilities of a model.

        Raises:
            ModelNotFoundError: no model of that name is registered.
            ModelUnavailableError: the entry point that brings it cannot be imported.
        """
        entry = self.get_entry(name)
        if isinstance(entry.implementation, EntryPoint):
            resolve_implementation(name)
            entry = self.get_entry(name)
        return entry.capabilities or _UNSTATED

    def list_models(self) -> list[str]:
        """List all registered models: the five built-in ones first, then others as they came."""
        _table.list_entry_points()
        return list(_table.entries)

    def get_models_for_vram(self, vram_gb: float) -> list[str]:
        """List the models whose minimum fits into ``vram_gb`` GB of GPU memory.

        Raises:
            InvalidConfigError: ``vram_gb`` is negative or not a number.
        """
        if not vram_gb >= 0:
            raise InvalidConfigError(f"vram_gb is {vram_gb}; a number of at least 0 is expected.")
        known = ((name, self.get_capabilities(name)) for name in self.list_models())
        return [name for name, row in known if row is not None and row.min_vram_gb <= vram_gb]

    def get_entry(self, name: str) -> ModelEntry:
        """Return the table row of a model.

        Raises:
            ModelNotFoundError: no model of that name is registered; names all and the nearest.
        """
        _table.list_entry_points()
        try:
            return _table.entries[name]
        except (KeyError, TypeError):
            raise _not_found(name, self.list_models()) from None

    def unregister(self, name: str) -> None:
        """Take out a model that a user registered; built-in ones cannot be taken out.

        Raises:
            ModelNotFoundError: no model of that name is registered.
            InvalidConfigError: the model is built in.
        """
        if self.get_entry(name).origin == "built-in":
            raise InvalidConfigError(f"Model {name!r} is built in and cannot be taken out.")
        with _table.lock:
            _table.entries.pop(name, None)


def add_implementation(
    name: str, model_class: type[Model3D], capabilities: ModelCapabilities | None
) -> None:
    """Put a class into the table; ``register_model`` is the decorator around this.

    Raises:
        InvalidConfigError: the name is malformed or taken by another class, ``model_class`` is
            no Model3D, or the capabilities make no sense.
    """
    _check_name(name)
    if not (isinstance(model_class, type) and issubclass(model_class, Model3D)):
        raise InvalidConfigError(f"Model {name!r}: {model_class!r} is not a subclass of Model3D.")
    if capabilities is not None:
        check_capabilities(name, capabilities)
    with _table.lock:
        entry = _table.entries.get(name)
        if entry is not None:
            _refuse_other_class(entry, model_class)
            origin, stated = entry.origin, entry.capabilities
        else:
            origin, stated = "user", None
        _table.entries[name] = ModelEntry(name, capabilities or stated, model_class, origin)


def resolve_implementation(name: str) -> type[Model3D]:
    """Import and return the class of a model.

    Raises:
        ModelNotFoundError: no model of that name is registered.
        ModelUnavailableError: this version has no code for it, or its import failed.
    """
    entry = ModelRegistry().get_entry(name)
    implementation = entry.implementation
    if implementation is None:
        what = "is not in this version" if entry.origin == "built-in" else "has no implementation"
        raise ModelUnavailableError(
            f"Model {name!r} {what}; only its capabilities are registered.",
            details={"model": name},
        )
    if isinstance(implementation, type):
        return implementation
    loaded = _import_implementation(name, implementation)
    add_implementation(name, loaded, None)
    return loaded


def _import_implementation(name: str, source: str | EntryPoint) -> type[Model3D]:
    try:
        loaded = source.load() if isinstance(source, EntryPoint) else _import_object(source)
    except Exception as error:  # a plug-in may fail in any way; it fails alone
        raise ModelUnavailableError(
            f"Model {name!r} could not be imported from {_origin_text(source)}: "
            f"{type(error).__name__}: {error}",
            details={"model": name},
        ) from error
    registered = _table.entries[name].implementation  # the module may have used @register_model
    if isinstance(registered, type):
        return registered
    if isinstance(loaded, type) and issubclass(loaded, Model3D):
        return loaded
    raise ModelUnavailableError(
        f"Model {name!r}: {_origin_text(source)} is {type(loaded).__name__}, "
        "and importing it registered no class.",
        hint="Point the entry point at a Model3D subclass, or use @register_model there.",
        details={"model": name},
    )


def _import_object(path: str) -> object:
    module, _, attribute = path.partition(":")
    return getattr(importlib.import_module(module), attribute)


def _origin_text(source: str | EntryPoint) -> str:
    return f"entry point {source.value}" if isinstance(source, EntryPoint) else source


def _refuse_other_class(entry: ModelEntry, model_class: type[Model3D]) -> None:
    present = entry.implementation
    if isinstance(present, str):
        allowed = f"{model_class.__module__}:{model_class.__qualname__}".startswith(
            present.partition(":")[0]
        )
    elif isinstance(present, type):
        # A notebook cell run again, or a module reloaded, defines the same class anew.
        allowed = (present.__module__, present.__qualname__) == (
            model_class.__module__,
            model_class.__qualname__,
        )
    else:
        allowed = entry.origin != "built-in"
    if not allowed:
        raise InvalidConfigError(
            f"Model name {entry.name!r} is taken by {present!r}.", hint="Choose another name."
        )


def _check_name(name: object) -> None:
    if not isinstance(name, str) or not _NAME.fullmatch(name):
        raise InvalidConfigError(
            f"Model name {name!r} is not valid.",
            hint="Use up to 64 letters, digits, '-', '_' or '.', beginning with a letter or digit.",
        )


def check_capabilities(name: str, capabilities: ModelCapabilities) -> None:
    """Refuse capabilities that cannot be true.

    Raises:
        InvalidConfigError: memory is negative, not finite, or recommended below the minimum;
            no input is supported; or there is no output format.
    """
    low, high = capabilities.min_vram_gb, capabilities.recommended_vram_gb
    if not (math.isfinite(low) and math.isfinite(high) and 0 <= low <= high):
        raise InvalidConfigError(
            f"Model {name!r}: GPU memory is {low} minimum and {high} recommended; "
            "0 <= minimum <= recommended is expected."
        )
    if not (capabilities.supports_text_to_3d or capabilities.supports_image_to_3d):
        raise InvalidConfigError(f"Model {name!r} takes neither text nor images.")
    if not capabilities.output_formats or capabilities.max_resolution < 1:
        raise InvalidConfigError(f"Model {name!r} has no output format or no resolution.")


def _not_found(name: object, names: list[str]) -> ModelNotFoundError:
    nearest = get_close_matches(str(name), names, n=1, cutoff=0.5)
    suggestion = f"Did you mean {nearest[0]!r}? " if nearest else ""
    return ModelNotFoundError(
        f"There is no model {name!r}.",
        hint=f"{suggestion}Models: {', '.join(names)}.",
        details={"model": str(name), "allowed": names},
    )
