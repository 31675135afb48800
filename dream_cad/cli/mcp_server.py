"""The tools that assistants call. Their docstrings and fields are what an assistant reads."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager, contextmanager
from typing import Annotated, Any

from mcp.server.mcpserver import Context, Image, MCPServer
from mcp.server.mcpserver.exceptions import ToolError
from pydantic import Field

import dream_cad
from dream_cad.client import AsyncClient, Job, JobFields
from dream_cad.exceptions import DreamCadError, InvalidConfigError
from dream_cad.settings import get_settings

_INSTRUCTIONS = (
    "Makes 3D meshes of single objects. 'generate' answers at once with a job id; ask 'status' now "
    "and then (seconds to minutes); then 'result' saves the mesh and shows it from several sides."
)

Ctx = Context[AsyncClient, Any]
JobId = Annotated[
    # It becomes part of a file's name here.
    str, Field(description="The id that generate returned.", pattern=r"^[A-Za-z0-9_-]{1,64}$")
]


def create_server(connect: Callable[[], AsyncClient]) -> MCPServer[AsyncClient]:
    """Return an MCP server whose tools are the jobs of a dream_cad server.

    Args:
        connect: makes the client of a run.
    """

    @asynccontextmanager
    async def lifespan(_: MCPServer[AsyncClient]) -> AsyncIterator[AsyncClient]:
        async with connect() as client:
            yield client

    server = MCPServer(
        "dream-cad",
        instructions=_INSTRUCTIONS,
        version=dream_cad.__version__,
        lifespan=lifespan,
        log_level="WARNING",
    )
    server.add_tool(generate)
    server.add_tool(status)
    server.add_tool(result, structured_output=False)
    server.add_tool(list_models)
    return server


async def generate(
    ctx: Ctx,
    prompt: Annotated[str | None, Field(description="One object: a red wooden chair.")] = None,
    image_url: Annotated[
        str | None, Field(description="Or the URL of a picture, on a host that the server allows.")
    ] = None,
    model: Annotated[str | None, Field(description="A name that list_models returned.")] = None,
    options: Annotated[
        dict[str, Any] | None, Field(description="By the model's options_schema, for example seed.")
    ] = None,
) -> dict[str, Any]:
    """Start to make a 3D mesh; returns the job's id at once."""
    fields: JobFields = {"model": model, "options": options}
    with _told():
        client = ctx.request_context.lifespan_context
        return _brief(await client.submit(prompt, image_url=image_url, **fields))


async def status(ctx: Ctx, job_id: JobId) -> dict[str, Any]:
    """Tell how far a job is: pending, running, completed, failed or cancelled."""
    with _told():
        return _brief(await ctx.request_context.lifespan_context.get(job_id))


async def result(
    ctx: Ctx,
    job_id: JobId,
    format: Annotated[str, Field(description="glb, obj, ply or stl.")] = "glb",
) -> list[str | Image]:
    """Save the mesh of a completed job to a file; returns its path and a picture of it."""
    client = ctx.request_context.lifespan_context
    with _told():
        if not format.isalnum():
            raise InvalidConfigError(f"{format!r} is no format.", hint="glb, obj, ply or stl.")
        path = get_settings().output_dir.absolute() / f"{job_id}.{format}"
        preview, saved = await asyncio.gather(
            client.read_preview(job_id), client.fetch_result(job_id, path, format)
        )
        return [f"Saved as {saved}. The picture shows it from several sides.", Image(data=preview)]


async def list_models(ctx: Ctx) -> dict[str, Any]:
    """List the models, whether each can take jobs now, and the schema of its options."""
    shown = {"name", "available", "state", "reason", "license", "formats", "options_schema"}
    with _told():
        found = await ctx.request_context.lifespan_context.models()
    models = [model.model_dump(mode="json", include=shown) for model in found.models]
    return {"default_model": found.default_model, "models": models}


def _brief(job: Job) -> dict[str, Any]:
    shown = {"id", "status", "model", "prompt", "progress", "stage", "position", "eta_s"}
    found: dict[str, Any] = job.model_dump(mode="json", include=shown, exclude_none=True)
    return {**found, "reason": job.reason} if job.status == "failed" else found


@contextmanager
def _told() -> Iterator[None]:
    """Tell an assistant in words why something was refused."""
    try:
        yield
    except DreamCadError as error:
        raise ToolError(str(error)) from error
