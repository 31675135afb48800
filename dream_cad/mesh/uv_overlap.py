"""Which triangles of a UV layout overlap (Stable Fast 3D spec, section 10.3 d).

Triangles meet in the cells of a grid; pairs that share a cell are tested exactly, in float64: a
separating edge rejects most of them, the rest are clipped against each other.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from dream_cad.mesh.ragged import batches, count_up

# The spec's constants, in units of a layout in [0, 1].
MIN_SHARED_AREA = 1e-10
MIN_DOUBLED_AREA = 1e-7
# Pairs expanded at once: some 300 bytes each.
_BATCH_PAIRS = 200_000
_MAX_CELLS_PER_FACE = 6.0
_FINEST_CELL = 1 / 4096

Pairs = NDArray[np.intp]


def overlapping_pairs(
    triangles: NDArray[np.floating[Any]], groups: NDArray[np.integer[Any]]
) -> Pairs:
    """Find all pairs of triangles of the same group that overlap.

    Args:
        triangles: (F, 3, 2) float, in [0, 1].
        groups: (F,) non-negative integers; only equal ones are compared.

    Returns:
        (P, 2) face numbers, the smaller first; each pair once, in no particular order. Triangles
        without area and copies of each other do not count.
    """
    corners = np.asarray(triangles, dtype=np.float64)
    area = _doubled_area(corners)
    usable = np.flatnonzero(np.abs(area) >= MIN_DOUBLED_AREA)
    if len(usable) < 2:
        return np.empty((0, 2), dtype=np.intp)
    corners, group = corners[usable], np.asarray(groups)[usable].astype(np.int64)
    parts = [
        part[triangles_overlap(corners[part[:, 0]], corners[part[:, 1]])]
        for part in _neighbours(corners, group)
    ]
    pairs = usable[np.concatenate(parts)] if parts else np.empty((0, 2), dtype=np.intp)
    return np.sort(pairs, axis=1)


def triangles_overlap(
    first: NDArray[np.floating[Any]], second: NDArray[np.floating[Any]]
) -> NDArray[np.bool_]:
    """Tell for each pair of triangles (P, 3, 2) whether they share area; returns (P,) bool.

    Either winding will do. Pairs with the same corners in the same order and triangles without
    area never overlap.
    """
    a, b = np.asarray(first, dtype=np.float64), np.asarray(second, dtype=np.float64)
    twice_a, twice_b = _doubled_area(a), _doubled_area(b)
    has_area = (np.abs(twice_a) >= MIN_DOUBLED_AREA) & (np.abs(twice_b) >= MIN_DOUBLED_AREA)
    rest = np.flatnonzero(has_area & (a != b).any(axis=(1, 2)))
    a, b = _counter_clockwise(a, twice_a), _counter_clockwise(b, twice_b)
    for corner in range(3):
        rest = rest[~_is_separating(a[rest], b[rest], corner)]
        rest = rest[~_is_separating(b[rest], a[rest], corner)]
    is_flagged = np.zeros(len(a), dtype=bool)
    is_flagged[rest] = shared_area(a[rest], b[rest]) >= MIN_SHARED_AREA
    return is_flagged


def shared_area(first: NDArray[np.float64], second: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return the areas (P,) that counter-clockwise triangles (P, 3, 2) have in common."""
    # Around the first corner: products of small numbers lose less.
    origin = first[:, :1]
    polygon, other = first - origin, second - origin
    for corner in range(3):
        start = other[:, corner, None]
        edge = other[:, (corner + 1) % 3, None] - start
        polygon = _clip(polygon, _cross(edge, polygon - start))
    following = np.roll(polygon, -1, axis=1)
    area: NDArray[np.float64] = _cross(polygon, following).sum(axis=1) / 2
    return area


