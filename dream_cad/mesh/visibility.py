"""Which faces are seen from outside, and removal of what is hidden inside (TRELLIS spec, 12.2).

Faces that are never seen pull on their neighbours, faces that are often seen hold them; the
cheapest cut along edges (a minimum cut of the graph of faces) parts the hidden from the visible.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace

import numpy as np
from numpy.typing import NDArray
from scipy.sparse import csr_matrix
from scipy.sparse.csgraph import breadth_first_order, maximum_flow

from dream_cad.exceptions import ShapeError
from dream_cad.mesh.data import MeshData
from dream_cad.mesh.edges import EdgeTable, Ints, connected_parts
from dream_cad.mesh.raster import NO_FACE, rasterize
from dream_cad.mesh.views import View

MAX_HOLE_AREA = 0.04
_SEEN, _OFTEN_SEEN, _UPPER_QUARTILE = 0.25, 0.5, 0.75
_CAPACITY_UNITS = 1000

Doubles = NDArray[np.float64]


def face_visibility(mesh: MeshData, views: Iterable[View], size: int) -> Doubles:
    """Return (F,) the share of views of ``size`` pixels a side in which each face owns a pixel."""
    seen = np.zeros(len(mesh.faces), np.int64)
    count = 0
    for view in views:
        places, depth = view.project(mesh.vertices, size)
        shown = rasterize(places[mesh.faces], depth[mesh.faces], width=size, height=size)
        seen[np.unique(shown[shown != NO_FACE])] += 1
        count += 1
    return seen / max(count, 1)


def remove_hidden_faces(
    mesh: MeshData, visibility: Doubles, max_hole_area: float = MAX_HOLE_AREA
) -> MeshData:
    """Drop parts that are hidden inside, unless a large hole would come about.

    Args:
        mesh: welded, without texture.
        visibility: (F,) from ``face_visibility``.
        max_hole_area: largest area of a hole that a removal may leave.

    Raises:
        ShapeError: there is not one visibility a face.
    """
    if visibility.shape != (len(mesh.faces),):
        raise ShapeError(f"There are {len(mesh.faces)} faces and {visibility.shape} visibilities.")
    hidden = visibility == 0
    if not hidden.any():
        return mesh
    edges = EdgeTable.of(mesh.faces)
    pairs, shared = edges.neighbours()
    part = connected_parts(pairs, len(mesh.faces))
    limit = np.clip(_quantiles(visibility, part, _UPPER_QUARTILE), _SEEN, _OFTEN_SEEN)
    lengths = np.linalg.norm(np.diff(mesh.vertices[edges.ends[shared]], axis=1)[:, 0], axis=1)
    inner = _inner_side(pairs, lengths, hidden, visibility > limit[part])
    gone = _removable(mesh, edges, pairs, inner, visibility, max_hole_area)
    kept = mesh.faces[~gone]
    used = np.zeros(len(mesh.vertices), bool)
    used[kept] = True
    number = np.cumsum(used) - 1
    colors = mesh.vertex_colors
    return replace(
        mesh,
        vertices=mesh.vertices[used],
        faces=number[kept].astype(np.int32),
        vertex_colors=None if colors is None else colors[used],
    )


def _quantiles(values: Doubles, label: Ints, share: float) -> Doubles:
    """Return the quantile of each label's values, interpolated."""
    order = np.lexsort((values, label))
    counts = np.bincount(label)
    place = np.cumsum(counts) - counts + share * (counts - 1)
    low, high = np.floor(place).astype(np.int64), np.ceil(place).astype(np.int64)
    ordered = values[order]
    mixed: Doubles = ordered[low] + (place - low) * (ordered[high] - ordered[low])
    return mixed


def _inner_side(
    pairs: Ints, lengths: Doubles, hidden: NDArray[np.bool_], seen: NDArray[np.bool_]
) -> NDArray[np.bool_]:
    """Return (F,) the faces on the hidden side of the cheapest cut."""
    faces = len(hidden)
    source, sink = faces, faces + 1
    inside, outside = np.flatnonzero(hidden), np.flatnonzero(seen)
    rows = np.concatenate([pairs[:, 0], pairs[:, 1], np.full(len(inside), source), outside])
    columns = np.concatenate([pairs[:, 1], pairs[:, 0], inside, np.full(len(outside), sink)])
    units = np.rint(lengths * _CAPACITY_UNITS)
    strong = np.full(len(inside) + len(outside), _CAPACITY_UNITS)
    data = np.concatenate([units, units, strong]).astype(np.int32)
    capacity = csr_matrix((data, (rows, columns)), shape=(faces + 2, faces + 2))
    flow = maximum_flow(capacity, source, sink).flow
    residual = capacity - flow
    residual.data = np.maximum(residual.data, 0)
    residual.eliminate_zeros()
    reached = np.zeros(faces + 2, bool)
    reached[breadth_first_order(residual, source, return_predecessors=False)] = True
    return reached[:faces]


def _removable(
    mesh: MeshData,
    edges: EdgeTable,
    pairs: Ints,
    inner: NDArray[np.bool_],
    visibility: Doubles,
    max_hole_area: float,
) -> NDArray[np.bool_]:
    """Return (F,) the faces of those parts of the inner side that may go."""
    chosen = np.flatnonzero(inner)
    number = np.full(len(inner), -1)
    number[chosen] = np.arange(len(chosen))
    within = number[pairs[inner[pairs].all(axis=1)]]
    label = connected_parts(within, len(chosen))
    gone = np.zeros(len(inner), bool)
    order = np.argsort(label, kind="stable")
    for part in np.split(order, np.cumsum(np.bincount(label))[:-1]):
        rows = chosen[part]
        if np.median(visibility[rows]) > _SEEN:
            continue
        gone[rows] = _largest_hole(mesh.vertices, edges, rows) <= max_hole_area
    return gone


def _largest_hole(vertices: NDArray[np.float32], edges: EdgeTable, rows: Ints) -> float:
    """Return the area of the largest hole that the removal of faces would leave."""
    own, counts = np.unique(edges.of_face[rows], return_counts=True)
    ends = edges.ends[own[(counts == 1) & ~edges.is_border[own]]]
    if not len(ends):
        return 0.0
    used, local = np.unique(ends, return_inverse=True)
    loop = connected_parts(local.reshape(-1, 2), len(used))[local.reshape(-1, 2)[:, 0]]
    points = vertices[ends].astype(np.float64)
    count = np.bincount(loop)[:, None]
    middle = np.stack([np.bincount(loop, axis) for axis in points.mean(axis=1).T], axis=1) / count
    offset = points - middle[loop][:, None]
    areas = np.linalg.norm(np.cross(offset[:, 0], offset[:, 1]), axis=1) / 2
    return float(np.bincount(loop, areas).max())
