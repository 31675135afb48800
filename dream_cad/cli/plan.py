"""``dream-cad plan``: what would run where on a cluster, and why something cannot."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import groupby
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.table import Table

from dream_cad.cli.console import output_console, show_json
from dream_cad.exceptions import InvalidConfigError
from dream_cad.placement import STRATEGIES, PlacedGpu, parse_gpus
from dream_cad.placement.forecast import Forecast, Line, forecast
from dream_cad.placement.load import read_load

_HUNDRED = 100


def plan(
    gpus: Annotated[str, typer.Option(help='For example "4xA10,2xA100-80"; X:GB for others.')],
    load: Annotated[Path, typer.Option(help="YAML: models with jobs_per_hour and seconds.")],
    strategy: Annotated[str, typer.Option(help="spread or pack.")] = STRATEGIES[0],
    json_output: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
) -> None:
    """Plan a load on the GPUs of a cluster; the exit code is 1 where not all of it runs.

    By the rules of the deployment builder: shares follow from memory, published weights are
    assumed, and nothing is started or looked for on this machine.
    """
    if strategy not in STRATEGIES:
        raise InvalidConfigError(f"{strategy!r} is no strategy.", hint=f"{', '.join(STRATEGIES)}.")
    found = forecast(read_load(load), parse_gpus(gpus), strategy)
    if json_output:
        show_json(_document(found))
    else:
        _print(found)
    if not found.is_complete:
        raise typer.Exit(1)


def _print(found: Forecast) -> None:
    console = output_console()
    table = Table(box=None, pad_edge=False)
    for heading in ("model", "weights", "GPU share", "on", "replicas", "jobs/h", "up to", "busy"):
        table.add_column(heading, overflow="fold")
    for line in found.lines:
        if line.seat is not None:
            table.add_row(*_cells(line))
    console.print(table)
    console.print()
    held = Table(box=None, pad_edge=False)
    for heading in ("GPU", "holds", "free"):
        held.add_column(heading, overflow="fold")
    for cells in _gpu_rows(found.gpus):
        held.add_row(*cells)
    console.print(held)
    for line in found.lines:
        if line.reason is not None:
            state = "does not run" if line.placed == 0 else "runs in part"
            console.print(f"\n{line.name} {state}: {line.reason}")


def _cells(line: Line) -> list[str]:
    seat = line.seat
    busy = line.jobs_per_hour / line.capacity_per_hour if line.capacity_per_hour else 0.0
    return [
        line.name,
        line.checkpoint or "-",
        f"{seat.share:g}" if seat is not None else "-",
        ", ".join(seat.gpus) if seat is not None else "-",
        f"{line.placed} of {line.replicas}",
        f"{line.jobs_per_hour:,.0f}",
        f"{line.capacity_per_hour:,.0f}",
        f"{busy:.0%}",
    ]


def _gpu_rows(gpus: Sequence[PlacedGpu]) -> list[list[str]]:
    """Return a line for each run of GPUs that hold the same."""
    rows = []
    for (kind, free, holds), same in groupby(
        gpus, lambda gpu: (gpu.kind, gpu.free, sorted(gpu.holds.items()))
    ):
        numbers = [gpu.number for gpu in same]
        label = f"{numbers[0]}" if len(numbers) == 1 else f"{numbers[0]}-{numbers[-1]}"
        text = ", ".join(f"{name} x {count}" for name, count in holds) or "nothing"
        rows.append([f"{kind} {label}", text, f"{free / _HUNDRED:g}"])
    return rows


def _document(found: Forecast) -> dict[str, Any]:
    return {
        "complete": found.is_complete,
        "models": [
            {
                "name": line.name,
                "weights": line.checkpoint,
                "num_gpus": line.seat.share if line.seat is not None else None,
                "gpus": list(line.seat.gpus) if line.seat is not None else [],
                "accelerators": list(line.seat.accelerators) if line.seat is not None else [],
                "replicas": line.replicas,
                "placed": line.placed,
                "seconds": line.seconds,
                "jobs_per_hour": line.jobs_per_hour,
                "capacity_per_hour": round(line.capacity_per_hour, 1),
                "reason": line.reason,
            }
            for line in found.lines
        ],
        "gpus": [
            {
                "kind": gpu.kind,
                "number": gpu.number,
                "free": gpu.free / _HUNDRED,
                "holds": dict(gpu.holds),
            }
            for gpu in found.gpus
        ],
    }
