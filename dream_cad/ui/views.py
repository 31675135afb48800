"""Several pictures of one object, as dropped on the page, and the views that they show."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from dream_cad.client import Model
from dream_cad.exceptions import InvalidConfigError

Pictures = list[str | Path | bytes] | dict[str, str | Path | bytes]


def read_views(model: Model, paths: Sequence[str] | None) -> Pictures:
    """Return the pictures as the model wants them: in order, or by view after their file names.

    Raises:
        InvalidConfigError: there is none, the model takes one only, or a file's name says no view
            that the model knows.
    """
    if not paths:
        raise InvalidConfigError("There are no pictures.", hint="Drop or choose several files.")
    if model.views is None:
        raise InvalidConfigError(
            f"{model.name} takes one picture.", hint="Choose another model, or one picture."
        )
    if not model.views:
        return list(paths)
    found: Pictures = {_view_of(path, model): path for path in paths}
    if len(found) != len(paths):
        raise InvalidConfigError("Two files show the same view.", hint=_advice(model))
    return found


def _view_of(path: str, model: Model) -> str:
    stem = Path(path).stem.lower()
    named = [view for view in model.views or () if view in stem]
    if len(named) != 1:
        raise InvalidConfigError(
            f"Which view is {Path(path).name}? {model.name} has to know.", hint=_advice(model)
        )
    return named[0]


def _advice(model: Model) -> str:
    return f"Call the files {', '.join(f'{view}.png' for view in model.views or ())}."
