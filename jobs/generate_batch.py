"""Generate a mesh for every row of a file.

On a cluster: ``ray job submit --working-dir . -- python -m jobs.generate_batch
--input s3://bucket/prompts.parquet --output s3://bucket/meshes``. Without one, a Ray of its own
is started on this machine. Run the same command again after an interruption: only rows that have
not ended are made.
"""

from __future__ import annotations

import dataclasses
import logging
import os
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Annotated

import ray
import typer
from tenacity import retry, stop_after_attempt

from deployments.plan import cluster_gpus
from deployments.process import import_modules
from dream_cad.cli.remote import Priority
from dream_cad.client import Client
from dream_cad.client.fields import PriorityName
from dream_cad.exceptions import DreamCadError
from dream_cad.mesh.export import resolve_format
from dream_cad.settings import get_settings
from jobs.batch.attempts import SharedTally
from jobs.batch.contact_sheet import sample_completed, write_contact_sheet
from jobs.batch.intake import PARTS_OF_A_SIZE, WORK, Work, take_in
from jobs.batch.manifest import FAILED, MANIFEST, Manifest
from jobs.batch.pipeline import run_pipeline
from jobs.batch.planning import Planner, cluster_nodes, plan_stages
from jobs.batch.pools import with_actors
from jobs.batch.progress import batch_bar
from jobs.batch.reading import Source, open_source, read_records
from jobs.batch.rows import RowChecker
from jobs.batch.service import Errand, follow_sent, send_work
from jobs.batch.service_plan import ServicePlanner
from jobs.batch.storage import Storage, check_kept

_OBJECT_STORE_BYTES = 512 * 2**20
_FAILURE = 1
_PARTS_A_GPU = 8

app = typer.Typer(add_completion=False, help=__doc__, pretty_exceptions_enable=False)


@dataclasses.dataclass(frozen=True)
class BatchWishes:
    """What the command line says about one batch.

    Attributes:
        output: folder or URI.
        model: of rows that name none.
        format: of the meshes.
        actors: model actors; None for as many as fit.
        is_strict: whether one bad row stops the batch before it starts.
        sheet_meshes: meshes on the contact sheet; 0 for none.
        max_part_rows: most rows that one worker takes at once.
        has_quality: whether finished meshes are assessed.
    """

    output: str
    model: str
    format: str = "glb"
    actors: int | None = None
    is_strict: bool = False
    sheet_meshes: int = 36
    max_part_rows: int = 64
    has_quality: bool = True


@app.command()
def main(
    input: Annotated[str, typer.Option(help="txt, csv, jsonl or parquet: path or URI.")],
    output: Annotated[str, typer.Option(help="Folder, file:// or s3:// of the results.")],
    model: Annotated[str | None, typer.Option(help="Of rows that name none.")] = None,
    format: Annotated[str, typer.Option(help="glb, obj, ply or stl.")] = "glb",
    checkpoint: Annotated[str | None, typer.Option(help="auto, published, nano, folder.")] = None,
    text_to_image: Annotated[str | None, typer.Option(help="diffusers repository/folder.")] = None,
    module: Annotated[list[str] | None, typer.Option(help="Module of custom models.")] = None,
    actors: Annotated[int | None, typer.Option(min=1, help="Model workers at once.")] = None,
    retry_failed: Annotated[bool, typer.Option(help="Try failed rows again.")] = False,
    strict: Annotated[bool, typer.Option(help="Refuse an input with a bad row.")] = False,
    contact_sheet: Annotated[int, typer.Option(min=0, max=400, help="Meshes on it.")] = 36,
    max_part_rows: Annotated[int, typer.Option(min=1, max=100_000)] = 64,
    quality: Annotated[bool, typer.Option(help="Assess the meshes.")] = True,
    gpu_memory_gb: Annotated[
        float | None, typer.Option(min=1, help="Of every GPU; asked of its driver if not given.")
    ] = None,
    via: Annotated[str | None, typer.Option(help="URL of a running service to use.")] = None,
    api_key: Annotated[str | None, typer.Option(envvar="DREAM_CAD_API_KEY")] = None,
    priority: Annotated[Priority, typer.Option(help="Of the jobs, with --via.")] = Priority.LOW,
) -> None:
    """Generate a mesh for every row of a file."""
    try:
        source = open_source(input)
        wishes = BatchWishes(
            output,
            model or get_settings().default_model,
            resolve_format(None, format),
            actors,
            strict,
            contact_sheet,
            max_part_rows,
            quality,
        )
        check_kept(output)
        storage = Storage(output)
        storage.probe()
        modules = tuple(module or ())
        import_modules(modules)
        if retry_failed:
            Manifest(storage).join(drop_failed=True)
        if via is not None:
            with Client(via, api_key) as service:
                counts = generate_through(service, source, wishes, model, priority.value)
        else:
            with connected():
                gpus = cluster_gpus(gpu_memory_gb)
                planner = Planner(gpus, checkpoint, text_to_image, modules)
                counts = generate_batch(source, wishes, planner)
    except DreamCadError as error:
        _say(f"error: {error}")
        raise typer.Exit(_FAILURE) from error
    if counts[FAILED]:
        _say(f"{counts[FAILED]:,} rows failed: see the column error of {MANIFEST}.")


