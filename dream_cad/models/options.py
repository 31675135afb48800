"""Check generation options by a model's own description of them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from pydantic import BaseModel, ValidationError

from dream_cad.exceptions import InvalidConfigError
from dream_cad.models.base import Model3D


def validate_options(model_class: type[Model3D], options: Mapping[str, Any]) -> dict[str, Any]:
    """Return ``options`` converted to their types, without those that were not given.

    Args:
        model_class: describes its options in ``options_model()``; if it does not, everything
            passes as it is.
        options: names and values, for example from a command line, where values may be text.

    Raises:
        InvalidConfigError: a name is unknown or a value is out of range; says what is legal.
    """
    schema = model_class.options_model()
    if schema is None:
        return dict(options)
    try:
        checked = schema.model_validate(dict(options))
    except ValidationError as error:
        raise _invalid_option(schema, error) from error
    return {name: getattr(checked, name) for name in schema.model_fields if name in options}


def _invalid_option(schema: type[BaseModel], error: ValidationError) -> InvalidConfigError:
    allowed = list(schema.model_fields)
    first = error.errors(include_url=False, include_context=False)[0]
    name = ".".join(str(part) for part in first["loc"])
    details: dict[str, Any] = {"option": name, "allowed": allowed}
    if first["type"] == "extra_forbidden":
        return InvalidConfigError(
            f"There is no option {name!r}.", hint=f"Options: {', '.join(allowed)}.", details=details
        )
    return InvalidConfigError(
        f"Option {name!r} is {_short(first['input'])}: {first['msg']}.", details=details
    )


def _short(value: object) -> str:
    text = repr(value)
    return text if len(text) <= 80 else f"{text[:77]}..."
