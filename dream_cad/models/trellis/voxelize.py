"""Which voxels of the grid a mesh touches: the structure of its variants (spec, section 13)."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray

from dream_cad.exceptions import InvalidConfigError
from dream_cad.mesh.ragged import batches, count_up

_EDGE = 1e-6
_PAIRS_AT_ONCE = 200_000

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]


def voxelize(vertices: NDArray[np.floating], faces: NDArray[np.integer], side: int) -> Ints:
    """Return the voxels that a surface touches, borders included.

    Args:
        vertices: (V, 3), z up, anywhere: the bounding box is centred, its longest side becomes 1.
        faces: (F, 3).
        side: voxels along an axis of the unit cube.

    Returns:
        (N, 3) int64 in [0, side), sorted.

    Raises:
        InvalidConfigError: there is no face, or the mesh has no extent or is not finite.
    """
    corners = _unit_corners(np.asarray(vertices, np.float64), np.asarray(faces, np.int64))
    corners = (corners + 0.5) * side
    low = np.floor(corners.min(axis=1)).astype(np.int64)
    high = np.floor(corners.max(axis=1)).astype(np.int64)
    # A voxel is closed: a triangle that ends on its border touches the one below as well.
    low -= corners.min(axis=1) == low
    low, high = low.clip(0, side - 1), high.clip(0, side - 1)
    found = [_touched(corners, low, high, part) for part in _parts((high - low + 1).prod(axis=1))]
    keys = np.unique(np.concatenate([(v[:, 0] * side + v[:, 1]) * side + v[:, 2] for v in found]))
    return np.stack((keys // side**2, keys // side % side, keys % side), axis=1)


def _unit_corners(vertices: Floats, faces: Ints) -> Floats:
    """(F, 3, 3) corners, centred, the longest side 1, just inside the cube."""
    if not len(faces) or not np.isfinite(vertices).all():
        raise InvalidConfigError("The mesh has no faces, or its vertices are not finite.")
    low, high = vertices.min(axis=0), vertices.max(axis=0)
    longest = float((high - low).max())
    if longest == 0:
        raise InvalidConfigError("The mesh has no extent: all its vertices are in one place.")
    unit = (vertices - (low + high) / 2) / longest
    out: Floats = unit.clip(-0.5 + _EDGE, 0.5 - _EDGE)[faces]
    return out


def _parts(sizes: Ints) -> Iterator[slice]:
    return batches(sizes.astype(np.intp), _PAIRS_AT_ONCE)


def _touched(corners: Floats, low: Ints, high: Ints, part: slice) -> Ints:
    """Voxels (N, 3) that the triangles of a part touch, with repetitions."""
    spans = high[part] - low[part] + 1
    counts = spans.prod(axis=1)
    rows = np.repeat(np.arange(len(counts)), counts)
    index, extent = count_up(counts.astype(np.intp)), spans[rows]
    steps = (index // (extent[:, 1] * extent[:, 2]), index // extent[:, 2] % extent[:, 1])
    voxels = low[part][rows] + np.stack((*steps, index % extent[:, 2]), axis=1)
    local = corners[part][rows] - (voxels + 0.5)[:, None]
    out: Ints = voxels[_touch(local)]
    return out


def _touch(corners: Floats) -> NDArray[np.bool_]:
    """Separating axis test of triangles (P, 3, 3) against the cube of half side 0.5 at 0."""
    edges = np.roll(corners, -1, axis=1) - corners
    separated = ((corners.min(axis=1) > 0.5) | (corners.max(axis=1) < -0.5)).any(axis=1)
    normal = np.cross(edges[:, 0], edges[:, 1])
    reach = 0.5 * np.abs(normal).sum(axis=1)
    separated |= np.abs((normal * corners[:, 0]).sum(axis=1)) > reach
    for edge in range(3):
        for axis in np.eye(3):
            line = np.cross(edges[:, edge], axis)
            places = (corners * line[:, None]).sum(axis=2)
            reach = 0.5 * np.abs(line).sum(axis=1)
            separated |= (places.min(axis=1) > reach) | (places.max(axis=1) < -reach)
    out: NDArray[np.bool_] = ~separated
    return out
