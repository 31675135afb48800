"""A vectorised z-buffer: which face is seen at each pixel.

No loop runs over faces. Each triangle is cut into the pixel rows it covers, each row into its
covered pixels, in batches of bounded size. One 64-bit minimum per pixel keeps the nearest
depth (upper half: the bits of a positive float32 order like the number) and its face (lower).
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
from numpy.typing import NDArray

from dream_cad.mesh.ragged import batches, count_up

# Pixels expanded at once: some 60 bytes each, so about 60 MB.
_BATCH_PIXELS = 1_000_000
NO_FACE = np.int64(-1)
_EMPTY = np.uint64(0xFFFF_FFFF_FFFF_FFFF)


def rasterize(
    screen: NDArray[np.float64], depth: NDArray[np.float64], *, width: int, height: int
) -> NDArray[np.int64]:
    """Find the nearest face at every pixel centre.

    Args:
        screen: (F, 3, 2) corner positions in pixels, x to the right, y down.
        depth: (F, 3) positive distance of the corners; faces with others are left out.
        width: pixels.
        height: pixels.

    Returns:
        (height, width) int64 face numbers, ``NO_FACE`` where there is none.
    """
    buffer = np.full(height * width, _EMPTY, dtype=np.uint64)
    edges = edge_functions(screen)
    area = edges[:, :, 2].sum(axis=1)
    usable = np.flatnonzero((depth > 0).all(axis=1) & (np.abs(area) > 0))
    edges = edges[usable] / area[usable, None, None]
    # 1/z is linear on the screen: one plane (3,) a face.
    inverse = np.einsum("fe,fec->fc", 1 / depth[usable], edges)
    for face, row, first, count in _spans(screen[usable], edges, width, height):
        _fill(buffer, usable, inverse, face, row, first, count, width)
    seen = buffer != _EMPTY
    faces = np.where(seen, (buffer & np.uint64(0xFFFF_FFFF)).astype(np.int64), NO_FACE)
    return faces.reshape(height, width)


def barycentric(
    screen: NDArray[np.float64],
    depth: NDArray[np.float64],
    face: NDArray[np.int64],
    pixels: NDArray[np.float64],
) -> NDArray[np.float64]:
    """Return perspective-correct weights of points in the triangles that they lie in.

    Args:
        screen: (F, 3, 2) corner positions in pixels.
        depth: (F, 3) positive distance of the corners.
        face: (P,) triangle of each point.
        pixels: (P, 2) the points.

    Returns:
        (P, 3) float64, in [0, 1], of sum 1.
    """
    used, index = seen_faces(face, len(screen))
    planes = edge_functions(screen[used]) / depth[used, :, None]
    # Three tables of contiguous rows: gathering (P, 3, 3) at once takes twice as long.
    slope_x, slope_y, rest = (np.ascontiguousarray(planes[:, :, k]) for k in range(3))
    weights = slope_x[index] * pixels[:, :1]
    weights += slope_y[index] * pixels[:, 1:]
    weights += rest[index]
    weights /= weights.sum(axis=1, keepdims=True)
    np.clip(weights, 0, 1, out=weights)
    weights /= weights.sum(axis=1, keepdims=True)
    return weights


def seen_faces(face: NDArray[np.int64], number: int) -> tuple[NDArray[np.intp], NDArray[np.intp]]:
    """Return the faces that occur in ``face``, and the place of each entry among them.

    Args:
        face: (P,) face numbers below ``number``.
        number: faces there are.
    """
    occurs = np.zeros(number, dtype=bool)
    occurs[face] = True
    place = np.cumsum(occurs) - 1
    return np.flatnonzero(occurs), place[face]


def covered_pixels(
    screen: NDArray[np.float64], *, width: int, height: int
) -> Iterator[tuple[NDArray[np.intp], NDArray[np.intp]]]:
    """Yield batches of (face, pixel) for every pixel centre in or on the rim of each face.

    Args:
        screen: (F, 3, 2) corner positions in pixels, x to the right, y down; either winding.
        width: pixels.
        height: pixels.

    Yields:
        Face numbers (P,) and pixels (P,) as ``row * width + column``. Faces without area have
        none.
    """
    edges = edge_functions(screen)
    area = edges[:, :, 2].sum(axis=1)
    usable = np.flatnonzero(area != 0)
    edges = edges[usable] / area[usable, None, None]
    for face, row, first, count in _spans(screen[usable], edges, width, height):
        yield (
            np.repeat(usable[face], count),
            np.repeat(row * width + first, count) + count_up(count),
        )


def edge_functions(screen: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return (F, 3, 3) rows (a, b, c); a x + b y + c is twice the area beside corner e."""
    start, end = np.roll(screen, -1, axis=1), np.roll(screen, -2, axis=1)
    a = start[..., 1] - end[..., 1]
    b = end[..., 0] - start[..., 0]
    c = start[..., 0] * end[..., 1] - start[..., 1] * end[..., 0]
    return np.stack([a, b, c], axis=-1)


