"""Rows on their way through the stages, and the blocks that carry them between processes.

A block is an Arrow table. The first stage gets the column ``part`` (paths of parts of work), the
others ``item``: one pickle a row, made by the stage before. Ray Data would turn a column of
objects into the same at ten times the cost, and a block a row costs a millisecond. An error that
ends the batch travels as a row with a ``problem``: raised in a worker, it would reach the driver
as a text without its class.
"""

from __future__ import annotations

import pickle
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from dream_cad.exceptions import DreamCadError
from dream_cad.models.base import GenerationResult
from jobs.batch.intake import read_part
from jobs.batch.rows import Row
from jobs.batch.storage import Storage

PART = "part"
PROBLEM = "problem"
_ITEM = "item"
_SCHEMA = pa.schema([(_ITEM, pa.large_binary()), (PROBLEM, pa.large_binary())])
_PIECE_BYTES = 4 * 2**20


@dataclass(frozen=True)
class Item:
    """A row on its way through the stages.

    Attributes:
        row: what is asked for.
        picture: (H, W, 3) uint8 RGB, once it is drawn.
        result: the mesh, once it is made.
        error: why the row goes no further.
        seconds: worked on it so far.
        gpu_percent: load of the model's GPU after it.
        quality: of the finished mesh, 0 to 100; None where it is not measured.
    """

    row: Row
    picture: NDArray[np.uint8] | None = None
    result: GenerationResult | None = None
    error: str | None = None
    seconds: float = 0.0
    gpu_percent: float | None = None
    quality: float | None = None


def to_blocks(items: Iterable[Item]) -> Iterator[pa.Table]:
    """Yield blocks of some megabytes, as soon as there are enough items for one."""
    waiting: list[bytes] = []
    size = 0
    for item in items:
        waiting.append(pickled(item))
        size += len(waiting[-1])
        if size >= _PIECE_BYTES:
            yield _table(waiting)
            waiting, size = [], 0
    if waiting:
        yield _table(waiting)


def to_items(storage: Storage, block: pa.Table) -> list[Item]:
    """Return the items of a block; of parts of work, one for each of their rows.

    Raises:
        DreamCadError: the stage before had it.
    """
    if PART in block.column_names:
        paths = block.column(PART).to_pylist()
        return [Item(row) for path in paths for row in read_part(storage, path)]
    raise_problem(block)
    return [_unpickled(content) for content in block.column(_ITEM).to_pylist()]


def telling(blocks: Iterable[pa.Table]) -> Iterator[pa.Table]:
    """Yield blocks of items; an error that ends them becomes the last one."""
    try:
        yield from blocks
    except DreamCadError as error:
        yield pa.Table.from_pylist([{PROBLEM: pickled(error)}], _SCHEMA)


def raise_problem(block: pa.Table) -> None:
    """Raise the error that a block carries, if it carries one."""
    for content in block.column(PROBLEM).to_pylist():
        if content is not None:
            raise _unpickled(content)


def pickled(value: object) -> bytes:
    """Return what the next stage reads."""
    return pickle.dumps(value, pickle.HIGHEST_PROTOCOL)


def _unpickled(content: bytes) -> Any:
    return pickle.loads(content)  # noqa: S301 - our own, made by the stage before


def _table(pickles: Sequence[bytes]) -> pa.Table:
    columns = [pa.array(pickles, pa.large_binary()), pa.nulls(len(pickles), pa.large_binary())]
    return pa.Table.from_arrays(columns, schema=_SCHEMA)
