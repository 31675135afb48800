"""``dream-cad keys``: API keys, straight on the queue's database."""

from __future__ import annotations

from typing import Annotated, Any

import typer
from rich.table import Table

from dream_cad.cli.console import output_console, show_json
from dream_cad.cli.queue_database import JsonOption, opened_queue
from dream_cad.exceptions import InvalidConfigError
from dream_cad.queue.keys import ApiKey

app = typer.Typer(help="Create, list and revoke API keys.", no_args_is_help=True)


@app.command("create")
def create(
    name: Annotated[str, typer.Argument(help="Who or what will use it.")],
    scope: Annotated[
        list[str] | None,
        typer.Option(help="submit, read or admin; repeat it. Default: submit and read."),
    ] = None,
    rate_per_minute: Annotated[
        int | None, typer.Option(help="Requests allowed in a minute; no limit by default.")
    ] = None,
    max_pending: Annotated[
        int | None, typer.Option(help="Jobs that may wait at once; no limit by default.")
    ] = None,
    weight: Annotated[float, typer.Option(help="Share of GPU time relative to other keys.")] = 1.0,
    json_output: JsonOption = False,
) -> None:
    """Create a key; its text is shown this once."""
    with opened_queue() as queue:
        key, text = queue.keys.create_key(
            name,
            scope or ("submit", "read"),
            rate_per_minute=rate_per_minute,
            max_pending=max_pending,
            weight=weight,
        )
    if json_output:
        show_json({**describe_key(key), "key": text, "webhook_secret": key.webhook_secret})
        return
    typer.echo(text)
    typer.echo("Keep it: it is not stored and cannot be shown again.", err=True)


@app.command("list")
def list_keys(json_output: JsonOption = False) -> None:
    """List the keys; secrets are not among what is known."""
    with opened_queue() as queue:
        rows = [describe_key(key) for key in queue.keys.list_keys()]
    if json_output:
        show_json(rows)
        return
    table = Table(box=None, pad_edge=False)
    for heading in ("id", "name", "scopes", "per minute", "max pending", "weight", "state"):
        table.add_column(heading, overflow="fold")
    for row in rows:
        table.add_row(
            row["id"],
            row["name"],
            ", ".join(row["scopes"]),
            str(row["rate_per_minute"] or "-"),
            str(row["max_pending"] or "-"),
            f"{row['weight']:g}",
            "valid" if row["revoked_at"] is None else f"revoked {row['revoked_at']:%Y-%m-%d}",
        )
    output_console().print(table)


@app.command("revoke")
def revoke(
    key_id: Annotated[str, typer.Argument(help="The id that 'dream-cad keys list' shows.")],
) -> None:
    """Refuse a key from now on; its jobs stay."""
    with opened_queue() as queue:
        if not queue.keys.revoke(key_id):
            raise InvalidConfigError(
                f"There is no valid key {key_id!r}.", hint="'dream-cad keys list' shows them."
            )
    typer.echo(f"revoked {key_id}")


def describe_key(key: ApiKey) -> dict[str, Any]:
    """Return what may be shown of a key."""
    return {
        "id": key.id,
        "name": key.name,
        "scopes": sorted(key.scopes),
        "rate_per_minute": key.rate_per_minute,
        "max_pending": key.max_pending,
        "weight": key.weight,
        "created_at": key.created_at,
        "revoked_at": key.revoked_at,
    }
