"""``dream-cad pull text-to-image`` and ``pull matting``: the networks before the models."""

from __future__ import annotations

import typer
from rich.filesize import decimal

from dream_cad.cli.pull_show import show_stage
from dream_cad.images import matting_model, pipeline_folder
from dream_cad.images.hub import download_repository, list_repository
from dream_cad.settings import get_settings

STAGES = ("text-to-image", "matting")


def stage_source(stage: str) -> tuple[str, tuple[str, ...]]:
    """Return what the settings name for a stage, and the patterns of its files."""
    settings = get_settings()
    return {
        "text-to-image": (settings.text_to_image, pipeline_folder.DOWNLOAD_PATTERNS),
        "matting": (settings.matting_model, matting_model.DOWNLOAD_PATTERNS),
    }[stage]


def pull_stage(stage: str, *, yes: bool) -> None:
    """Fetch the repository that the settings name for ``stage``; sizes are shown first."""
    source, patterns = stage_source(stage)
    sizes = list_repository(source, patterns=patterns)
    show_stage(stage, source, sizes)
    if not yes:
        total = decimal(sum(sizes.values()))
        typer.confirm(f"Fetch up to {total}, less what is here?", abort=True, err=True)
    typer.echo(download_repository(source, patterns=patterns))
