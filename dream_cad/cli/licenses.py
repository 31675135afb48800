"""``dream-cad licenses``: the models' licences, and which of them were accepted here."""

from __future__ import annotations

import getpass
from typing import Annotated, Any

import typer
from rich.table import Table

from dream_cad.cli.console import output_console, show_json
from dream_cad.cli.queue_database import JsonOption, opened_queue
from dream_cad.models.registry import ModelRegistry
from dream_cad.queue import JobQueue

app = typer.Typer(help="List and accept the licences of models.", no_args_is_help=True)


@app.command("list")
def list_licenses(json_output: JsonOption = False) -> None:
    """List the models' licences and who accepted them."""
    with opened_queue() as queue:
        rows = describe_licenses(queue)
    if json_output:
        show_json(rows)
        return
    table = Table(box=None, pad_edge=False)
    for heading in ("model", "licence", "accepted by", "at"):
        table.add_column(heading, overflow="fold")
    for row in rows:
        at = row["accepted_at"]
        table.add_row(
            row["model"],
            row["license"],
            row["accepted_by"] or "-",
            "-" if at is None else f"{at:%Y-%m-%d}",
        )
    output_console().print(table)


@app.command("accept")
def accept(
    model: Annotated[str, typer.Argument(help="The model whose licence you have read.")],
    by: Annotated[str | None, typer.Option(help="Who accepts; by default your login.")] = None,
) -> None:
    """Accept a model's licence for this installation."""
    license_type = ModelRegistry().require_capabilities(model).license_type
    with opened_queue() as queue:
        queue.licenses.accept(model, license_type, by or getpass.getuser())
    typer.echo(f"accepted {model}: {license_type}")


def describe_licenses(queue: JobQueue) -> list[dict[str, Any]]:
    """Return each model's licence, with who accepted it as it is now."""
    accepted = {(row.model, row.license): row for row in queue.licenses.list()}
    registry = ModelRegistry()
    rows = []
    for name in registry.list_models():
        license_type = registry.require_capabilities(name).license_type
        found = accepted.get((name, license_type))
        rows.append(
            {
                "model": name,
                "license": license_type,
                "accepted_by": found.accepted_by if found else None,
                "accepted_at": found.accepted_at if found else None,
            }
        )
    return rows
