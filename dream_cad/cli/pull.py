"""``dream-cad pull``: fetch a published checkpoint."""

from __future__ import annotations

from contextlib import closing
from pathlib import Path
from typing import Annotated

import typer
from rich.filesize import decimal

from dream_cad.cli.console import download_bar
from dream_cad.cli.pull_all import pull_all
from dream_cad.cli.pull_show import fetch_plan, show_plan
from dream_cad.cli.pull_stage import STAGES, pull_stage
from dream_cad.exceptions import InvalidConfigError
from dream_cad.models.download import CheckpointDownloader


def pull(
    model: Annotated[
        str | None,
        typer.Argument(help="Model, for example triposr; or text-to-image, matting."),
    ] = None,
    everything: Annotated[
        bool, typer.Option("--all", help="Everything that is published, for a machine offline.")
    ] = False,
    to: Annotated[
        Path | None,
        typer.Option(help="Folder to put the files into; one in DREAM_CAD_CACHE_DIR if not given."),
    ] = None,
    latest: Annotated[
        bool, typer.Option("--latest", help="Take the newest commit where none is pinned.")
    ] = False,
    yes: Annotated[bool, typer.Option("--yes", "-y", help="Do not ask.")] = False,
) -> None:
    """Fetch the published weights of MODEL; sizes and licence are shown first.

    With --all, a mirror that DREAM_CAD_MODEL_PATH can point to on a machine without a network.
    """
    if everything == (model is not None):
        raise InvalidConfigError("Name a model, or give --all.")
    if model is None:
        if to is None:
            raise InvalidConfigError("--all needs --to DIR: the folder of the mirror.")
        if not pull_all(to, latest=latest, yes=yes):
            raise typer.Exit(1)
        return
    if model in STAGES:
        if to is not None:
            raise InvalidConfigError(f"--to is for models; {model} goes to DREAM_CAD_CACHE_DIR.")
        pull_stage(model, yes=yes)
        return
    with closing(CheckpointDownloader()) as downloader:
        plan = downloader.plan(model, to, latest=latest)
        show_plan(plan)
        if plan.missing:
            if not yes:
                typer.confirm(f"Fetch {decimal(plan.bytes_to_fetch)}?", abort=True, err=True)
            with download_bar() as bar:
                fetch_plan(downloader, plan, bar)
    typer.echo(plan.folder)
