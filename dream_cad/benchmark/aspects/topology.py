"""Edges, holes, fans, parts and handles of a welded mesh."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.sparse import coo_matrix
from scipy.sparse.csgraph import connected_components

from dream_cad.benchmark.aspects.box_pairs import overlapping_boxes
from dream_cad.benchmark.scores import PERFECT, Score, decay, share
from dream_cad.benchmark.welded import Floats, Ints, WeldedMesh

# A loose part with less of the surface than this is a floater.
FLOATER_AREA = 0.01
TOUCH = 0.005  # of the longest side: parts nearer than that count as joined
_BROKEN = 0.5  # factor of any fault that stops other programs
_NON_MANIFOLD = 0.8
_OPEN = 50.0


@dataclass(frozen=True)
class EdgeTable:
    """The distinct edges of a mesh and the faces at them.

    Attributes:
        ends: (E, 2) int64 vertices, the smaller first.
        count: (E,) int64 faces at each edge.
        face: (3F,) int64 faces, sorted by edge.
        is_forward: (3F,) bool, whether that face runs from the smaller to the larger vertex.
        start: (E,) int64, where each edge's faces begin in ``face``.
    """

    ends: Ints
    count: Ints
    face: Ints
    is_forward: NDArray[np.bool_]
    start: Ints


@dataclass(frozen=True)
class Topology:
    """How the faces hang together; counts unless stated otherwise.

    Attributes:
        edges: distinct edges.
        boundary_edges: edges of one face.
        nonmanifold_edges: edges of three or more faces.
        inconsistent_edges: edges whose two faces run in the same direction (flipped winding).
        nonmanifold_vertices: vertices whose faces form more than one fan.
        boundary_length: summed length of edges without exactly two faces, over the square root of
            the surface; 0 for a closed mesh.
        boundary_loops: connected sets of boundary edges (holes).
        components: parts connected by vertices.
        floaters: parts with less than ``FLOATER_AREA`` of the surface.
        floater_area: their share of the surface, 0..1.
        detached: groups of parts beside the largest one; parts group where their bounding boxes,
            grown by ``TOUCH`` of the longest side, overlap. Assembled objects are one group.
        detached_area: their share of the surface, 0..1.
        euler_number: V - E + F.
        genus: handles of all parts together, None where edges or vertices are not manifold.
    """

    edges: int
    boundary_edges: int
    nonmanifold_edges: int
    inconsistent_edges: int
    nonmanifold_vertices: int
    boundary_length: float
    boundary_loops: int
    components: int
    floaters: int
    floater_area: float
    detached: int
    detached_area: float
    euler_number: int
    genus: int | None

    @property
    def is_watertight(self) -> bool:
        """Whether there are faces and every edge has exactly two of them."""
        return self.edges > 0 and self.boundary_edges == self.nonmanifold_edges == 0


def edge_table(faces: Ints) -> EdgeTable:
    """Group the edges of (F, 3) faces."""
    start, end = faces.ravel(), np.roll(faces, -1, axis=1).ravel()
    low, high = np.minimum(start, end), np.maximum(start, end)
    width = int(faces.max()) + 1 if len(faces) else 1
    key = low * width + high
    order = np.argsort(key, kind="stable")
    distinct, first, count = np.unique(key[order], return_index=True, return_counts=True)
    return EdgeTable(
        ends=np.stack([distinct // width, distinct % width], axis=1),
        count=count.astype(np.int64),
        face=order // 3,
        is_forward=(start < end)[order],
        start=first.astype(np.int64),
    )


def measure_topology(mesh: WeldedMesh, edges: EdgeTable) -> Topology:
    """Count holes, fans, parts and handles."""
    is_open = edges.count != 2
    vector = mesh.vertices[edges.ends[is_open, 0]] - mesh.vertices[edges.ends[is_open, 1]]
    length = float(np.linalg.norm(vector, axis=1).sum())
    boundary = edges.ends[edges.count == 1]
    pair = edges.start[edges.count == 2]
    parts, label = _parts(mesh)
    floaters, floater_area = _floaters(mesh, parts, label)
    detached, detached_area = _detached(mesh, parts, label)
    nonmanifold_edges = int((edges.count > 2).sum())
    nonmanifold_vertices = _split_fans(mesh, edges)
    loops = _loops(boundary)
    euler = len(mesh.vertices) - len(edges.ends) + len(mesh.faces)
    is_manifold = nonmanifold_edges == nonmanifold_vertices == 0
    return Topology(
        edges=len(edges.ends),
        boundary_edges=len(boundary),
        nonmanifold_edges=nonmanifold_edges,
        inconsistent_edges=int((edges.is_forward[pair] == edges.is_forward[pair + 1]).sum()),
        nonmanifold_vertices=nonmanifold_vertices,
        boundary_length=share(length, mesh.area**0.5),
        boundary_loops=loops,
        components=parts,
        floaters=floaters,
        floater_area=floater_area,
        detached=detached,
        detached_area=detached_area,
        euler_number=euler,
        genus=(2 * parts - euler - loops) // 2 if is_manifold and parts else None,
    )


def score_validity(mesh: WeldedMesh) -> Score:
    """Score numbers and indices.

    ``100 b / ((1 + 10 u)(1 + 10 d)(1 + 10 c))``: u, d, c are the shares of unusable, degenerate and
    duplicate faces; b is one half where any vertex is not finite or any face is unusable, else 1.
    A mesh with no usable face has 0.
    """
    if not len(mesh.faces) or mesh.size == 0:
        return Score(0.0, "No usable face.")
    degenerate = mesh.collapsed_faces + int(mesh.is_flat.sum())
    value = PERFECT
    for amount in (mesh.unusable_faces, degenerate, mesh.duplicate_faces):
        value *= decay(share(amount, mesh.raw_faces), 0.1)
    value *= decay(share(mesh.nonfinite_vertices, mesh.raw_vertices), 0.1)
    if mesh.unusable_faces or mesh.nonfinite_vertices:
        value *= _BROKEN
    reason = (
        f"Of {mesh.raw_faces} faces {mesh.unusable_faces} point at missing or non-finite vertices, "
        f"{degenerate} have no area, {mesh.duplicate_faces} are copies; "
        f"{mesh.nonfinite_vertices} vertices are not finite."
    )
    return Score(value, reason)


def score_manifold(topology: Topology, vertices: int) -> Score:
    """Score edges and vertices where the surface branches or turns over.

    ``100 b / ((1 + 10 e)(1 + 10 v)(1 + 10 o))``: e, v, o are the shares of non-manifold edges,
    non-manifold vertices and edges of opposed winding; b is 0.8 where there is any, else 1.
    """
    if topology.edges == 0:
        return Score(0.0, "No edge.")
    counts = (
        share(topology.nonmanifold_edges, topology.edges),
        share(topology.nonmanifold_vertices, vertices),
        share(topology.inconsistent_edges, topology.edges),
    )
    value = PERFECT * (_NON_MANIFOLD if any(counts) else 1.0)
    for amount in counts:
        value *= decay(amount, 0.1)
    reason = (
        f"{topology.nonmanifold_edges} of {topology.edges} edges have more than two faces, "
        f"{topology.nonmanifold_vertices} vertices join separate fans, "
        f"{topology.inconsistent_edges} edges lie between faces of opposed winding."
    )
    return Score(value, reason)


def score_watertight(topology: Topology) -> Score:
    """Score closedness: 100 if every edge has two faces, else ``50 / (1 + l)``.

    l is the length of the other edges over the square root of the surface, so one missing face of a
    fine sphere gives just below 50 and half a sphere 14.
    """
    if topology.edges == 0:
        return Score(0.0, "No edge.")
    if topology.is_watertight:
        return Score(PERFECT, "Closed: every edge has exactly two faces.")
    reason = (
        f"Leaky: {topology.boundary_edges} boundary edges in {topology.boundary_loops} holes and "
        f"{topology.nonmanifold_edges} branching edges, in all {topology.boundary_length:.3g} "
        "times the square root of the surface."
    )
    return Score(_OPEN * decay(topology.boundary_length, 1.0), reason)


def score_components(topology: Topology) -> Score:
    """Score fragments: ``100 (1 - a)(1 - b) / ((1 + n / 5)(1 + m / 4))``.

    n floaters have a of the surface, m detached groups b of it. Parts that touch are no defect:
    many objects are assembled from parts.
    """
    if topology.components == 0:
        return Score(0.0, "No part.")
    value = PERFECT * (1 - topology.floater_area) * decay(topology.floaters, 5.0)
    value *= (1 - topology.detached_area) * decay(topology.detached, 4.0)
    reason = (
        f"{topology.components} parts; {topology.floaters} of them are floaters with together "
        f"{topology.floater_area:.3%} of the surface; {topology.detached} groups touch nothing "
        f"else ({topology.detached_area:.1%} of the surface)."
    )
    return Score(value, reason)


def _parts(mesh: WeldedMesh) -> tuple[int, Ints]:
    """Return the number of parts and the part (F,) of each face."""
    if not len(mesh.faces):
        return 0, np.zeros(0, dtype=np.int64)
    count, label = _connect(mesh.faces[:, :2], mesh.faces[:, 1:], len(mesh.vertices))
    return count, label[mesh.faces[:, 0]]


def _connect(first: Ints, second: Ints, nodes: int) -> tuple[int, Ints]:
    """Return the number of connected sets of ``nodes`` nodes and each node's set."""
    start, end = first.ravel(), second.ravel()
    graph = coo_matrix((np.ones(len(start), dtype=np.int8), (start, end)), shape=(nodes, nodes))
    count, label = connected_components(graph, directed=False)
    return int(count), np.asarray(label, dtype=np.int64)


