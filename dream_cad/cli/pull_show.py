"""What ``dream-cad pull`` shows: sizes, licences, progress."""

from __future__ import annotations

from collections.abc import Mapping

import typer
from rich.filesize import decimal
from rich.progress import Progress

from dream_cad.models.download import CheckpointDownloader, DownloadPlan, LicenseFile


def show_plan(plan: DownloadPlan) -> None:
    """Show a checkpoint's files, which of them are there already, and its licence's name."""
    for repository, commit in plan.revisions.items():
        typer.echo(f"{plan.name}: {repository} at {commit[:12]}", err=True)
    typer.echo(f"licence of the weights: {plan.published.license}", err=True)
    for file in plan.files:
        note = "" if file in plan.missing else "  (already there)"
        typer.echo(f"  {decimal(file.size):>10}  {file.name}{note}", err=True)


def show_stage(stage: str, source: str, sizes: Mapping[str, int]) -> None:
    """Show the files of a stage's repository."""
    typer.echo(f"{stage}: {source}", err=True)
    for name, size in sizes.items():
        typer.echo(f"  {decimal(size):>10}  {name}", err=True)


def show_license(found: LicenseFile | None, repository: str) -> None:
    """Show the text of a repository's licence, or that it has none."""
    if found is None:
        typer.echo(f"  {repository} has no licence file; read its page", err=True)
        return
    for line in found.text.splitlines():
        typer.echo(f"  | {line}", err=True)


def fetch_plan(downloader: CheckpointDownloader, plan: DownloadPlan, bar: Progress) -> None:
    """Fetch the missing files of a checkpoint under a progress bar."""
    tasks = {file.name: bar.add_task(file.name, total=file.size) for file in plan.missing}
    downloader.fetch(plan, lambda name, done: bar.update(tasks[name], completed=done))
