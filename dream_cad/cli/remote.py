"""``dream-cad submit, status, fetch, cancel``: the same work on a server."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from enum import StrEnum
from pathlib import Path
from typing import Annotated, Any

import typer

from dream_cad.cli.client import ApiClient
from dream_cad.cli.console import generation_bar, merge_options, show_json
from dream_cad.cli.generate import (
    FreeOptions,
    Guidance,
    ImagePath,
    ModelName,
    Negative,
    Prompt,
    Resolution,
    Seed,
    Steps,
    Texture,
)


class Priority(StrEnum):
    """How urgent a job is."""

    LOW = "low"
    NORMAL = "normal"
    HIGH = "high"
    URGENT = "urgent"


Server = Annotated[
    str, typer.Option(envvar="DREAM_CAD_SERVER", help="Base URL of the server's HTTP API.")
]
ApiKey = Annotated[
    str | None, typer.Option(envvar="DREAM_CAD_API_KEY", help="Key, where the server asks for one.")
]
JobId = Annotated[str, typer.Argument(help="Id that 'submit' printed.")]
Wait = Annotated[bool, typer.Option("--wait", help="Wait until the job is done.")]
Timeout = Annotated[float, typer.Option("--timeout", min=0, help="Longest wait in seconds.")]
AsJson = Annotated[bool, typer.Option("--json", help="Print the server's answer.")]

LOCAL_SERVER = "http://127.0.0.1:8000"
ONE_HOUR_S = 3600.0


def submit(
    prompt: Prompt = None,
    image: ImagePath = None,
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
    server: Server = LOCAL_SERVER,
    api_key: ApiKey = None,
    json_output: AsJson = False,
) -> None:
    """Send a job to a server and print its id."""
    if (prompt is None) == (image is None):
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
    body = {
        "prompt": prompt,
        "model": model,
        "options": options or None,
        "priority": priority.value,
    }
    with ApiClient(server, api_key) as client:
        job = client.submit(body, image)
        job_id = str(job["id"])
        if wait or output is not None:
            job = _wait(client, job_id, timeout)
        if output is not None:
            client.fetch_result(job_id, output, _format_of(output, None))
    if json_output:
        show_json(job)
    else:
        typer.echo(job_id if output is None else output)


def status(
    job_id: JobId,
    wait: Wait = False,
    timeout: Timeout = ONE_HOUR_S,
    server: Server = LOCAL_SERVER,
    api_key: ApiKey = None,
    json_output: AsJson = False,
) -> None:
    """Show how far a job is."""
    with ApiClient(server, api_key) as client:
        job = _wait(client, job_id, timeout) if wait else client.get_job(job_id)
    if json_output:
        show_json(job)
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
    wait: Wait = False,
    timeout: Timeout = ONE_HOUR_S,
    server: Server = LOCAL_SERVER,
    api_key: ApiKey = None,
) -> None:
    """Download a finished job's mesh and print the file's path."""
    target = output or Path(f"{job_id}.{format or 'glb'}")
    with ApiClient(server, api_key) as client:
        if wait:
            _wait(client, job_id, timeout)
        typer.echo(client.fetch_result(job_id, target, _format_of(target, format)))
        if preview is not None:
            typer.echo(client.fetch_preview(job_id, preview))


def cancel(
    job_id: JobId,
    server: Server = LOCAL_SERVER,
    api_key: ApiKey = None,
    json_output: AsJson = False,
) -> None:
    """Cancel a job: at once if it waits, at its next step if it runs."""
    with ApiClient(server, api_key) as client:
        job = client.cancel(job_id)
    if json_output:
        show_json(job)
    else:
        typer.echo(_describe(job))


def _wait(client: ApiClient, job_id: str, timeout_s: float) -> dict[str, Any]:
    with _state_bar() as show:
        return client.wait(job_id, show, timeout_s=timeout_s)


@contextmanager
def _state_bar() -> Iterator[Callable[[dict[str, Any]], None]]:
    with generation_bar() as advance:

        def show(job: dict[str, Any]) -> None:
            stage = job.get("stage") or job.get("status") or ""
            advance(float(job.get("progress") or 0.0), str(stage))

        yield show


def _format_of(path: Path, format: str | None) -> str:
    return format or path.suffix.removeprefix(".").lower() or "glb"


def _describe(job: dict[str, Any]) -> str:
    parts = [str(job.get("id", "")), str(job.get("status", "unknown"))]
    if job.get("status") == "running":
        parts.append(f"{float(job.get('progress') or 0.0):.0%} {job.get('stage') or ''}".strip())
    if job.get("position") is not None:
        parts.append(f"position {job['position']}")
    error = job.get("error")
    if error:
        parts.append(str(error.get("detail", error)) if isinstance(error, dict) else str(error))
    return "  ".join(parts)
