"""Packing charts into the unit square as bitmaps: holes and bays of one chart hold others.

The square is a grid of cells. Charts are placed from large to small at the lowest free place, in
the best of four quarter turns. Free places of large charts come from a correlation; small ones
count as rectangles, for which a table of sums will do. The scale shrinks until all fit, in one of
three orders by size; then it grows again to the largest one that a search by halves finds.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from dream_cad.exceptions import GenerationError
from dream_cad.mesh.charts import Charts, turned_to_rectangle
from dream_cad.mesh.ragged import count_up
from dream_cad.mesh.raster import covered_pixels

_GRID = 256
_FIRST_FILL = 0.86  # part of the square that charts take at the first try
_SHRINK = 0.99  # of lengths, a step
_STRIDE = 8  # steps a try; once all charts fit, halving it finds the largest scale in between
_MAX_STEPS = 320  # down to a twenty-fifth of the first length
_FINE = 4
_MANY_CHARTS = 500
_SMALL_CELLS = 12  # charts no larger than this are placed as rectangles


@dataclass(frozen=True)
class _Placement:
    """Quarter turns (C,), and the low corner (C, 2) column and row, of each chart in cells."""

    turns: NDArray[np.intp]
    corner: NDArray[np.intp]


def pack_charts(charts: Charts, *, texture_size: int, padding: int) -> NDArray[np.float64]:
    """Lay charts side by side in the unit square, all at the same scale.

    Args:
        charts: from ``cut_into_charts``.
        texture_size: texels a side that the padding is meant for.
        padding: least distance of charts in texels.

    Returns:
        (F, 3, 2) UV of the corners in [0, 1].

    Raises:
        GenerationError: there are so many charts that their padding alone fills the square.
    """
    uvs, extent = turned_to_rectangle(charts)
    grid = min(_GRID, texture_size)
    rim = -(-padding * grid // texture_size)
    scale = np.sqrt(_FIRST_FILL / max(float(charts.areas.sum()), 1e-300))
    # A chart longer than the square never fits.
    scale = grid * min(scale, (grid - 2) / grid / max(float(extent.max()), 1e-300))
    sampled = _samples(uvs * scale, charts.label, extent * scale)

    def attempt(step: int) -> NDArray[np.float64] | None:
        shrink = _SHRINK**step
        size = np.floor(extent * scale * shrink).astype(np.intp) + 1
        bitmaps = _bitmaps(sampled, shrink, size)
        cells = np.array([np.count_nonzero(bitmap) for bitmap in bitmaps])
        # Charts grown by the rim to two sides share no cell, and grow at least like squares.
        if ((np.sqrt(cells) + rim) ** 2).sum() > (grid + rim) ** 2:
            return None
        tried = (_place_all(bitmaps, order, grid, rim) for order in _orders(bitmaps))
        placement = next((found for found in tried if found is not None), None)
        if placement is None:
            return None
        return _placed(uvs * scale * shrink, charts.label, size, placement) / grid

    for step in range(_STRIDE, _MAX_STEPS, _STRIDE):
        found = attempt(step)
        if found is not None:
            return _closer(attempt, step, found)
    raise GenerationError(
        f"{charts.count:,} charts do not fit into a texture of {texture_size} texels with "
        f"{padding} texels between them.",
        hint="Raise texture_size, or simplify the mesh first.",
    )


def _closer(
    attempt: Callable[[int], NDArray[np.float64] | None], step: int, found: NDArray[np.float64]
) -> NDArray[np.float64]:
    """Return the packing of the least step that halving the stride before ``step`` finds."""
    stride = _STRIDE // 2
    while stride:
        better = attempt(step - stride)
        if better is not None:
            step, found = step - stride, better
        stride //= 2
    return found


@dataclass(frozen=True)
class _Samples:
    """Points (P,) of charts, in cells at the first scale, four to a cell's side."""

    u: NDArray[np.float32]
    v: NDArray[np.float32]
    chart: NDArray[np.intp]


