"""Self-intersections: pairs of triangles that pass through or lie on each other.

Narrow phase by the separating axis theorem, staged: the planes of the two triangles part most
pairs, the nine products of edges the rest; coplanar pairs are parted by the edges in their plane.
Intervals that only touch are parted, so neighbours along an edge or at a vertex do not count
unless they fold back onto each other or pierce.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from dream_cad.benchmark.aspects.box_pairs import overlapping_boxes
from dream_cad.benchmark.scores import PERFECT, Score, decay, share
from dream_cad.benchmark.welded import Floats, Ints, WeldedMesh

# Parts of the longest side: what reaches less deep is rounding of float32 files.
DEPTH_TOLERANCE = 1e-6
# Pairs examined; a mesh with more is a heap of triangles, and its count a lower bound.
MAX_PAIRS = 12_000_000
_BATCH = 50_000


@dataclass(frozen=True)
class Intersections:
    """Faces that cross others.

    Attributes:
        faces: (F,) bool, whether each face of the welded mesh crosses another.
        pairs: crossing pairs found.
        is_complete: False where the search stopped at ``MAX_PAIRS`` candidate pairs.
    """

    faces: NDArray[np.bool_]
    pairs: int
    is_complete: bool


def find_intersections(mesh: WeldedMesh, max_pairs: int = MAX_PAIRS) -> Intersections:
    """Find the faces that cross others; copies of a face are left to the validity score."""
    hit = np.zeros(len(mesh.faces), dtype=bool)
    usable = np.flatnonzero(~mesh.is_flat)
    corners = mesh.corners[usable]
    tolerance = mesh.size * DEPTH_TOLERANCE
    seen, pairs = 0, 0
    for candidates in overlapping_boxes(corners.min(axis=1), corners.max(axis=1)):
        seen += len(candidates)
        rows = usable[candidates]
        rows = rows[triangles_cross(mesh.corners, mesh.normals, rows, tolerance)]
        first, second = mesh.faces[rows[:, 0]], mesh.faces[rows[:, 1]]
        is_copy = (np.sort(first, axis=1) == np.sort(second, axis=1)).all(axis=1)
        rows = rows[~is_copy]
        hit[rows.ravel()] = True
        pairs += len(rows)
        if seen > max_pairs:
            return Intersections(hit, pairs, is_complete=False)
    return Intersections(hit, pairs, is_complete=True)


def score_intersections(found: Intersections) -> Score:
    """Score crossings: ``100 / (1 + 20 s)`` for a share s of faces that cross others."""
    count, total = int(found.faces.sum()), len(found.faces)
    if total == 0:
        return Score(0.0, "No face.")
    bound = "" if found.is_complete else "at least "
    reason = f"{bound}{count} of {total} faces cross others ({bound}{found.pairs} pairs)."
    return Score(PERFECT * decay(share(count, total), 0.05), reason[0].upper() + reason[1:])


def triangles_cross(
    corners: Floats, normals: Floats, pairs: Ints, tolerance: float
) -> NDArray[np.bool_]:
    """Tell for each pair (P, 2) of triangles (F, 3, 3) whether they share inner points.

    Args:
        corners: (F, 3, 3) corner positions.
        normals: (F, 3) unit normals, none of them zero.
        pairs: (P, 2) rows of ``corners``.
        tolerance: overlaps up to this depth do not count.
    """
    result = np.zeros(len(pairs), dtype=bool)
    for start in range(0, len(pairs), _BATCH):
        part = pairs[start : start + _BATCH]
        first = _heights(corners, normals, part[:, 0], part[:, 1])
        is_open = ~_is_one_sided(first, tolerance)
        second = np.zeros_like(first)
        rest = np.flatnonzero(is_open)
        second[rest] = _heights(corners, normals, part[rest, 1], part[rest, 0])
        is_open[rest] &= ~_is_one_sided(second[rest], tolerance)
        is_flat = is_open & (np.abs(first).max(axis=1) <= tolerance)
        crossing = np.flatnonzero(is_open & ~is_flat)
        flat = np.flatnonzero(is_flat)
        result[start + crossing] = _cross_in_space(corners, part[crossing], tolerance)
        result[start + flat] = _overlap_in_plane(corners, normals, part[flat], tolerance)
    return result


def _heights(corners: Floats, normals: Floats, plane: Ints, other: Ints) -> Floats:
    """Return (P, 3) heights of the ``other`` corners above the planes."""
    heights: Floats = np.einsum("pkc,pc->pk", corners[other] - corners[plane, :1], normals[plane])
    return heights


def _is_one_sided(heights: Floats, tolerance: float) -> NDArray[np.bool_]:
    """Whether all corners lie on one side of the plane, at most touching it, and not all in it."""
    low, high = heights.min(axis=1), heights.max(axis=1)
    is_flat = (high <= tolerance) & (low >= -tolerance)
    return np.asarray(((low >= -tolerance) | (high <= tolerance)) & ~is_flat)


def _cross_in_space(corners: Floats, pairs: Ints, tolerance: float) -> NDArray[np.bool_]:
    a, b = corners[pairs[:, 0]], corners[pairs[:, 1]]
    edges_a, edges_b = np.roll(a, -1, axis=1) - a, np.roll(b, -1, axis=1) - b
    is_open = np.ones(len(pairs), dtype=bool)
    for i in range(3):
        for j in range(3):
            rest = np.flatnonzero(is_open)
            axis = np.cross(edges_a[rest, i], edges_b[rest, j])
            is_open[rest] = ~_is_parted(a[rest], b[rest], axis, tolerance)
    return is_open


def _overlap_in_plane(
    corners: Floats, normals: Floats, pairs: Ints, tolerance: float
) -> NDArray[np.bool_]:
    a, b = corners[pairs[:, 0]], corners[pairs[:, 1]]
    is_open = np.ones(len(pairs), dtype=bool)
    for triangle, number in ((a, 0), (b, 1)):
        for i in range(3):
            edge = triangle[:, (i + 1) % 3] - triangle[:, i]
            axis = np.cross(edge, normals[pairs[:, number]])
            is_open &= ~_is_parted(a, b, axis, tolerance)
    return is_open


def _is_parted(a: Floats, b: Floats, axis: Floats, tolerance: float) -> NDArray[np.bool_]:
    """Whether the shadows of the triangles (P, 3, 3) on (P, 3) axes do not overlap.

    Axes that are nearly zero (parallel edges) part nothing.
    """
    length = np.sqrt(np.einsum("pc,pc->p", axis, axis))
    is_axis = length > tolerance**2
    unit = axis / np.where(is_axis, length, 1)[:, None]
    # Around a corner of the pair: far from the origin products would lose digits.
    shadow_a = np.einsum("pkc,pc->pk", a - a[:, :1], unit)
    shadow_b = np.einsum("pkc,pc->pk", b - a[:, :1], unit)
    depth = np.minimum(
        shadow_a.max(axis=1) - shadow_b.min(axis=1), shadow_b.max(axis=1) - shadow_a.min(axis=1)
    )
    return np.asarray(is_axis & (depth <= tolerance))
