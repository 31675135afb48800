"""What the commands share: error lines, JSON output, progress bars, option parsing."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import typer
from rich.console import Console
from rich.progress import (
    BarColumn,
    DownloadColumn,
    Progress,
    TaskProgressColumn,
    TextColumn,
    TimeElapsedColumn,
    TransferSpeedColumn,
)

from dream_cad.models.base import ProgressCallback

_FILE_WIDTH = 1000


def show_error(message: str, hint: str | None = None) -> None:
    """Write an error on one line of standard error, and what to do about it on a second."""
    typer.echo(f"error: {message}", err=True)
    if hint:
        typer.echo(hint, err=True)


def show_json(value: object) -> None:
    """Write a JSON document to standard output."""
    typer.echo(json.dumps(value, indent=2, default=str))


def output_console() -> Console:
    """Return the console of standard output; wide where that is no terminal, for other programs."""
    console = Console(highlight=False)
    return console if console.is_terminal else Console(highlight=False, width=_FILE_WIDTH)


def error_console() -> Console:
    """Return the console of standard error as it is now (a test may have replaced it)."""
    return Console(file=sys.stderr, highlight=False)


@contextmanager
def generation_bar() -> Iterator[ProgressCallback]:
    """Show a progress bar on a terminal; nothing elsewhere. Yields the callback that moves it."""
    console = error_console()
    columns = (TextColumn("{task.description:<24}"), BarColumn(), TaskProgressColumn())
    with Progress(
        *columns, TimeElapsedColumn(), console=console, disable=not console.is_terminal
    ) as bar:
        task = bar.add_task("starting", total=1.0)

        def advance(fraction: float, stage: str) -> None:
            bar.update(task, completed=fraction, description=stage)

        yield advance


@contextmanager
def download_bar() -> Iterator[Progress]:
    """Show bytes and speed of downloads on a terminal; nothing elsewhere."""
    console = error_console()
    columns = (TextColumn("{task.description:<28}"), BarColumn(), DownloadColumn())
    with Progress(
        *columns, TransferSpeedColumn(), console=console, disable=not console.is_terminal
    ) as bar:
        yield bar


def parse_options(pairs: Sequence[str]) -> dict[str, Any]:
    """Parse ``name=value`` pairs; a value is JSON where it can be, else text.

    Raises:
        typer.BadParameter: a pair has no ``=``, no name, or a name comes twice.
    """
    options: dict[str, Any] = {}
    for pair in pairs:
        name, separator, text = pair.partition("=")
        if not separator or not name:
            raise typer.BadParameter(f"{pair!r} is not of the form name=value.")
        if name in options:
            raise typer.BadParameter(f"option {name!r} comes twice.")
        options[name] = _json_or_text(text)
    return options


def merge_options(named: dict[str, Any], free: Sequence[str]) -> dict[str, Any]:
    """Join the options that have a flag of their own (None: not given) with ``--option`` pairs.

    Raises:
        typer.BadParameter: a pair is malformed, or names an option that was also given by flag.
    """
    given = {name: value for name, value in named.items() if value is not None}
    pairs = parse_options(free)
    twice = sorted(given.keys() & pairs.keys())
    if twice:
        raise typer.BadParameter(f"option {twice[0]!r} comes twice.")
    return given | pairs


def _json_or_text(text: str) -> Any:
    try:
        return json.loads(text)
    except ValueError:
        return text