def _floaters(mesh: WeldedMesh, parts: int, label: Ints) -> tuple[int, float]:
    if parts < 2 or mesh.area == 0:
        return 0, 0.0
    areas: Floats = np.bincount(label, mesh.doubled_area / 2, parts) / mesh.area
    small = areas < FLOATER_AREA
    small[areas.argmax()] = False
    return int(small.sum()), float(areas[small].sum())


def _detached(mesh: WeldedMesh, parts: int, label: Ints) -> tuple[int, float]:
    """Return the number of groups beside the largest one and their share of the surface."""
    if parts < 2 or mesh.area == 0:
        return 0, 0.0
    low, high = np.full((parts, 3), np.inf), np.full((parts, 3), -np.inf)
    np.minimum.at(low, label, mesh.corners.min(axis=1))
    np.maximum.at(high, label, mesh.corners.max(axis=1))
    reach = mesh.size * TOUCH / 2
    near = [np.zeros((0, 2), dtype=np.int64), *overlapping_boxes(low - reach, high + reach)]
    pairs = np.concatenate(near)
    groups, group = _connect(pairs[:, 0], pairs[:, 1], parts)
    areas: Floats = np.bincount(group[label], mesh.doubled_area / 2, groups) / mesh.area
    return groups - 1, float(max(1 - areas.max(), 0.0))


