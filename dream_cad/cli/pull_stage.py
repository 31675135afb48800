"""``dream-cad pull text-to-image`` and ``pull matting``: the networks before the models."""

from __future__ import annotations

import typer
from rich.filesize import decimal

from dream_cad.images import matting_model, pipeline_folder
from dream_cad.images.hub import download_repository, list_repository
from dream_cad.settings import get_settings

STAGES = ("text-to-image", "matting")


def pull_stage(stage: str, *, yes: bool) -> None:
    """Fetch the repository that the settings name for ``stage``; sizes are shown first."""
    settings = get_settings()
    source, patterns = {
        "text-to-image": (settings.text_to_image, pipeline_folder.DOWNLOAD_PATTERNS),
        "matting": (settings.matting_model, matting_model.DOWNLOAD_PATTERNS),
    }[stage]
    sizes = list_repository(source, patterns=patterns)
    typer.echo(f"{stage}: {source}", err=True)
    for name, size in sizes.items():
        typer.echo(f"  {decimal(size):>10}  {name}", err=True)
    if not yes:
        total = decimal(sum(sizes.values()))
        typer.confirm(f"Fetch up to {total}, less what is here?", abort=True, err=True)
    typer.echo(download_repository(source, patterns=patterns))
