"""The streaming pipeline of one model: Ray Data runs the stages beside each other."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from dataclasses import dataclass

import pyarrow as pa
import ray
from ray.data import ActorPoolStrategy, DataContext, Dataset
from ray.exceptions import RayError

from deployments.plan import accelerator_options
from dream_cad.exceptions import GenerationError
from jobs.batch.intake import ModelWork
from jobs.batch.items import PART, raise_problem
from jobs.batch.pools import Pools
from jobs.batch.stages import DrawPictures, FinishMeshes, GenerateMeshes, StageSetup

_BLOCK_BYTES = 32 * 2**20
"""Meshes that wait for the finisher leave the model in blocks of about this size, so that
finishing begins before a part of the work is through."""

_AT_ONCE = 1
"""Rows of a block (parts of work, then items) in one call of a stage on GPUs. Ray Data refuses
such a stage without a number, and with a larger one waits until as many rows have come."""


@dataclass(frozen=True)
class Advance:
    """News of the pipeline.

    Attributes:
        completed: rows that got a mesh.
        failed: rows that did not.
        gpu_percent: mean load of the GPUs that made them; None without GPUs.
    """

    completed: int
    failed: int
    gpu_percent: float | None


def run_pipeline(setup: StageSetup, work: ModelWork, pools: Pools) -> Iterator[Advance]:
    """Work through the parts of one model; yields as rows end.

    Memory is bounded: Ray Data holds a stage back while the next is full.

    Raises:
        DreamCadError: a stage could not load what it needs, or the output cannot be written.
        GenerationError: the cluster failed in another way.
    """
    _configure()
    parts = [{PART: path} for path in work.parts]
    rows: Dataset = ray.data.from_items(parts, override_num_blocks=len(parts))
    if pools.text:
        rows = rows.map_batches(
            DrawPictures,
            fn_constructor_args=(setup,),
            batch_size=_AT_ONCE,
            batch_format="pyarrow",
            num_gpus=setup.text_gpu_share,
            num_cpus=pools.model_cpus,
            compute=_pool(pools.text),
            **accelerator_options(setup.text_accelerators),
        )
    rows = rows.map_batches(
        GenerateMeshes,
        fn_constructor_args=(setup,),
        batch_size=_AT_ONCE,
        batch_format="pyarrow",
        num_gpus=setup.gpu_share,
        num_cpus=pools.model_cpus,
        compute=_pool(pools.model),
        **accelerator_options(setup.accelerators),
    ).map_batches(
        FinishMeshes,
        fn_constructor_args=(setup,),
        batch_size=None,
        batch_format="pyarrow",
        num_cpus=pools.finisher_cpus,
        # An actor is there before the first meshes are: a task's process would begin with them,
        # and what is made meanwhile is lost by a kill.
        compute=ActorPoolStrategy(min_size=1),
    )
    try:
        for block in rows.iter_batches(batch_size=None, batch_format="pyarrow"):
            yield _advance(block)
    except RayError as error:
        raise _explained(error) from error


def _pool(size: int) -> ActorPoolStrategy:
    # One is enough to begin: the others join as the cluster finds places for them.
    return ActorPoolStrategy(min_size=1, max_size=size, initial_size=size)


def _advance(block: pa.Table) -> Advance:
    raise_problem(block)
    news = block.to_pylist()
    loads = [one["gpu_percent"] for one in news if one["gpu_percent"] is not None]
    return Advance(
        sum(one["completed"] for one in news),
        sum(one["failed"] for one in news),
        sum(loads) / len(loads) if loads else None,
    )


def _configure() -> None:
    context = DataContext.get_current()
    context.enable_progress_bars = False
    context.target_max_block_size = _BLOCK_BYTES
    context.print_on_execution_start = False
    for name in ("ray.data", "ray.anyscale"):
        logging.getLogger(name).setLevel(logging.ERROR)


def _explained(error: RayError) -> GenerationError:
    return GenerationError(
        f"The batch stopped: {type(error).__name__}: {str(error)[-500:]}",
        hint="Run the same command again: finished rows are kept.",
    )
