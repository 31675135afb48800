"""The rules of options and formats, taken from the models' own."""

from __future__ import annotations

from typing import Any

from pydantic import BaseModel, ValidationError

from deployments.http.errors import invalid_request
from deployments.options import FinishOptions
from deployments.plan import ModelPlan
from dream_cad.exceptions import InvalidConfigError
from dream_cad.mesh.export import FORMATS
from dream_cad.models.registry import resolve_implementation


def check_format(name: str) -> None:
    """Refuse a format that results cannot be had in.

    Raises:
        InvalidConfigError: names the legal ones.
    """
    if name not in FORMATS:
        raise InvalidConfigError(
            f"{name[:40]!r} is not a format of results.",
            hint=f"Formats: {', '.join(FORMATS)}.",
            details={"allowed": list(FORMATS)},
        )


def check_options(plan: ModelPlan, options: dict[str, Any], *, is_text: bool) -> dict[str, Any]:
    """Return the options, validated by the model's and the finisher's own rules.

    Raises:
        InvalidConfigError: unknown, out of range, or of no use for the kind of input.
    """
    finish_names = plan.finish_options
    finish = {name: value for name, value in options.items() if name in finish_names}
    model = {name: value for name, value in options.items() if name not in finish_names}
    if not is_text and plan.needs_picture and (useless := plan.text_options.keys() & model.keys()):
        raise InvalidConfigError(
            f"{', '.join(sorted(useless))} concern the text stage, and an image needs none."
        )
    rules = model_options(plan)
    if local := local_options(rules) & model.keys():
        raise InvalidConfigError(
            f"{', '.join(sorted(local))} can be set in the library only.",
            hint="Leave it out: it names a file of the machine that generates.",
        )
    legal = [*(rules.model_fields if rules is not None else ()), *sorted(finish_names)]
    checked = _checked(FinishOptions, finish, legal)
    return checked | (model if rules is None else _checked(rules, model, legal))


def model_options(plan: ModelPlan) -> type[BaseModel] | None:
    """Return the pydantic model of a served model's options, if it states one."""
    return resolve_implementation(plan.name).options_model()


def view_names(plan: ModelPlan) -> list[str] | None:
    """Return what ``Model3D.view_names`` says of a served model."""
    known = resolve_implementation(plan.name).view_names()
    return None if known is None else list(known)


def textures_meshes(plan: ModelPlan) -> bool:
    """Return whether a served model textures meshes that are given to it."""
    return resolve_implementation(plan.name).paints_meshes()


def makes_variants(plan: ModelPlan) -> bool:
    """Return whether a served model makes variants of meshes that are given to it."""
    return resolve_implementation(plan.name).makes_variants()


def local_options(rules: type[BaseModel] | None) -> set[str]:
    """Return the options that name files: a client must not choose what a server writes."""
    if rules is None:
        return set()
    return {
        name
        for name, field in rules.model_fields.items()
        if isinstance(field.json_schema_extra, dict) and field.json_schema_extra.get("local")
    }


def options_schema(plan: ModelPlan) -> dict[str, Any]:
    """Return the JSON schema of a model's options and of the finisher's, as one flat object."""
    finish = FinishOptions.model_json_schema()["properties"]
    finish = {name: finish[name] for name in sorted(plan.finish_options)}
    rules = model_options(plan)
    if rules is None:
        return {"type": "object", "properties": finish, "additionalProperties": True}
    own = rules.model_json_schema()
    shown = {**finish, **own.get("properties", {})}
    for name in local_options(rules):
        del shown[name]
    return {**own, "properties": shown}


def takes_option(plan: ModelPlan, name: str) -> bool:
    """Return whether a model, or the finisher after it, has an option of that name."""
    rules = model_options(plan)
    return name in plan.finish_options or (rules is not None and name in rules.model_fields)


def _checked(rules: type[BaseModel], options: dict[str, Any], legal: list[str]) -> dict[str, Any]:
    try:
        return rules.model_validate(options).model_dump(mode="json", exclude_unset=True)
    except ValidationError as error:
        problem = invalid_request(error.errors(include_url=False), "The options are not valid.")
        raise InvalidConfigError(
            problem["detail"],
            hint=f"Options: {', '.join(legal)}.",
            details={"errors": problem["errors"], "allowed": legal},
        ) from error