def generate_batch(source: Source, wishes: BatchWishes, planner: Planner) -> dict[str, int]:
    """Make what is left to make of an input; call it connected to Ray.

    Returns:
        Rows of the manifest by status, earlier runs included.

    Raises:
        InvalidConfigError: nothing in the input can be used, or the cluster is too small.
        StorageError: the input cannot be read or the output not written.
        GenerationError: the cluster failed; what is finished is kept.
    """
    storage = Storage(wishes.output)
    checker = RowChecker(planner.plan, wishes.model, source.folder)
    records = read_records(source)
    work = take_in(
        records,
        checker,
        storage,
        max_part_rows=wishes.max_part_rows,
        parts_of_a_size=max(PARTS_OF_A_SIZE, _PARTS_A_GPU * sum(g.count for g in planner.gpus)),
        is_strict=wishes.is_strict,
    )
    _tell(source, work)
    started = time.monotonic()
    _run(work, wishes, planner, storage)
    return _conclude(work, wishes, storage, started)


def generate_through(
    service: Client,
    source: Source,
    wishes: BatchWishes,
    model: str | None,
    priority: PriorityName,
) -> dict[str, int]:
    """Make what is left to make of an input by a running service; see ``generate_batch``."""
    storage = Storage(wishes.output)
    errand = Errand(storage, wishes.format, priority)
    planner = ServicePlanner(service.models().as_sent())
    for _ in follow_sent(service, errand):
        pass
    checker = RowChecker(planner.plan, model or planner.default_model, source.folder)
    work = take_in(
        read_records(source),
        checker,
        storage,
        max_part_rows=wishes.max_part_rows,
        is_strict=wishes.is_strict,
    )
    _tell(source, work)
    started = time.monotonic()
    with batch_bar(work.rows) as advance:
        for news in send_work(service, errand, work):
            advance(news)
    return _conclude(work, wishes, storage, started)


def _conclude(work: Work, wishes: BatchWishes, storage: Storage, started: float) -> dict[str, int]:
    manifest = Manifest(storage)
    counts = manifest.join()
    storage.delete_folder(WORK)
    if wishes.sheet_meshes:
        write_contact_sheet(storage, sample_completed(manifest.read(), wishes.sheet_meshes))
    seconds = time.monotonic() - started
    _say(f"{work.rows:,} rows in {seconds:.1f} s; the manifest is {storage.root}/{MANIFEST}")
    return counts


def _run(work: Work, wishes: BatchWishes, planner: Planner, storage: Storage) -> None:
    """Work through the models one after another: each gets the whole cluster."""
    tally = SharedTally()
    # All are planned before the first is run: what cannot be placed is told at once.
    stages = [
        (plan_stages(planner, name, todo, storage=storage, format=wishes.format, tally=tally), todo)
        for name, todo in work.by_model.items()
    ]
    with batch_bar(work.rows) as advance:
        for (setup, pools), todo in stages:
            setup = dataclasses.replace(setup, has_quality=wishes.has_quality)
            cpus = sum(node.cpus for node in cluster_nodes())
            pools = with_actors(pools, wishes.actors or pools.model, cpus)
            for news in run_pipeline(setup, todo, pools):
                advance(news)


@contextmanager
def connected() -> Iterator[None]:
    """Connect to the cluster that RAY_ADDRESS names, or start a Ray on this machine."""
    if ray.is_initialized():
        yield
        return
    _connect()
    try:
        yield
    finally:
        ray.shutdown()


@retry(stop=stop_after_attempt(3), reraise=True)  # on a busy machine the first may time out
def _connect() -> None:
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    if os.environ.get("RAY_ADDRESS"):
        ray.init(log_to_driver=False, logging_level=logging.ERROR)
        return
    # Ray calls it so. Its workers would run at nice 15, and somebody waits for them.
    os.environ.setdefault("RAY_worker_niceness", "0")
    ray.init(
        address="local",
        include_dashboard=False,
        log_to_driver=False,
        logging_level=logging.ERROR,
        object_store_memory=_OBJECT_STORE_BYTES,
    )


def _tell(source: Source, work: Work) -> None:
    if source.ignored:
        _say(f"columns without a meaning here: {', '.join(source.ignored)}")
    if work.repeated:
        _say(
            f"{work.repeated:,} rows stand in the input more than once and are made once "
            f"(the first: row {(work.first_repeated or 0) + 1})"
        )
    if work.bad:
        _say(f"{work.bad:,} rows cannot be made; the first: {work.first_error}")
    left_out = work.finished + work.repeated + work.bad
    _say(f"{work.read:,} rows read, {work.rows:,} to make, {left_out:,} not to make")


def _say(text: str) -> None:
    print(text, file=sys.stderr)


if __name__ == "__main__":
    app()