def _samples(
    cells: NDArray[np.float64], label: NDArray[np.intp], extent: NDArray[np.float64]
) -> _Samples:
    """Sample charts inside and along all edges, so that slivers are not missed.

    Between the samples they reach over by less than a quarter of a cell; the rim around charts is
    a whole one.
    """
    # The charts are drawn side by side in rows of one long strip.
    size = np.ceil(extent * _FINE).astype(np.intp) + 1
    width = int(size[:, 0].max())
    first_row = np.concatenate([[0], np.cumsum(size[:, 1])])
    screen = cells * _FINE
    screen[..., 1] += first_row[label][:, None]
    drawn = [
        np.stack([label[face], pixel % width, pixel // width - first_row[label[face]]])
        for face, pixel in covered_pixels(screen, width=width, height=int(first_row[-1]))
    ]
    chart, column, row = np.concatenate([*drawn, np.empty((3, 0), np.intp)], axis=1)
    rim, owner = _edge_samples(cells)
    return _Samples(
        np.concatenate([(column + 0.5).astype(np.float32) / _FINE, rim[:, 0]]),
        np.concatenate([(row + 0.5).astype(np.float32) / _FINE, rim[:, 1]]),
        np.concatenate([chart, label[owner]]),
    )


def _edge_samples(cells: NDArray[np.float64]) -> tuple[NDArray[np.float32], NDArray[np.intp]]:
    """Return points (P, 2) along the edges of faces (F, 3, 2), and the face of each."""
    start = cells.reshape(-1, 2)
    along = np.roll(cells, -1, axis=1).reshape(-1, 2) - start
    steps = np.ceil(np.abs(along).max(axis=1) * _FINE).astype(np.intp) + 1
    edge = np.repeat(np.arange(len(start)), steps)
    share = count_up(steps) / steps[edge]
    return (start[edge] + share[:, None] * along[edge]).astype(np.float32), edge // 3


def _place_all(
    bitmaps: list[NDArray[np.uint8]], order: NDArray[np.intp], grid: int, rim: int
) -> _Placement | None:
    """Place charts in an order, or return None as soon as one does not fit."""
    occupied = np.zeros((grid, grid), dtype=np.uint8)
    turns = np.zeros(len(bitmaps), dtype=np.intp)
    corner = np.zeros((len(bitmaps), 2), dtype=np.intp)
    kernel = np.ones((2 * rim + 1, 2 * rim + 1), np.uint8)
    top = 0
    for chart in order:
        found = _lowest_place(occupied, bitmaps[chart], top)
        if found is None:
            return None
        turns[chart], row, column = found
        corner[chart] = column, row
        bitmap = np.rot90(bitmaps[chart], turns[chart])
        grown = cv2.dilate(np.pad(bitmap, rim), kernel).astype(np.uint8)
        _occupy(occupied, grown, row - rim, column - rim)
        top = max(top, row + len(bitmap) + rim)
    return _Placement(turns, corner)


def _orders(bitmaps: list[NDArray[np.uint8]]) -> Iterator[NDArray[np.intp]]:
    """Yield orders of charts, large ones first: by their box, by their cells, by their length.

    Very many charts are so small that the order matters little; one has to do.
    """
    sizes = (np.size, np.count_nonzero, lambda bitmap: max(bitmap.shape))
    for size in sizes[: 1 if len(bitmaps) > _MANY_CHARTS else None]:
        yield np.argsort([-int(size(bitmap)) for bitmap in bitmaps], kind="stable")


def _bitmaps(sampled: _Samples, shrink: float, size: NDArray[np.intp]) -> list[NDArray[np.uint8]]:
    """Return for each chart (rows, columns) uint8, 1 for the cells it touches."""
    area = size.prod(axis=1)
    start = np.concatenate([[0], np.cumsum(area)])
    factor = np.float32(shrink)
    column = np.minimum((sampled.u * factor).astype(np.intp), size[sampled.chart, 0] - 1)
    row = np.minimum((sampled.v * factor).astype(np.intp), size[sampled.chart, 1] - 1)
    canvas = np.zeros(int(start[-1]), dtype=np.uint8)
    canvas[start[sampled.chart] + row * size[sampled.chart, 0] + column] = 1
    parts = np.split(canvas, start[1:-1])
    return [part.reshape(rows, columns) for part, (columns, rows) in zip(parts, size, strict=True)]


def _lowest_place(
    occupied: NDArray[np.uint8], bitmap: NDArray[np.uint8], top: int
) -> tuple[int, int, int] | None:
    """Return (quarter turns, row, column) of the free place whose middle is lowest.

    Args:
        occupied: (N, N) uint8 grid.
        bitmap: of the chart.
        top: from this row on the grid is empty.
    """
    is_small = max(bitmap.shape) <= _SMALL_CELLS
    best: tuple[float, tuple[int, int, int]] | None = None
    for turn in range(2 if is_small else 4):
        turned = np.ascontiguousarray(np.rot90(bitmap, turn))
        rows, columns = turned.shape
        # Above what is there any place is free, and above the best so far none is better.
        limit = top if best is None else min(top, int(best[0] - rows / 2))
        if columns > occupied.shape[1] or limit < 0:
            continue
        hits = (_box_sums if is_small else _hits)(occupied[: limit + rows], turned)
        free = np.flatnonzero(hits < 0.5)
        if len(free) == 0:
            continue
        row, column = divmod(int(free[0]), hits.shape[1])
        cost = row + rows / 2 + column / occupied.shape[1]
        if best is None or cost < best[0]:
            best = cost, (turn, row, column)
    return None if best is None else best[1]


def _hits(occupied: NDArray[np.uint8], bitmap: NDArray[np.uint8]) -> Any:
    """Count the occupied cells under the bitmap at every place; empty where it is too tall."""
    if len(bitmap) > len(occupied):
        return np.empty((0, 1))
    return cv2.matchTemplate(occupied, bitmap, cv2.TM_CCORR)


def _box_sums(occupied: NDArray[np.uint8], bitmap: NDArray[np.uint8]) -> Any:
    rows, columns = bitmap.shape
    if rows > len(occupied):
        return np.empty((0, 1))
    table = cv2.integral(occupied)
    return (
        table[rows:, columns:]
        - table[:-rows, columns:]
        - table[rows:, :-columns]
        + (table[:-rows, :-columns])
    )


def _occupy(occupied: NDArray[np.uint8], bitmap: NDArray[np.uint8], row: int, column: int) -> None:
    """Mark the cells of a bitmap that may stick out of the grid."""
    top, left = max(row, 0), max(column, 0)
    target = occupied[top : row + bitmap.shape[0], left : column + bitmap.shape[1]]
    part = bitmap[top - row :, left - column :][: target.shape[0], : target.shape[1]]
    np.maximum(target, part, out=target)


def _placed(
    cells: NDArray[np.float64],
    label: NDArray[np.intp],
    size: NDArray[np.intp],
    placement: _Placement,
) -> NDArray[np.float64]:
    """Turn and shift UV (F, 3, 2) as their charts were."""
    u, v = cells[..., 0], cells[..., 1]
    width, height = size[label].T[:, :, None].astype(np.float64)
    # np.rot90 turns rows and columns: (row, column) -> (width - column, row) for one turn.
    turned_u = np.stack([u, v, width - u, height - v])
    turned_v = np.stack([v, width - u, height - v, u])
    turn = placement.turns[label]
    face = np.arange(len(label))
    turned = np.stack([turned_u[turn, face], turned_v[turn, face]], axis=2)
    return turned + placement.corner[label][:, None]