def _loops(boundary: Ints) -> int:
    if not len(boundary):
        return 0
    used, number = np.unique(boundary, return_inverse=True)
    number = number.reshape(-1, 2).astype(np.int64)
    return _connect(number[:, 0], number[:, 1], len(used))[0]


def _split_fans(mesh: WeldedMesh, edges: EdgeTable) -> int:
    """Count vertices whose faces are not all linked through edges at that vertex."""
    if not len(mesh.faces):
        return 0
    slots = np.arange(len(edges.face))
    is_last = np.zeros(len(slots), dtype=bool)
    is_last[edges.start[1:] - 1] = True
    is_last[-1] = True
    here = slots[~is_last]
    edge_of = np.repeat(np.arange(len(edges.ends)), edges.count)
    ends = edges.ends[edge_of[here]]
    left = [_corner(mesh.faces, edges.face[here], ends[:, side]) for side in (0, 1)]
    right = [_corner(mesh.faces, edges.face[here + 1], ends[:, side]) for side in (0, 1)]
    fans, label = _connect(np.concatenate(left), np.concatenate(right), mesh.faces.size)
    vertex_of_fan = np.zeros(fans, dtype=np.int64)
    vertex_of_fan[label] = mesh.faces.ravel()
    return int((np.bincount(vertex_of_fan, minlength=len(mesh.vertices)) > 1).sum())


def _corner(faces: Ints, face: Ints, vertex: Ints) -> Ints:
    """Number (N,) of the corner of each face that is the given vertex."""
    slot: Ints = face * 3 + np.argmax(faces[face] == vertex[:, None], axis=1)
    return slot
