"""Packing charts into the unit square as bitmaps: holes and bays of one chart hold others.

The square is a grid of cells. Charts are placed from large to small at the lowest free place, in
the best of four quarter turns. Free places of large charts come from a correlation by FFT; small
ones count as rectangles, for which a table of sums will do. The scale shrinks until all fit.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray
from scipy import fft

from dream_cad.exceptions import GenerationError
from dream_cad.mesh.charts import Charts, turned_to_rectangle
from dream_cad.mesh.ragged import count_up
from dream_cad.mesh.raster import covered_pixels

_GRID = 256
_FIRST_FILL = 0.86  # part of the square that charts take at the first try
_SHRINK = 0.965  # of lengths, a try
_MAX_TRIES = 90  # down to a twenty-fifth of the first length
_STRIDE = 3
_FINE = 4
_SMALL_CELLS = 24  # charts no larger than this are placed as rectangles


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
        placement = _place_all(_bitmaps(sampled, shrink, size), grid, rim)
        if placement is None:
            return None
        return _placed(uvs * scale * shrink, charts.label, size, placement) / grid

    for step in range(_STRIDE - 1, _MAX_TRIES, _STRIDE):
        found = attempt(step)
        if found is not None:
            # One of the steps in between may have done as well.
            closer = (attempt(between) for between in range(step - _STRIDE + 1, step))
            return next((better for better in closer if better is not None), found)
    raise GenerationError(
        f"{charts.count:,} charts do not fit into a texture of {texture_size} texels with "
        f"{padding} texels between them.",
        hint="Raise texture_size, or simplify the mesh first.",
    )


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


def _place_all(bitmaps: list[NDArray[np.uint8]], grid: int, rim: int) -> _Placement | None:
    """Place charts, or return None as soon as one does not fit."""
    order = np.argsort([-bitmap.size for bitmap in bitmaps], kind="stable")
    occupied = np.zeros((grid, grid), dtype=np.uint8)
    turns = np.zeros(len(bitmaps), dtype=np.intp)
    corner = np.zeros((len(bitmaps), 2), dtype=np.intp)
    kernel = np.ones((2 * rim + 1, 2 * rim + 1), np.uint8)
    for chart in order:
        found = _lowest_place(occupied, bitmaps[chart])
        if found is None:
            return None
        turns[chart], row, column = found
        corner[chart] = column, row
        bitmap = np.rot90(bitmaps[chart], turns[chart])
        grown = cv2.dilate(np.pad(bitmap, rim), kernel).astype(np.uint8)
        _occupy(occupied, grown, row - rim, column - rim)
    return _Placement(turns, corner)


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
    occupied: NDArray[np.uint8], bitmap: NDArray[np.uint8]
) -> tuple[int, int, int] | None:
    """Return (quarter turns, row, column) of the free place whose middle is lowest."""
    is_small = max(bitmap.shape) <= _SMALL_CELLS
    blocked = None if is_small else fft.rfft2(occupied.astype(np.float32))
    best: tuple[float, tuple[int, int, int]] | None = None
    for turn in range(2 if is_small else 4):
        turned = np.rot90(bitmap, turn)
        rows, columns = (n - m + 1 for n, m in zip(occupied.shape, turned.shape, strict=True))
        if min(rows, columns) < 1:
            continue
        hits = _box_sums(occupied, turned) if blocked is None else _hits(blocked, turned, occupied)
        free = np.flatnonzero(hits[:rows, :columns] < 0.5)
        if len(free) == 0:
            continue
        row, column = divmod(int(free[0]), columns)
        cost = row + turned.shape[0] / 2 + column / occupied.shape[1]
        if best is None or cost < best[0]:
            best = cost, (turn, row, column)
    return None if best is None else best[1]


def _hits(blocked: Any, bitmap: NDArray[np.uint8], occupied: NDArray[np.uint8]) -> Any:
    """Count the occupied cells under the bitmap at every place without wrap-around."""
    shape = occupied.shape
    chart = fft.rfft2(bitmap.astype(np.float32), s=shape)
    return fft.irfft2(blocked * chart.conj(), s=shape)


def _box_sums(occupied: NDArray[np.uint8], bitmap: NDArray[np.uint8]) -> Any:
    table = cv2.integral(occupied)
    rows, columns = bitmap.shape
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
