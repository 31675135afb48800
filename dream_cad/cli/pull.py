"""``dream-cad pull``: fetch a published checkpoint."""

from __future__ import annotations

from contextlib import closing
from pathlib import Path
from typing import Annotated

import typer
from rich.filesize import decimal
from rich.progress import Progress

from dream_cad.cli.console import download_bar
from dream_cad.cli.pull_stage import STAGES, pull_stage
from dream_cad.exceptions import InvalidConfigError
from dream_cad.models.download import CheckpointDownloader, DownloadPlan


def pull(
    model: Annotated[
        str, typer.Argument(help="Model, for example triposr; or text-to-image, matting.")
    ],
    to: Annotated[
        Path | None,
        typer.Option(help="Folder to put the files into; one in DREAM_CAD_CACHE_DIR if not given."),
    ] = None,
    latest: Annotated[
        bool, typer.Option("--latest", help="Take the newest commit where none is pinned.")
    ] = False,
    yes: Annotated[bool, typer.Option("--yes", "-y", help="Do not ask.")] = False,
) -> None:
    """Fetch the published weights of MODEL; sizes and licence are shown first."""
    if model in STAGES:
        if to is not None:
            raise InvalidConfigError(f"--to is for models; {model} goes to DREAM_CAD_CACHE_DIR.")
        pull_stage(model, yes=yes)
        return
    with closing(CheckpointDownloader()) as downloader:
        plan = downloader.plan(model, to, latest=latest)
        _show_plan(plan)
        if plan.missing:
            if not yes:
                typer.confirm(f"Fetch {decimal(plan.bytes_to_fetch)}?", abort=True, err=True)
            with download_bar() as bar:
                _fetch(downloader, plan, bar)
    typer.echo(plan.folder)


def _show_plan(plan: DownloadPlan) -> None:
    for repository, commit in plan.revisions.items():
        typer.echo(f"{plan.name}: {repository} at {commit[:12]}", err=True)
    typer.echo(f"licence of the weights: {plan.published.license}", err=True)
    for file in plan.files:
        note = "" if file in plan.missing else "  (already there)"
        typer.echo(f"  {decimal(file.size):>10}  {file.name}{note}", err=True)


def _fetch(downloader: CheckpointDownloader, plan: DownloadPlan, bar: Progress) -> None:
    tasks = {file.name: bar.add_task(file.name, total=file.size) for file in plan.missing}
    downloader.fetch(plan, lambda name, done: bar.update(tasks[name], completed=done))
