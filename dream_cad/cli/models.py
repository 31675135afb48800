"""``dream-cad models``: which models there are and which of them run here."""

from __future__ import annotations

from dataclasses import asdict
from typing import Annotated, Any

import typer
from rich.table import Table

from dream_cad.cli.console import output_console, show_json
from dream_cad.gpu import get_total_vram
from dream_cad.models.availability import get_availability
from dream_cad.models.registry import ModelRegistry


def models(
    json_output: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
) -> None:
    """List the models, and whether each can run on this machine."""
    rows = [describe_model(name, get_total_vram()) for name in ModelRegistry().list_models()]
    if json_output:
        show_json(rows)
        return
    table = Table(box=None, pad_edge=False)
    for heading in ("model", "runs here", "weights", "device", "GPU GB", "licence", "note"):
        table.add_column(heading, overflow="fold")
    for row in rows:
        table.add_row(*_cells(row))
    output_console().print(table)


def describe_model(name: str, vram_gb: float) -> dict[str, Any]:
    """Return the facts about one model: JSON types, as ``dream-cad models --json`` prints them."""
    capabilities = ModelRegistry().get_capabilities(name)
    return {
        "name": name,
        "availability": asdict(get_availability(name, vram_gb=vram_gb)),
        "capabilities": None if capabilities is None else asdict(capabilities),
    }


def _cells(row: dict[str, Any]) -> list[str]:
    availability, capabilities = row["availability"], row["capabilities"]
    return [
        row["name"],
        "yes" if availability["available"] else "no",
        availability["checkpoint"] or "-",
        availability["device"] or "-",
        f"{capabilities['min_vram_gb']:g}" if capabilities else "-",
        capabilities["license_type"] if capabilities else "-",
        availability["reason"],
    ]
