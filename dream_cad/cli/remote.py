"""``dream-cad submit, status, fetch, cancel``: the same work on a server."""

from __future__ import annotations

from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer

from dream_cad.cli.console import generation_bar, merge_options, show_json
from dream_cad.cli.generate import (
    FreeOptions,
    Guidance,
    ImagePaths,
    ModelName,
    Negative,
    Prompt,
    Resolution,
    Seed,
    Steps,
    Texture,
)
from dream_cad.cli.pictures import read_pictures
from dream_cad.client import Client, Job, JobFields
from dream_cad.settings import get_settings


class Priority(StrEnum):
    """How urgent a job is."""

    LOW = "low"
    NORMAL = "normal"
    HIGH = "high"
    URGENT = "urgent"


Server = Annotated[
    str | None,
    typer.Option(
        envvar="DREAM_CAD_SERVER",
        help="Base URL of the server's HTTP API.",
        show_default="http://127.0.0.1:8000",
    ),
]
ApiKey = Annotated[
    str | None, typer.Option(envvar="DREAM_CAD_API_KEY", help="Key, where the server asks for one.")
]
JobId = Annotated[str, typer.Argument(help="Id that 'submit' printed.")]
Wait = Annotated[bool, typer.Option("--wait", help="Wait until the job is done.")]
Timeout = Annotated[float, typer.Option("--timeout", min=0, help="Longest wait in seconds.")]
AsJson = Annotated[bool, typer.Option("--json", help="Print the server's answer.")]

ONE_HOUR_S = 3600.0

_AT_ONCE_S = 2.0


def submit(
    prompt: Prompt = None,
    image: ImagePaths = None,
    output: Annotated[
        Path | None, typer.Option("-o", "--output", help="Wait, and write the mesh here.")
    ] = None,
    model: ModelName = None,
    priority: Annotated[Priority, typer.Option(help="Urgent jobs go first.")] = Priority.NORMAL,
    seed: Seed = None,
    steps: Steps = None,
    guidance: Guidance = None,
    negative: Negative = None,
    resolution: Resolution = None,
    texture: Texture = None,
    option: FreeOptions = None,
    wait: Wait = False,
    timeout: Timeout = ONE_HOUR_S,
    server: Server = None,
    api_key: ApiKey = None,
    json_output: AsJson = False,
) -> None:
    """Send a job to a server and print its id."""
    pictures = read_pictures(image)
    if (prompt is None) == (pictures is None):
        raise typer.BadParameter("give either a prompt or --image.")
    named = {
        "seed": seed,
        "num_inference_steps": steps,
        "guidance_scale": guidance,
        "negative_prompt": negative,
        "resolution": resolution,
        "texture": texture,
    }
    options = merge_options(named, option or [])
    fields: JobFields = {
        "model": model,
        "options": options or None,
        "priority": priority.value,
    }
    with Client(server, api_key, patience_s=_patience_s(wait or output is not None)) as client:
        if pictures is None or isinstance(pictures, Path):
            job = client.submit(prompt, image=pictures, **fields)
        else:
            job = client.submit(images=pictures, **fields)
        if wait or output is not None:
            job = _wait(client, job.id, timeout)
        if output is not None:
            client.fetch_result(job.id, output, output.suffix[1:].lower() or "glb")
    if json_output:
        show_json(job.as_sent())
    else:
        typer.echo(job.id if output is None else output)


def status(
    job_id: JobId,
    wait: Wait = False,
    timeout: Timeout = ONE_HOUR_S,
    server: Server = None,
    api_key: ApiKey = None,
    json_output: AsJson = False,
) -> None:
    """Show how far a job is."""
    with Client(server, api_key, patience_s=_patience_s(wait)) as client:
        job = _wait(client, job_id, timeout) if wait else client.get(job_id)
    if json_output:
        show_json(job.as_sent())
    else:
        typer.echo(_describe(job))


def fetch(
    job_id: JobId,
    output: Annotated[
        Path | None,
        typer.Option("-o", "--output", help="File to write; else ID.glb here."),
    ] = None,
    format: Annotated[
        str | None, typer.Option(help="glb, obj, ply or stl; else by the file's suffix.")
    ] = None,
    preview: Annotated[Path | None, typer.Option(help="Also write the turntable PNG here.")] = None,
    files: Annotated[
        Path | None, typer.Option(help="Also write all stored files into this folder.")
    ] = None,
    wait: Wait = False,
    timeout: Timeout = ONE_HOUR_S,
    server: Server = None,
    api_key: ApiKey = None,
) -> None:
    """Download a finished job's mesh and print the file's path."""
    target = output or Path(f"{job_id}.{format or 'glb'}")
    wanted = format or target.suffix[1:].lower() or "glb"
    with Client(server, api_key, patience_s=_patience_s(wait)) as client:
        if wait:
            _wait(client, job_id, timeout)
        typer.echo(client.fetch_result(job_id, target, wanted))
        if preview is not None:
            typer.echo(client.fetch_preview(job_id, preview))
        if files is not None:
            for file in client.files(job_id):
                typer.echo(client.fetch_file(job_id, file.name, files / file.name))


def cancel(
    job_id: JobId,
    server: Server = None,
    api_key: ApiKey = None,
    json_output: AsJson = False,
) -> None:
    """Cancel a job: at once if it waits, at its next step if it runs."""
    with Client(server, api_key, patience_s=_patience_s(False)) as client:
        job = client.cancel(job_id)
    if json_output:
        show_json(job.as_sent())
    else:
        typer.echo(_describe(job))


def _wait(client: Client, job_id: str, timeout_s: float) -> Job:
    with generation_bar() as advance:

        def show(job: Job) -> None:
            advance(job.progress or 0.0, job.stage or job.status)

        return client.wait(job_id, show, timeout_s=timeout_s)


def _patience_s(is_waiting: bool) -> float:
    """Return how long the server may be away: who asks for an answer at once, gets it soon."""
    patience_s = get_settings().patience_s
    return patience_s if is_waiting else min(patience_s, _AT_ONCE_S)


def _describe(job: Job) -> str:
    parts = [job.id, job.status]
    if job.status == "running":
        parts.append(f"{job.progress or 0.0:.0%} {job.stage}".strip())
    if job.position is not None:
        parts.append(f"position {job.position}")
    if job.error:
        parts.append(job.reason)
    return "  ".join(parts)
