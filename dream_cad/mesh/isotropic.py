"""Isotropic remeshing after Botsch and Kobbelt (2004): split, collapse, flip, relax, project.

Own code because gpytoolbox, which has it, ships a GPL part in its wheels. Each operation is done on
many edges at once: edges claim what they would change, and those that win all their claims go.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.sparse import csr_matrix
from scipy.spatial import cKDTree
from trimesh.triangles import closest_point

from dream_cad.mesh.normals import indexed_normals
from dream_cad.mesh.ragged import count_up
from dream_cad.mesh.tangents import sum_at_vertices

Vertices = NDArray[np.float64]
Faces = NDArray[np.intp]
# Of the wanted length: longer edges are split, shorter ones collapsed.
_LONG, _SHORT = 1.4, 0.8
_COLLAPSE_ROUNDS, _FLIP_ROUNDS = 6, 4
_NEAREST_FACES = 12
_NO_CLAIM = np.iinfo(np.int64).max


@dataclass(frozen=True)
class _Edges:
    """Edges (E, 2) with first < second, and per edge its faces and their far corners.

    ``faces`` and ``far`` are (E, 2), meaningful where ``is_inner``; the first face has the edge in
    the direction first -> second.
    """

    ends: NDArray[np.intp]
    of_faces: NDArray[np.intp]
    is_inner: NDArray[np.bool_]
    faces: NDArray[np.intp]
    far: NDArray[np.intp]


def remesh_isotropic(
    vertices: NDArray[np.floating[Any]],
    faces: NDArray[np.integer[Any]],
    *,
    length: float | None = None,
    rounds: int = 10,
) -> tuple[NDArray[np.float32], NDArray[np.int32]]:
    """Make triangles nearly equilateral, with edges of about the same length.

    Borders and edges of three or more faces stay where they are.

    Args:
        vertices: (V, 3), welded.
        faces: (F, 3) without repeated corners.
        length: of the edges; None: the mean length of the input's.
        rounds: how often all operations are done.

    Returns:
        (V', 3) float32 and (F', 3) int32.
    """
    points, corners = vertices.astype(np.float64), faces.astype(np.intp)
    surface = points[corners]
    if length is None:
        length = float(_lengths(points, _edges(corners).ends).mean())
    tree = cKDTree(surface.mean(axis=1))
    for _ in range(rounds):
        points, corners = _split(points, corners, _LONG * length)
        for _ in range(_COLLAPSE_ROUNDS):
            before = len(corners)
            points, corners = _collapse(points, corners, _SHORT * length, _LONG * length)
            if len(corners) == before:
                break
        for _ in range(_FLIP_ROUNDS):
            corners = _flip(points, corners)
        points = _project(_relax(points, corners), surface, tree)
    return points.astype(np.float32), corners.astype(np.int32)


def _edges(faces: Faces) -> _Edges:
    half = faces[:, [0, 1, 1, 2, 2, 0]].reshape(-1, 2)
    far = faces[:, [2, 0, 1]].ravel()
    low, high = half.min(axis=1), half.max(axis=1)
    size = int(faces.max()) + 1
    key, inverse, count = np.unique(low * size + high, return_inverse=True, return_counts=True)
    is_forward = half[:, 0] == low
    sides = np.full((len(key), 2), -1, dtype=np.intp)
    sides[inverse[is_forward], 0] = np.flatnonzero(is_forward)
    sides[inverse[~is_forward], 1] = np.flatnonzero(~is_forward)
    is_inner = (count == 2) & (sides >= 0).all(axis=1)
    ends = np.stack([key // size, key % size], axis=1)
    return _Edges(ends, inverse.reshape(-1, 3), is_inner, sides // 3, far[sides])


def _fixed_vertices(edges: _Edges, count: int) -> NDArray[np.bool_]:
    is_fixed = np.zeros(count, dtype=bool)
    is_fixed[edges.ends[~edges.is_inner]] = True
    return is_fixed


def _lengths(points: Vertices, ends: NDArray[np.intp]) -> NDArray[np.float64]:
    return np.asarray(np.linalg.norm(points[ends[:, 0]] - points[ends[:, 1]], axis=1))


def _split(points: Vertices, faces: Faces, longest: float) -> tuple[Vertices, Faces]:
    """Cut all edges longer than ``longest`` at their middles."""
    edges = _edges(faces)
    is_long = edges.is_inner & (_lengths(points, edges.ends) > longest)
    middle = np.cumsum(is_long) - 1 + len(points)
    added = points[edges.ends[is_long]].mean(axis=1)
    marked, mid = is_long[edges.of_faces], middle[edges.of_faces]
    number = marked.sum(axis=1)
    # Turn faces so that of one or two marked edges the first is edge 0 and the second edge 1.
    turn = np.where(number == 1, np.argmax(marked, axis=1), (np.argmin(marked, axis=1) + 1) % 3)
    order = (np.arange(3) + turn[:, None]) % 3
    a, b, c = np.take_along_axis(faces, order, axis=1).T
    ab, bc, ca = np.take_along_axis(mid, order, axis=1).T
    pieces = {
        0: ((a, b, c),),
        1: ((a, ab, c), (ab, b, c)),
        2: ((ab, b, bc), (a, ab, bc), (a, bc, c)),
        3: ((a, ab, ca), (ab, b, bc), (ca, bc, c), (ab, bc, ca)),
    }
    new = [
        np.stack(piece, axis=1)[number == marks]
        for marks, parts in pieces.items()
        for piece in parts
    ]
    return np.concatenate([points, added]), np.concatenate(new)


def _collapse(
    points: Vertices, faces: Faces, shortest: float, longest: float
) -> tuple[Vertices, Faces]:
    """Shrink edges below ``shortest`` to their middles where the surface allows it."""
    edges = _edges(faces)
    is_fixed = _fixed_vertices(edges, len(points))
    length = _lengths(points, edges.ends)
    is_candidate = (length < shortest) & ~is_fixed[edges.ends].any(axis=1)
    ends = edges.ends[is_candidate][np.argsort(length[is_candidate], kind="stable")]
    ends = ends[_common_neighbours(edges.ends, ends, len(points)) == 2]
    edge, face = _touched_faces(faces, ends, len(points))
    ends, edge, face = _harmless(points, faces, ends, edge, face, longest)
    chosen = _winners(len(ends), edge, face, len(faces))
    keep, gone = ends[chosen].T
    moved = points.copy()
    moved[keep] = (points[keep] + points[gone]) / 2
    target = np.arange(len(points))
    target[gone] = keep
    merged = target[faces]
    a, b, c = merged.T
    merged = merged[(a != b) & (b != c) & (c != a)]
    used, compact = np.unique(merged, return_inverse=True)
    return moved[used], compact.reshape(-1, 3)


def _common_neighbours(
    all_ends: NDArray[np.intp], ends: NDArray[np.intp], count: int
) -> NDArray[np.intp]:
    row, column = np.concatenate([all_ends, all_ends[:, ::-1]]).T
    linked = csr_matrix((np.ones(len(row), dtype=np.intp), (row, column)), shape=(count, count))
    shared = linked[ends[:, 0]].multiply(linked[ends[:, 1]]).sum(axis=1)
    return np.asarray(shared, dtype=np.intp).ravel()


def _touched_faces(
    faces: Faces, ends: NDArray[np.intp], count: int
) -> tuple[NDArray[np.intp], NDArray[np.intp]]:
    """Return pairs (edge, face) of the faces at either end of each edge."""
    order = np.argsort(faces.ravel(), kind="stable")
    degree = np.bincount(faces.ravel(), minlength=count)
    start = np.cumsum(degree) - degree
    vertex = ends.ravel()
    edge = np.repeat(np.arange(len(vertex)) // 2, degree[vertex])
    place = np.repeat(start[vertex], degree[vertex]) + count_up(degree[vertex])
    return edge, order[place] // 3


def _harmless(
    points: Vertices,
    faces: Faces,
    ends: NDArray[np.intp],
    edge: NDArray[np.intp],
    face: NDArray[np.intp],
    longest: float,
) -> tuple[NDArray[np.intp], NDArray[np.intp], NDArray[np.intp]]:
    """Keep edges whose collapse neither turns a face over nor makes an edge too long."""
    middle = points[ends].mean(axis=1)[edge][:, None]
    corner = faces[face]
    is_end = (corner == ends[edge, :1]) | (corner == ends[edge, 1:])
    before = points[corner]
    after = np.where(is_end[..., None], middle, before)
    is_staying = is_end.sum(axis=1) == 1
    turned = np.einsum("pc,pc->p", _cross(before), _cross(after)) <= 0
    reach = np.linalg.norm(after - middle, axis=2).max(axis=1)
    is_bad = np.zeros(len(ends), dtype=bool)
    is_bad[edge[is_staying & (turned | (reach > longest))]] = True
    renumbered = np.cumsum(~is_bad) - 1
    rest = ~is_bad[edge]
    return ends[~is_bad], renumbered[edge[rest]], face[rest]


def _winners(
    count: int, claimant: NDArray[np.intp], claimed: NDArray[np.intp], size: int
) -> NDArray[np.bool_]:
    """Of claimants 0..count-1, the lower the stronger, keep those that win all their claims."""
    strongest = np.full(size, _NO_CLAIM)
    np.minimum.at(strongest, claimed, claimant)
    has_lost = np.zeros(count, dtype=bool)
    has_lost[claimant[strongest[claimed] != claimant]] = True
    return ~has_lost


def _flip(points: Vertices, faces: Faces) -> Faces:
    """Turn edges inside their two faces where that brings valences nearer to six."""
    edges = _edges(faces)
    valence = np.bincount(edges.ends.ravel(), minlength=len(points))
    wanted = np.where(_fixed_vertices(edges, len(points)), 4, 6)
    excess = valence - wanted
    inner = np.flatnonzero(edges.is_inner)
    a, b = edges.ends[inner].T
    c, d = edges.far[inner].T
    before = sum(np.abs(excess[x]) for x in (a, b, c, d))
    after = sum(np.abs(excess[x] + step) for x, step in ((a, -1), (b, -1), (c, 1), (d, 1)))
    size = len(points)
    exists = np.isin(np.minimum(c, d) * size + np.maximum(c, d), edges.ends @ [size, 1])
    new1, new2 = np.stack([a, d, c], axis=1), np.stack([d, b, c], axis=1)
    up = _cross(points[faces[edges.faces[inner, 0]]]) + _cross(points[faces[edges.faces[inner, 1]]])
    is_upright = (np.einsum("ec,ec->e", _cross(points[new1]), up) > 0) & (
        np.einsum("ec,ec->e", _cross(points[new2]), up) > 0
    )
    good = np.flatnonzero((after < before) & ~exists & is_upright & (c != d))
    good = good[np.argsort((after - before)[good], kind="stable")]
    claimed = np.stack([a, b, c, d], axis=1)[good]
    won = good[_winners(len(good), np.repeat(np.arange(len(good)), 4), claimed.ravel(), size)]
    flipped = faces.copy()
    flipped[edges.faces[inner[won], 0]] = new1[won]
    flipped[edges.faces[inner[won], 1]] = new2[won]
    return flipped


def _relax(points: Vertices, faces: Faces) -> Vertices:
    """Move free vertices to the mean of their neighbours, along the surface only."""
    edges = _edges(faces)
    both, other = np.concatenate([edges.ends, edges.ends[:, ::-1]]).T
    degree = np.maximum(np.bincount(both, minlength=len(points)), 1)
    step = sum_at_vertices(points[other], both, len(points)) / degree[:, None] - points
    normal = indexed_normals(points, faces).astype(np.float64)
    step -= normal * np.einsum("vc,vc->v", step, normal)[:, None]
    step[_fixed_vertices(edges, len(points))] = 0.0
    return points + step


def _project(points: Vertices, surface: NDArray[np.float64], tree: cKDTree) -> Vertices:
    """Move points to the nearest place on the nearest faces (F, 3, 3) of the old surface."""
    count = min(_NEAREST_FACES, len(surface))
    near = tree.query(points, k=np.arange(1, count + 1))[1]
    repeated = np.repeat(points, count, axis=0)
    found = closest_point(surface[near.ravel()], repeated).reshape(-1, count, 3)
    best = np.argmin(np.linalg.norm(found - points[:, None], axis=2), axis=1)
    return np.asarray(found[np.arange(len(points)), best])


def _cross(corners: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return face vectors (N, 3) of triangles (N, 3, 3)."""
    return np.cross(corners[:, 1] - corners[:, 0], corners[:, 2] - corners[:, 0])