_Span = tuple[NDArray[np.intp], NDArray[np.intp], NDArray[np.intp], NDArray[np.intp]]


def _spans(
    screen: NDArray[np.float64], edges: NDArray[np.float64], width: int, height: int
) -> Iterator[_Span]:
    """Yield batches of (face, row, first column, pixels) for the rows that triangles cover."""
    y = screen[..., 1]
    top = np.ceil(np.clip(-_largest(-y) - 0.5, 0, height)).astype(np.intp)
    bottom = np.floor(np.clip(_largest(y) - 0.5, -1, height - 1)).astype(np.intp)
    rows = np.maximum(bottom - top + 1, 0)
    for part in batches(rows * 8, _BATCH_PIXELS):
        face = np.repeat(np.arange(part.start, part.stop), rows[part])
        row = top[face] + count_up(rows[part])
        first, count = _columns(edges[face], row + 0.5, width)
        hit = np.flatnonzero(count > 0)
        face, row, first, count = face[hit], row[hit], first[hit], count[hit]
        for piece in batches(count, _BATCH_PIXELS):
            yield face[piece], row[piece], first[piece], count[piece]


def _columns(
    edges: NDArray[np.float64], y: NDArray[np.float64], width: int
) -> tuple[NDArray[np.intp], NDArray[np.intp]]:
    """Return the first column and the number of pixel centres inside all three edges."""
    slope = edges[..., 0]
    rest = edges[..., 1] * y[:, None] + edges[..., 2]
    with np.errstate(divide="ignore", invalid="ignore"):
        crossing = -rest / slope
    low = _largest(np.where(slope > 0, crossing, -np.inf))
    high = -_largest(np.where(slope < 0, -crossing, -np.inf))
    missed = _largest((slope == 0) & (rest < 0))
    first = np.ceil(np.clip(low - 0.5, 0, width)).astype(np.intp)
    last = np.floor(np.clip(high - 0.5, -1, width - 1)).astype(np.intp)
    return first, np.where(missed, 0, last - first + 1)


def _largest(values: NDArray[Any]) -> NDArray[Any]:
    """Return the largest of each row (N, 3): several times faster than ``max(axis=1)``."""
    return np.asarray(np.maximum(np.maximum(values[:, 0], values[:, 1]), values[:, 2]))


def _fill(
    buffer: NDArray[np.uint64],
    face_ids: NDArray[np.intp],
    inverse: NDArray[np.float64],
    face: NDArray[np.intp],
    row: NDArray[np.intp],
    first: NDArray[np.intp],
    count: NDArray[np.intp],
    width: int,
) -> None:
    """Lower the buffer at every pixel of the spans."""
    plane = inverse[face]
    at_row = plane[:, 1] * (row + 0.5) + plane[:, 2]
    column = np.repeat(first, count) + count_up(count)
    nearness = np.repeat(plane[:, 0], count) * (column + 0.5) + np.repeat(at_row, count)
    bits = (1 / nearness).astype(np.float32).view(np.uint32).astype(np.uint64)
    key = (bits << np.uint64(32)) | np.repeat(face_ids[face].astype(np.uint64), count)
    np.minimum.at(buffer, np.repeat(row * width, count) + column, key)
