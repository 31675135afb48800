"""Make the nano checkpoints: ``python -m jobs.train_nano all --data DIR --output DIR``.

Five stages, each resumable by itself: procedural samples, the reconstruction network, the textured
one (Stable Fast 3D's architecture), its material estimator and the text-to-image network. On two
CPU cores two trainings run side by side, one core each.
"""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Annotated

import torch
import typer
from rich.progress import track

from jobs.nano.dataset import SHARD_ITEMS, make_dataset
from jobs.nano.material_data import MATERIAL_ITEMS, make_material_data
from jobs.nano.optimizer import Schedule
from jobs.nano.train_material import train_material
from jobs.nano.train_reconstruction import train_reconstruction
from jobs.nano.train_text_to_image import train_text_to_image
from jobs.nano.train_textured import train_textured

app = typer.Typer(no_args_is_help=True, add_completion=False, help=__doc__)

DataOption = Annotated[Path, typer.Option(help="Folder of the procedural samples.")]
OutputOption = Annotated[Path, typer.Option(help="Folder that gets the checkpoints.")]
MinutesOption = Annotated[float, typer.Option(min=0.1, help="Wall-clock budget.")]
StepsOption = Annotated[int, typer.Option(min=1, help="Most optimiser steps.")]
SeedOption = Annotated[int, typer.Option(min=0)]
ThreadsOption = Annotated[int, typer.Option(min=1, help="CPU threads of the training.")]


def _prepare(threads: int) -> str:
    torch.set_num_threads(threads)
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(message)s", datefmt="%H:%M:%S")
    logging.getLogger("httpx").setLevel(logging.WARNING)
    return "cuda" if torch.cuda.is_available() else "cpu"


@app.command()
def samples(
    data: DataOption,
    items: Annotated[int, typer.Option(min=1, help="Procedural objects.")] = 7_500,
    workers: Annotated[int, typer.Option(min=1, help="Processes.")] = 2,
) -> None:
    """Render objects and draw points from them."""
    shards = -(-items // SHARD_ITEMS)
    for _ in track(make_dataset(data, items, workers), "samples", total=shards):
        pass


@app.command()
def reconstruction(
    data: DataOption,
    output: OutputOption,
    minutes: MinutesOption = 66,
    steps: StepsOption = 100_000,
    seed: SeedOption = 0,
    threads: ThreadsOption = 1,
) -> None:
    """Train picture → 3D; writes ``triposr/`` under the output folder."""
    device = _prepare(threads)
    schedule = Schedule(steps=steps, minutes=minutes)
    train_reconstruction(data, output / "triposr", schedule=schedule, seed=seed, device=device)


@app.command()
def textured(
    data: DataOption,
    output: OutputOption,
    minutes: MinutesOption = 60,
    steps: StepsOption = 100_000,
    seed: SeedOption = 0,
    threads: ThreadsOption = 1,
    rate: Annotated[float, typer.Option(min=0.0, help="Highest learning rate.")] = 2e-3,
    start_from: Annotated[
        Path | None, typer.Option(help="Folder of a checkpoint to train on.")
    ] = None,
) -> None:
    """Train picture → textured 3D; writes ``stable_fast_3d/`` under the output.

    Needs ``triposr/`` there: its image encoder is taken over. Half of the pictures are those of
    the material stage, which are made first.
    """
    device = _prepare(threads)
    list(make_material_data(data / "materials", MATERIAL_ITEMS))
    schedule = Schedule(steps=steps, minutes=minutes)
    train_textured(
        data,
        output / "stable_fast_3d",
        encoder_from=output / "triposr",
        schedule=schedule,
        rate=rate,
        seed=seed,
        device=device,
        start_from=start_from,
    )


@app.command()
def material(
    data: DataOption,
    output: OutputOption,
    minutes: MinutesOption = 25,
    steps: StepsOption = 100_000,
    seed: SeedOption = 0,
    threads: ThreadsOption = 1,
) -> None:
    """Teach ``stable_fast_3d/`` roughness and metallic, on pictures made for it; on the CPU."""
    _prepare(threads)
    schedule = Schedule(steps=steps, minutes=minutes)
    train_material(data, output / "stable_fast_3d", schedule=schedule, seed=seed)


@app.command()
def text(
    data: DataOption,
    output: OutputOption,
    minutes: MinutesOption = 64,
    steps: StepsOption = 100_000,
    seed: SeedOption = 0,
    threads: ThreadsOption = 1,
) -> None:
    """Train text → picture; writes ``text_to_image/`` under the output folder."""
    device = _prepare(threads)
    schedule = Schedule(steps=steps, minutes=minutes)
    folder = output / "text_to_image"
    train_text_to_image(data, folder, schedule=schedule, seed=seed, device=device)


@app.command(name="all")
def everything(
    data: DataOption,
    output: OutputOption,
    minutes: MinutesOption = 66,
    seed: SeedOption = 0,
    threads: ThreadsOption = 2,
) -> None:
    """Make the samples, then train the networks one after the other."""
    samples(data, workers=threads)
    reconstruction(data, output, minutes=minutes, seed=seed, threads=threads)
    textured(data, output, minutes=minutes, seed=seed, threads=threads)
    material(data, output, minutes=0.4 * minutes, seed=seed, threads=threads)
    text(data, output, minutes=minutes, seed=seed, threads=threads)


if __name__ == "__main__":
    app()
