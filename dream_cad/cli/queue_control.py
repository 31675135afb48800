"""``dream-cad queue``: what waits and runs, pause, resume and drain, straight on the database."""

from __future__ import annotations

from typing import Annotated, Any

import typer
from rich.table import Table

from dream_cad.cli.console import output_console, show_json
from dream_cad.cli.queue_database import JsonOption, opened_queue
from dream_cad.queue import JobFilter, JobQueue, JobStatus

app = typer.Typer(help="Look at the queue, pause, resume or drain it.", no_args_is_help=True)

ModelOption = Annotated[str | None, typer.Option("--model", help="Only this model.")]


@app.command("status")
def status(json_output: JsonOption = False) -> None:
    """Show what waits by model and priority, what runs, and what is paused."""
    with opened_queue() as queue:
        state = describe_queue(queue)
    if json_output:
        show_json(state)
        return
    table = Table(box=None, pad_edge=False)
    for heading in ("model", "priority", "waiting", "oldest since"):
        table.add_column(heading)
    for row in state["depth"]:
        table.add_row(
            row["model"], row["priority"], str(row["count"]), f"{row['oldest']:%Y-%m-%d %H:%M:%S}"
        )
    output_console().print(table)
    counts = ", ".join(f"{number} {name}" for name, number in state["counts"].items())
    typer.echo(f"{counts}; {_describe_switches(state)}")


@app.command("pause")
def pause(model: ModelOption = None) -> None:
    """Start no more jobs, or none of one model; running ones go on and new ones are accepted."""
    with opened_queue() as queue:
        queue.pause(model)
    typer.echo(f"paused {model or 'everything'}")


@app.command("resume")
def resume(model: ModelOption = None) -> None:
    """Undo pause; without a model, end draining too."""
    with opened_queue() as queue:
        queue.resume(model)
        if model is None:
            queue.undrain()
    typer.echo(f"resumed {model or 'everything'}")


@app.command("drain")
def drain(
    wait: Annotated[bool, typer.Option(help="Return when no job runs any more.")] = False,
) -> None:
    """Start no more jobs, so that servers can be replaced; 'resume' ends it."""
    with opened_queue() as queue:
        queue.drain()
        while wait and (running := queue.list_jobs(JobFilter(status=JobStatus.RUNNING)).jobs):
            for job in running:
                queue.wait(job.id)
    typer.echo("drained" if wait else "draining")


def describe_queue(queue: JobQueue) -> dict[str, Any]:
    """Return depth, counts and switches of a queue: JSON types and times."""
    switches = queue.switches()
    return {
        "depth": [
            {
                "model": row.model_name,
                "priority": row.priority.name,
                "count": row.count,
                "oldest": row.oldest_created_at,
            }
            for row in queue.depth()
        ],
        "counts": {
            state.value: queue.count(state) for state in (JobStatus.PENDING, JobStatus.RUNNING)
        },
        "paused": switches.all_paused,
        "paused_models": list(switches.models),
        "draining": switches.draining,
    }


def _describe_switches(state: dict[str, Any]) -> str:
    if state["draining"]:
        return "draining"
    if state["paused"]:
        return "paused"
    models = ", ".join(state["paused_models"])
    return f"paused models: {models}" if models else "open"