def _clip(polygon: NDArray[np.float64], inside: NDArray[np.float64]) -> NDArray[np.float64]:
    """Cut convex polygons (P, N, 2) at the zero of ``inside`` (P, N); returns (P, N + 1, 2).

    Polygons with fewer corners repeat the last one; one that vanishes is a single point.
    """
    count, size = inside.shape
    next_corner, next_inside = np.roll(polygon, -1, axis=1), np.roll(inside, -1, axis=1)
    is_crossing = (inside > 0) & (next_inside < 0) | (inside < 0) & (next_inside > 0)
    step = np.divide(inside, inside - next_inside, out=np.zeros_like(inside), where=is_crossing)
    crossing = polygon + step[..., None] * (next_corner - polygon)
    points = np.stack([polygon, crossing], axis=2).reshape(count, 2 * size, 2)
    is_kept = np.stack([inside >= 0, is_crossing], axis=2).reshape(count, 2 * size)
    order = np.argsort(~is_kept, axis=1, kind="stable")
    last = np.maximum(is_kept.sum(axis=1) - 1, 0)
    slot = np.minimum(np.arange(size + 1), last[:, None])
    return np.take_along_axis(points, np.take_along_axis(order, slot, axis=1)[..., None], axis=1)


def _is_separating(
    a: NDArray[np.float64], b: NDArray[np.float64], corner: int
) -> NDArray[np.bool_]:
    """Whether the edge of ``a`` (P, 3, 2) from a corner has all of ``b`` on its outer side.

    What may reach over the edge is a strip of ``a`` with an area below the cross product.
    """
    start = a[:, corner]
    edge = a[:, (corner + 1) % 3] - start
    is_outside = np.ones(len(a), dtype=bool)
    for other in range(3):
        is_outside &= _cross(edge, b[:, other] - start) < MIN_SHARED_AREA
    return is_outside


def _neighbours(corners: NDArray[np.float64], group: NDArray[np.int64]) -> list[Pairs]:
    """Return pairs (P, 2) of one group whose bounding boxes overlap, in parts."""
    low, high = corners.min(axis=1), corners.max(axis=1)
    cell = _cell_size(low, high)
    first = np.floor(low / cell).astype(np.int64)
    size = np.floor(high / cell).astype(np.int64) - first + 1
    face, key, at = _cells_of_faces(first, size, group)
    order = np.argsort(key, kind="stable")
    face, key, at = face[order], key[order], at[order]
    run_end = np.searchsorted(key, key, side="right")
    partners = run_end - 1 - np.arange(len(key))
    found = []
    for part in batches(partners, _BATCH_PAIRS):
        entry = np.repeat(np.arange(part.start, part.stop), partners[part])
        other = entry + 1 + count_up(partners[part])
        i, j = face[entry], face[other]
        is_near = np.ones(len(i), dtype=bool)
        for axis in range(2):
            shared_low = np.maximum(low[i, axis], low[j, axis])
            is_near &= shared_low < np.minimum(high[i, axis], high[j, axis])
            # Boxes can share several cells; the one with their common low corner counts.
            is_near &= np.floor(shared_low / cell) == at[entry, axis]
        found.append(np.stack([i[is_near], j[is_near]], axis=1))
    return found


def _cell_size(low: NDArray[np.float64], high: NDArray[np.float64]) -> float:
    extent = (high - low).max(axis=1)
    cell = max(1.5 * float(np.median(extent)), _FINEST_CELL)
    while float(np.prod((high - low) / cell + 1, axis=1).mean()) > _MAX_CELLS_PER_FACE:
        cell *= 2
    return cell


def _cells_of_faces(
    first: NDArray[np.int64], size: NDArray[np.int64], group: NDArray[np.int64]
) -> tuple[NDArray[np.intp], NDArray[np.int64], NDArray[np.int64]]:
    """Return for each (face, cell) the face, a key of group and cell, and the cell (2,)."""
    count = size.prod(axis=1)
    face = np.repeat(np.arange(len(first)), count)
    number = count_up(count)
    at = first[face] + np.stack([number % size[face, 0], number // size[face, 0]], axis=1)
    shifted = at - at.min(axis=0)
    columns, rows = shifted.max(axis=0) + 1
    return face, (group[face] * rows + shifted[:, 1]) * columns + shifted[:, 0], at


def _counter_clockwise(
    corners: NDArray[np.float64], doubled_area: NDArray[np.float64]
) -> NDArray[np.float64]:
    return np.where((doubled_area < 0)[:, None, None], corners[:, ::-1], corners)


def _doubled_area(corners: NDArray[np.float64]) -> NDArray[np.float64]:
    return _cross(corners[:, 1] - corners[:, 0], corners[:, 2] - corners[:, 0])


def _cross(a: NDArray[np.float64], b: NDArray[np.float64]) -> NDArray[np.float64]:
    crossed: NDArray[np.float64] = a[..., 0] * b[..., 1] - a[..., 1] * b[..., 0]
    return crossed
