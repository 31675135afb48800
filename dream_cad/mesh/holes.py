"""Closing small holes: border loops, and the triangles that span each.

Each loop gets the triangulation of least weight (area plus a share of the squared lengths of the
inner edges, which prefers compact triangles), found by dynamic programming over its diagonals.
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from dream_cad.exceptions import InvalidConfigError, ShapeError
from dream_cad.mesh.checks import check_mesh
from dream_cad.mesh.data import MeshData
from dream_cad.mesh.edges import EdgeTable, Ints, directed_border

MAX_LOOP = 256
"""Longer loops are no small holes; the work grows with the third power."""

_COMPACTNESS = 0.1


def border_loops(faces: NDArray[np.int32]) -> list[list[int]]:
    """Return the vertices of each closed border, in the direction that closes it.

    Borders that meet in a vertex are told apart there.
    """
    border = directed_border(faces)
    following: dict[int, list[int]] = {}
    for start, end in border.tolist():
        following.setdefault(end, []).append(start)
    loops = []
    for start in list(following):
        while following[start]:
            loops += _walk(following, start)
    return loops


def _walk(following: dict[int, list[int]], start: int) -> list[list[int]]:
    """Follow a border from a vertex; cut a loop off whenever a vertex comes again."""
    path, place, loops = [start], {start: 0}, []
    while following.get(path[-1]):
        vertex = following[path[-1]].pop()
        if vertex in place:
            loop = path[place[vertex] :]
            del path[place[vertex] + 1 :]
            for gone in loop[1:]:
                del place[gone]
            loops.append(loop)
        else:
            place[vertex] = len(path)
            path.append(vertex)
    return [loop for loop in loops if len(loop) > 2]


def fill_small_holes(mesh: MeshData, max_edges: int) -> tuple[MeshData, int]:
    """Span border loops of at most ``max_edges`` edges with triangles.

    Args:
        mesh: welded, without texture.
        max_edges: 0..256; 0 fills nothing.

    Returns:
        The mesh and the number of holes filled. Loops that no triangulation without a doubled edge
        spans stay open.

    Raises:
        InvalidConfigError: ``max_edges`` is out of range.
        ShapeError: the mesh is inconsistent or has a texture.
    """
    if not 0 <= max_edges <= MAX_LOOP:
        raise InvalidConfigError(f"max_edges is {max_edges}; expected 0..{MAX_LOOP}.")
    check_mesh(mesh, allow_empty=True)
    if mesh.uv_coords is not None:
        raise ShapeError("Holes are filled before a mesh is unwrapped; this one has UV.")
    edges = EdgeTable.of(mesh.faces)
    size = len(mesh.vertices)
    taken = edges.ends[:, 0] * size + edges.ends[:, 1]
    patches, filled = [mesh.faces], 0
    for loop in border_loops(mesh.faces):
        if len(loop) > max_edges:
            continue
        corners = np.array(loop, np.int64)
        patch = span_loop(mesh.vertices[corners], _doubled(corners, taken, size))
        if len(patch):
            patches.append(corners[patch].astype(np.int32))
            filled += 1
    return replace(mesh, faces=np.concatenate(patches)), filled


def _doubled(corners: Ints, taken: Ints, size: int) -> NDArray[np.bool_]:
    """Return (n, n): pairs of a loop's vertices that an edge of the mesh joins already."""
    low = np.minimum(corners[:, None], corners)
    high = np.maximum(corners[:, None], corners)
    return np.isin(low * size + high, taken)


def span_loop(points: NDArray[np.float32], blocked: NDArray[np.bool_]) -> Ints:
    """Triangulate a closed loop in space.

    Args:
        points: (n, 3) in order.
        blocked: (n, n) pairs that no inner edge may join.

    Returns:
        (n - 2, 3) numbers of points, in the loop's direction; none where every way is blocked.
    """
    count, wide = len(points), points.astype(np.float64)
    best = np.full((count, count), np.inf)
    choice = np.zeros((count, count), np.int64)
    best[np.arange(count - 1), np.arange(1, count)] = 0.0
    for gap in range(2, count):
        first = np.arange(count - gap)
        middle = first[:, None] + np.arange(1, gap)
        last = first + gap
        side, base = wide[middle] - wide[first, None], wide[last] - wide[first]
        area = np.linalg.norm(np.cross(side, base[:, None]), axis=2) / 2
        cost = best[first[:, None], middle] + best[middle, last[:, None]] + area
        if gap < count - 1:
            cost = cost + _COMPACTNESS * (base**2).sum(axis=1)[:, None]
            cost[blocked[first, last]] = np.inf
        pick = cost.argmin(axis=1)
        best[first, last] = cost[first, pick]
        choice[first, last] = middle[first, pick]
    if not np.isfinite(best[0, count - 1]):
        return np.zeros((0, 3), np.int64)
    return np.array(_chosen(choice, count), np.int64)


def _chosen(choice: Ints, count: int) -> list[tuple[int, int, int]]:
    triangles, open_spans = [], [(0, count - 1)]
    while open_spans:
        first, last = open_spans.pop()
        if last - first < 2:
            continue
        middle = int(choice[first, last])
        triangles.append((first, middle, last))
        open_spans += [(first, middle), (middle, last)]
    return triangles
