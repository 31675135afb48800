"""A model's JSON schema of options as a form, and the form's answers as options again."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from html import escape
from typing import Any, Literal

from dream_cad.exceptions import InvalidConfigError

Kind = Literal["integer", "number", "boolean", "choice", "text", "numbers"]

_LONG_TEXT = frozenset({"negative_prompt"})
_FIRST = ("seed", "resolution", "octree_resolution", "num_inference_steps", "guidance_scale")


@dataclass(frozen=True)
class Field:
    """One option.

    Attributes:
        least, most: limits; None where there are none.
        choices: what a choice may be.
        default: None where the server decides.
    """

    name: str
    kind: Kind
    label: str
    description: str
    default: Any = None
    least: float | None = None
    most: float | None = None
    choices: tuple[str, ...] = ()


def fields_of(schema: Mapping[str, Any] | None) -> list[Field]:
    """Return the options of a schema that a form can ask for, the usual ones first."""
    properties: Mapping[str, Any] = (schema or {}).get("properties", {})
    definitions: Mapping[str, Any] = (schema or {}).get("$defs", {})
    found = [_field(name, entry, definitions) for name, entry in properties.items()]
    fields = [field for field in found if field is not None]
    rank = {name: place for place, name in enumerate(_FIRST)}
    return sorted(fields, key=lambda field: rank.get(field.name, len(rank)))


def _field(name: str, entry: Mapping[str, Any], definitions: Mapping[str, Any]) -> Field | None:
    parts = [_resolved(part, definitions) for part in entry.get("anyOf", [entry])]
    shape = next((part for part in parts if part.get("type") != "null"), None)
    if shape is None:
        return None
    default = entry.get("default")
    items = _resolved(shape.get("items", {}), definitions)
    if shape.get("type") == "array" and "enum" in items:  # several may be chosen: one is asked for
        shape, default = items, next(iter(default or ()), None)
    kind = _kind(shape)
    if kind is None:
        return None
    return Field(
        name=name,
        kind=kind,
        label=name.replace("_", " ").capitalize(),
        description=str(entry.get("description", "")),
        default=default,
        least=shape.get("minimum", shape.get("exclusiveMinimum")),
        most=shape.get("maximum", shape.get("exclusiveMaximum")),
        choices=tuple(str(choice) for choice in shape.get("enum", ()) if choice is not None),
    )


def _resolved(part: Mapping[str, Any], definitions: Mapping[str, Any]) -> Mapping[str, Any]:
    reference = part.get("$ref")
    if reference is None:
        return part
    found: Mapping[str, Any] = definitions.get(str(reference).rpartition("/")[2], {})
    return found


def _kind(shape: Mapping[str, Any]) -> Kind | None:
    if "enum" in shape:
        return "choice"
    if shape.get("type") == "array":
        parts = [*shape.get("prefixItems", ()), shape.get("items") or {}]
        return "numbers" if {"integer", "number"} & {part.get("type") for part in parts} else None
    kinds: dict[str, Kind] = {
        "integer": "integer",
        "number": "number",
        "boolean": "boolean",
        "string": "text",
    }
    return kinds.get(str(shape.get("type")))


def form_html(fields: list[Field], values: Mapping[str, Any]) -> str:
    """Return the inputs of a form.

    Args:
        fields: the options.
        values: what a preset fills in; the rest is left to the server.
    """
    if not fields:
        return '<p class="dc-hint">This model has no options.</p>'
    return '<div class="dc-form">' + "".join(_row(f, values.get(f.name)) for f in fields) + "</div>"


def _row(field: Field, value: Any) -> str:
    identifier = f"dc-option-{escape(field.name)}"
    hint = escape(_hint(field))
    return (
        f'<div class="dc-field"><label for="{identifier}">{escape(field.label)}</label>'
        f"{_control(field, value, identifier)}"
        f'<p class="dc-hint" id="{identifier}-hint">{hint}</p></div>'
    )


def _hint(field: Field) -> str:
    limits = ""
    if field.least is not None and field.most is not None:
        limits = f" {field.least:,.10g} to {field.most:,.10g}."
    return f"{field.description}{limits}".strip()


def _control(field: Field, value: Any, identifier: str) -> str:
    common = (
        f'id="{identifier}" data-option="{escape(field.name)}" data-kind="{field.kind}" '
        f'aria-describedby="{identifier}-hint"'
    )
    if field.kind in ("choice", "boolean"):
        return f"<select {common}>{_choices(field, value)}</select>"
    shown = "" if value is None else escape(str(value))
    unset = "random, a new one each time" if field.name == "seed" else "automatic"
    placeholder = unset if field.default is None else escape(str(field.default))
    if field.kind == "text":
        if field.name in _LONG_TEXT:
            return f'<textarea {common} rows="2" placeholder="none">{shown}</textarea>'
        return f'<input {common} type="text" value="{shown}" placeholder="{placeholder}">'
    if field.kind == "numbers":
        return f'<input {common} type="text" value="{shown}" placeholder="{placeholder}">'
    limits = "".join(
        f' {name}="{limit:.10g}"'
        for name, limit in (("min", field.least), ("max", field.most))
        if limit is not None
    )
    step = "1" if field.kind == "integer" else "any"
    return (
        f'<input {common} type="number" inputmode="decimal" step="{step}"{limits} '
        f'value="{shown}" placeholder="{placeholder}">'
    )


def _choices(field: Field, value: Any) -> str:
    names = {"true": "on", "false": "off"} if field.kind == "boolean" else {}
    legal = tuple(names) or field.choices
    usual = "automatic" if field.default is None else _spoken(field.default, names)
    chosen = None if value is None else str(value).lower() if names else str(value)
    options = [f'<option value="">usual ({escape(usual)})</option>']
    options += [
        f'<option value="{escape(entry)}"{" selected" if entry == chosen else ""}>'
        f"{escape(names.get(entry, entry))}</option>"
        for entry in legal
    ]
    return "".join(options)


def _spoken(default: Any, names: Mapping[str, str]) -> str:
    return names.get(str(default).lower(), str(default))


def read_answers(fields: list[Field], answers: Mapping[str, Any]) -> dict[str, Any]:
    """Return the options of a filled-in form; what was left empty is left to the server.

    Raises:
        InvalidConfigError: an answer is no number, or no numbers with commas between them. Limits
            are checked by the server.
    """
    by_name = {field.name: field for field in fields}
    return {
        name: _value(by_name[name], str(answer).strip())
        for name, answer in answers.items()
        if name in by_name and str(answer).strip() != ""
    }


def _value(field: Field, text: str) -> Any:
    if field.kind == "boolean":
        return text == "true"
    if field.kind in ("choice", "text"):
        return text
    try:
        if field.kind == "numbers":
            return [float(part) for part in text.split(",")]
        return int(text) if field.kind == "integer" else float(text)
    except ValueError as error:
        kinds = {"integer": "a whole number", "numbers": "numbers with commas between them"}
        kind = kinds.get(field.kind, "a number")
        raise InvalidConfigError(f"{field.label} is {text[:40]!r}; it must be {kind}.") from error
