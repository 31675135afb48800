"""Pictures on the command line: one, several, or several by view."""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path

import typer

_BY_VIEW = re.compile(r"([a-z]{1,16})=(.+)")
Pictures = Path | list[Path] | dict[str, Path]


def read_pictures(given: Sequence[str] | None) -> Pictures | None:
    """Return what ``--image`` names: a path, several in order, or several by view.

    ``front=chair.png`` names the view of a picture, unless there is a file of that very name.

    Raises:
        typer.BadParameter: some pictures have views and others have none, or two have the same.
    """
    if not given:
        return None
    named = [None if Path(text).exists() else _BY_VIEW.fullmatch(text) for text in given]
    by_view = {match[1]: Path(match[2]) for match in named if match is not None}
    if not by_view:
        paths = [Path(text) for text in given]
        return paths[0] if len(paths) == 1 else paths
    if len(by_view) != len(given):
        raise typer.BadParameter("give each --image another view, as in front=a.png, or none.")
    return by_view


def first_picture(pictures: Pictures | None) -> Path | None:
    """Return the picture that a result is named after."""
    if pictures is None or isinstance(pictures, Path):
        return pictures
    return next(iter(pictures.values() if isinstance(pictures, dict) else pictures))
