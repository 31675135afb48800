"""Broad phase: which axis-aligned boxes overlap, by a hash grid with one level for each size.

A box lies in the level whose cells are one to two times its longest side, so it touches at most
eight of them, and is looked up in its own level and every coarser one. A cluster of small boxes
among large ones therefore costs no more than it would alone.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray

from dream_cad.mesh.ragged import batches, count_up

Ints = NDArray[np.int64]
# Pairs expanded at once; some 150 bytes each.
_BATCH = 400_000
# Levels below this part of the largest one are joined: their cells would overflow the key.
_LEVELS = 18
_KEY_BITS = 20


def overlapping_boxes(low: NDArray[np.float64], high: NDArray[np.float64]) -> Iterator[Ints]:
    """Yield batches (P, 2) of box numbers whose boxes overlap or touch, each pair once.

    Args:
        low: (N, 3) finite smallest corners.
        high: (N, 3) largest corners.
    """
    if len(low) < 2:
        return
    origin, size = low.min(axis=0), float((high - low).max())
    if size <= 0:
        return
    extent = np.maximum((high - low).max(axis=1), size * 0.5 ** (_LEVELS - 1))
    level = np.floor(np.log2(size / extent)).astype(np.int64)
    # The grid may be finer than the object allows keys for: then coarsen.
    span = float((high.max(axis=0) - origin).max())
    finest = int(np.floor(_KEY_BITS - 1 - np.log2(max(span / size, 1))))
    level = np.minimum(level, max(finest, 0))
    boxes = np.concatenate([low - origin, high - origin], axis=1)
    for coarse in np.unique(level):
        cell = size * 0.5 ** int(coarse) * (1 + 1e-9)
        target = _entries(np.flatnonzero(level == coarse), boxes, cell)
        for fine in np.unique(level[level >= coarse]):
            query = target
            if fine != coarse:
                query = _entries(np.flatnonzero(level == fine), boxes, cell)
            yield from _join(query, target, boxes, cell, is_same=bool(fine == coarse))


_Entries = tuple[Ints, Ints]


def _entries(index: Ints, boxes: NDArray[np.float64], cell: float) -> _Entries:
    """Return (key, box) of every cell that the boxes touch, sorted by key."""
    first = np.floor(boxes[index, :3] / cell).astype(np.int64)
    size = np.floor(boxes[index, 3:] / cell).astype(np.int64) - first + 1
    count = size.prod(axis=1)
    slot = count_up(count)
    owner = np.repeat(np.arange(len(index)), count)
    x = first[owner, 0] + slot % size[owner, 0]
    slot //= size[owner, 0]
    y = first[owner, 1] + slot % size[owner, 1]
    z = first[owner, 2] + slot // size[owner, 1]
    key = _key(x, y, z)
    order = np.argsort(key, kind="stable")
    return key[order], index[owner[order]]


def _key(x: Ints, y: Ints, z: Ints) -> Ints:
    return (z << (2 * (_KEY_BITS + 1))) | (y << (_KEY_BITS + 1)) | x


def _join(
    query: _Entries, target: _Entries, boxes: NDArray[np.float64], cell: float, *, is_same: bool
) -> Iterator[Ints]:
    key, box = query
    stop = np.searchsorted(target[0], key, side="right")
    start = np.arange(1, len(key) + 1) if is_same else np.searchsorted(target[0], key, side="left")
    partners = stop - start
    for part in batches(partners, _BATCH):
        count = partners[part]
        slot = np.repeat(start[part], count) + count_up(count)
        first = np.repeat(box[part], count)
        second = target[1][slot]
        near = _overlap(boxes, first, second)
        first, second, at = first[near], second[near], np.repeat(key[part], count)[near]
        # Boxes can share several cells; the one with their common low corner counts.
        corner = np.maximum(boxes[first, :3], boxes[second, :3])
        x, y, z = np.floor(corner / cell).astype(np.int64).T
        mine = _key(x, y, z) == at
        yield np.stack([first[mine], second[mine]], axis=1)


def _overlap(boxes: NDArray[np.float64], first: Ints, second: Ints) -> Ints:
    """Return the pairs that overlap on all axes, thinned axis by axis."""
    index = np.arange(len(first))
    for axis in range(3):
        low, high = boxes[:, axis], boxes[:, axis + 3]
        a, b = first[index], second[index]
        index = index[(low[a] <= high[b]) & (low[b] <= high[a])]
    return index
