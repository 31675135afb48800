"""Several pictures of one object in a request: by view, or in any order."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Mapping, Sequence
from typing import Any

from deployments.http.checks import view_names
from deployments.messages import INPUT_FILE, INPUT_MESH, view_file
from deployments.plan import ModelPlan
from dream_cad.exceptions import InvalidConfigError

_NAME = re.compile(r"[a-z]{1,16}")


def numbered(pictures: Sequence[bytes]) -> dict[str, bytes]:
    """Return pictures without views under their numbers."""
    return {str(index): picture for index, picture in enumerate(pictures)}


def check_view_name(name: str) -> None:
    """Refuse what cannot be the name of a view: it becomes part of a file's name.

    Raises:
        InvalidConfigError: it is not 1 to 16 small letters.
    """
    if not _NAME.fullmatch(name):
        raise InvalidConfigError(
            f"{name[:40]!r} is not the name of a view.", hint="For example: front, left, back."
        )


def check_views(plan: ModelPlan, views: Mapping[str, bytes]) -> None:
    """Refuse views that a model cannot take.

    Raises:
        InvalidConfigError: it takes one picture, or wants views by names that it knows.
    """
    known = view_names(plan)
    if known is None:
        raise InvalidConfigError(
            f"Model {plan.name!r} takes one picture, not several.",
            hint="GET /v1/models shows under 'views' which models take several.",
        )
    if known and (unknown := sorted(views.keys() - set(known))):
        raise InvalidConfigError(
            f"Model {plan.name!r} wants its pictures by view, and knows no "
            f"{', '.join(repr(name) for name in unknown)}.",
            hint=f"Views: {', '.join(known)}.",
            details={"allowed": known},
        )


def fingerprint(views: Mapping[str, bytes]) -> bytes:
    """Return what tells these views from others, their order included."""
    parts = [f"{name} {hashlib.sha256(picture).hexdigest()}" for name, picture in views.items()]
    return "\n".join(["views", *parts]).encode()


def input_files(image: bytes | None, views: Mapping[str, bytes]) -> dict[str, bytes]:
    """Return the files that keep a request's pictures, by name."""
    if image is not None:
        return {INPUT_FILE: image}
    return {view_file(name): picture for name, picture in views.items()}


def input_names(policy: Mapping[str, Any]) -> list[str]:
    """Return the names of the files that a job's input has, as its policy tells."""
    if policy.get("mesh"):
        return [INPUT_MESH, INPUT_FILE] if policy.get("picture") else [INPUT_MESH]
    return [view_file(name) for name in policy.get("views") or ()] or [INPUT_FILE]
