"""FlexiCubes: dual surfaces of sparse cube features (spec, section 11c)."""

from __future__ import annotations

from functools import cache

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float32]
Ints = NDArray[np.int64]

# Corner n of a cube is (n & 1, n >> 1 & 1, n >> 2 & 1); cube edges as pairs of corners.
CORNERS = np.array([(n & 1, n >> 1 & 1, n >> 2 & 1) for n in range(8)])
EDGES = np.array(
    [(0, 1), (1, 5), (4, 5), (0, 4), (2, 3), (3, 7), (6, 7), (2, 6), (2, 0), (3, 1), (7, 5), (6, 4)]
)
_DIRECTIONS = ((-1, 0, 0), (1, 0, 0), (0, -1, 0), (0, 1, 0), (0, 0, -1), (0, 0, 1))


def _face_corners() -> list[list[int]]:
    """Corners of the six faces, in the order of ``_DIRECTIONS``."""
    return [
        [n for n in range(8) if CORNERS[n][axis] == side] for axis in range(3) for side in (0, 1)
    ]


def _faces_of_case(inside: list[bool]) -> list[list[int]]:
    """Crossed edges on each face of a cube."""
    crossed = [edge for edge, (a, b) in enumerate(EDGES) if inside[a] != inside[b]]
    return [
        [edge for edge in crossed if set(EDGES[edge]) <= set(corners)]
        for corners in _face_corners()
    ]


def _links(inside: list[bool]) -> list[tuple[int, int]]:
    """Pairs of crossed edges that belong to one dual vertex."""
    links = []
    for edges in _faces_of_case(inside):
        if len(edges) == 2:
            links.append((edges[0], edges[1]))
        for corner in range(8) if len(edges) == 4 else ():
            meeting = [edge for edge in edges if corner in EDGES[edge]]
            if inside[corner] and len(meeting) == 2:
                links.append((meeting[0], meeting[1]))
    return links


def _case_groups(case: int) -> list[list[int]]:
    """Crossed edges of each dual vertex of a case, ordered by their lowest inside corner."""
    inside = [bool(case >> n & 1) for n in range(8)]
    groups: list[set[int]] = []
    for pair in _links(inside):
        touching = [group for group in groups if group & set(pair)]
        groups = [group for group in groups if not group & set(pair)]
        groups.append(set(pair).union(*touching))

    def lowest(group: set[int]) -> int:
        return min(int(n) for edge in group for n in EDGES[edge] if inside[n])

    ordered = [sorted(group) for group in sorted(groups, key=lowest)]
    # The one entry of the published table that does not follow the rule.
    return [[4, 5, 9], [2, 3, 11]] if case == 231 else ordered


@cache
def group_table() -> tuple[NDArray[np.int64], NDArray[np.bool_]]:
    """(256,) dual vertices of each case and (256, 4, 12) edges of each of them."""
    counts = np.zeros(256, dtype=np.int64)
    edges = np.zeros((256, 4, 12), dtype=bool)
    for case in range(1, 255):
        groups = _case_groups(case)
        counts[case] = len(groups)
        for index, group in enumerate(groups):
            edges[case, index, group] = True
    return counts, edges


@cache
def problem_faces() -> NDArray[np.int64]:
    """(256,) the only ambiguous face of a case that must agree with its neighbour, or -1."""
    out = np.full(256, -1)
    for case in range(256):
        inside = [bool(case >> n & 1) for n in range(8)]
        ambiguous = [face for face, e in enumerate(_faces_of_case(inside)) if len(e) == 4]
        if len(ambiguous) == 1 and sum(inside) >= 5:
            out[case] = ambiguous[0]
    return out


def settle_ambiguity(cases: Ints, places: Ints, side: int) -> Ints:
    """Invert the case of both cubes that share an ambiguous face.

    Args:
        cases: (K,) case of each surface cube.
        places: (K, 3) its position.
        side: cubes along an axis of the grid.
    """
    faces = problem_faces()[cases]
    keys = (places @ np.array((side * side, side, 1))).astype(np.int64)
    order = np.argsort(keys)
    problem = faces >= 0
    beyond = places + np.array(_DIRECTIONS)[np.maximum(faces, 0)]
    valid = problem & ((beyond >= 0) & (beyond < side)).all(axis=1)
    wanted = beyond @ np.array((side * side, side, 1))
    found = order[np.searchsorted(keys[order], wanted).clip(max=len(keys) - 1)]
    invert = valid & (keys[found] == wanted) & problem[found]
    return np.where(invert, 255 - cases, cases)


def dual_vertices(
    values: Floats, sdf: Floats, beta: Floats, alpha: Floats, edges: NDArray[np.bool_]
) -> Floats:
    """Weighted mean of the crossings of each dual vertex.

    Args:
        values: (V, 8, A) what is interpolated at the cube's corners.
        sdf: (V, 8).
        beta: (V, 12) weight of each edge.
        alpha: (V, 8) weight of each corner.
        edges: (V, 12) edges of the vertex's group.

    Returns:
        (V, A).
    """
    weighted = sdf * alpha
    first, second = EDGES[:, 0], EDGES[:, 1]
    s_a, s_b = weighted[:, first, None], weighted[:, second, None]
    gap = np.where(edges[..., None], s_b - s_a, 1.0)
    crossing = (values[:, first] * s_b - values[:, second] * s_a) / gap
    weights = np.where(edges, beta, 0.0)[..., None]
    mean = (crossing * weights).sum(axis=1) / weights.sum(axis=1)
    out: Floats = mean.astype(np.float32)
    return out
