"""Cutting a surface into flat charts that do not overlap when projected.

Faces are sorted by the side of a box they look at, in smoothed normals so that noise does not
fray the borders. Each connected part is drawn on the plane of its mean normal. Faces that turn
away from that plane or lie behind others become charts of their own.
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import count

import numpy as np
from numpy.typing import NDArray
from scipy.sparse import coo_matrix
from scipy.sparse.csgraph import connected_components

from dream_cad.mesh.normals import position_groups
from dream_cad.mesh.tangents import sum_at_vertices, unit_vectors
from dream_cad.mesh.uv_overlap import overlapping_pairs

_SMOOTHING_ROUNDS = 8
# Cosine below which a face is too slanted for a side that its neighbours chose.
_MIN_FACING = 0.2
# A face drawn smaller than this part of its area is drawn on a plane of its own.
_MIN_SHARE = 0.15
_CUT_ROUNDS = 2
# Charts that take more than this share of the surface but fill less than that part of their
# box are cut in half, so that they pack better.
_SPLIT_ROUNDS = 2
_MIN_SPLIT_SHARE, _MIN_BOX_FILL = 0.02, 0.55
_ANGLES = np.radians(np.arange(0, 90, 10))
_Adjacency = tuple[NDArray[np.intp], NDArray[np.intp]]


@dataclass(frozen=True)
class Charts:
    """Faces drawn on planes, each chart in its own coordinates and all at one scale.

    Attributes:
        label: (F,) int, the chart of each face, 0..C-1 without gaps.
        uvs: (F, 3, 2) float64 of the corners, in the mesh's units.
    """

    label: NDArray[np.intp]
    uvs: NDArray[np.float64]

    @property
    def count(self) -> int:
        """How many charts there are."""
        return int(self.label.max()) + 1

    @property
    def areas(self) -> NDArray[np.float64]:
        """(F,) drawn areas of the faces."""
        side1, side2 = self.uvs[:, 1] - self.uvs[:, 0], self.uvs[:, 2] - self.uvs[:, 0]
        return np.asarray(np.abs(side1[:, 0] * side2[:, 1] - side1[:, 1] * side2[:, 0]) / 2)


def cut_into_charts(vertices: NDArray[np.float32], faces: NDArray[np.int32]) -> Charts:
    """Cut a mesh into charts whose faces share no area in the plane.

    Args:
        vertices: (V, 3).
        faces: (F, 3), F at least 1. Faces that touch at equal positions count as connected.
    """
    corners = vertices[faces].astype(np.float64)
    normals = np.cross(corners[:, 1] - corners[:, 0], corners[:, 2] - corners[:, 0])
    adjacency = _adjacency(position_groups(vertices)[faces])
    label = _connected(_sides(normals, adjacency), adjacency)
    # Ends: from some turn on every misfit becomes a chart of one face, which always fits.
    for turn in count():
        uvs, depth = _project(corners, normals, label)
        misfits = _misfits(uvs, depth, normals, label)
        if len(misfits) == 0:
            break
        label = label.copy()
        if turn < _CUT_ROUNDS:
            label[misfits] += label.max() + 1
            label = _connected(label, adjacency)
        else:
            label[misfits] = label.max() + 1 + np.arange(len(misfits))
            label = np.unique(label, return_inverse=True)[1]
    for _ in range(_SPLIT_ROUNDS):
        label = _connected(_halved(Charts(label, uvs)), adjacency)
    return Charts(label, uvs)


def turned_to_rectangle(charts: Charts) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Turn each chart so that its bounding box is small, with its low corner at the origin.

    Returns:
        UV (F, 3, 2) of the corners, and the boxes' extents (C, 2).
    """
    order = np.argsort(charts.label, kind="stable")
    starts = 3 * np.searchsorted(charts.label[order], np.arange(charts.count))
    u, v = charts.uvs[order].reshape(-1, 2).T
    cosine, sine = np.cos(_ANGLES), np.sin(_ANGLES)
    low, high = np.empty((2, len(_ANGLES), charts.count, 2))
    for number, (c, s) in enumerate(zip(cosine, sine, strict=True)):
        for axis, along in enumerate((c * u - s * v, s * u + c * v)):
            low[number, :, axis] = np.minimum.reduceat(along, starts)
            high[number, :, axis] = np.maximum.reduceat(along, starts)
    best = np.argmin((high - low).prod(axis=2), axis=0)
    chart = np.arange(charts.count)
    turn = np.moveaxis(np.array([[cosine, sine], [-sine, cosine]]), 2, 0)[best]
    uvs = charts.uvs @ turn[charts.label]
    return uvs - low[best, chart][charts.label][:, None], (high - low)[best, chart]


def _halved(charts: Charts) -> NDArray[np.intp]:
    """Split large charts that leave most of their box empty; returns groups (F,)."""
    uvs, extent = turned_to_rectangle(charts)
    drawn = np.bincount(charts.label, charts.areas)
    is_sprawling = drawn < _MIN_BOX_FILL * extent.prod(axis=1)
    is_sprawling &= drawn > _MIN_SPLIT_SHARE * drawn.sum()
    longer = np.argmax(extent, axis=1)
    middle = extent[np.arange(charts.count), longer] / 2
    along = uvs.mean(axis=1)[np.arange(len(uvs)), longer[charts.label]]
    is_far = is_sprawling[charts.label] & (along > middle[charts.label])
    halves: NDArray[np.intp] = charts.label + charts.count * is_far
    return halves


def _adjacency(faces: NDArray[np.intp]) -> _Adjacency:
    """Return pairs of faces that share an edge."""
    edges = np.sort(faces[:, [0, 1, 1, 2, 2, 0]].reshape(-1, 2), axis=1)
    key = edges[:, 0] * (int(edges.max()) + 1) + edges[:, 1]
    order = np.argsort(key, kind="stable")
    same = np.flatnonzero(key[order][1:] == key[order][:-1])
    return order[same] // 3, order[same + 1] // 3


def _sides(normals: NDArray[np.float64], adjacency: _Adjacency) -> NDArray[np.intp]:
    """Return the side of the box (0..5) that each face looks at with its neighbours."""
    area = np.linalg.norm(normals, axis=1, keepdims=True)
    first, second = adjacency
    both, other = np.concatenate(adjacency), np.concatenate([second, first])
    smooth = normals
    for _ in range(_SMOOTHING_ROUNDS):
        mixed = smooth + sum_at_vertices(smooth[other], both, len(normals))
        smooth = unit_vectors(mixed) * area
    own, shared = _facing(unit_vectors(normals)), _facing(smooth)
    side = np.argmax(shared, axis=1)
    is_good = own[np.arange(len(own)), side] > _MIN_FACING
    chosen: NDArray[np.intp] = np.where(is_good, side, np.argmax(own, axis=1))
    return chosen


def _facing(normals: NDArray[np.float64]) -> NDArray[np.float64]:
    return np.stack([normals, -normals], axis=2).reshape(-1, 6)


def _connected(group: NDArray[np.intp], adjacency: _Adjacency) -> NDArray[np.intp]:
    """Number the connected parts (F,) of faces with the same group."""
    first, second = adjacency
    same = group[first] == group[second]
    size = len(group)
    ones = np.ones(int(same.sum()), dtype=np.int8)
    links = coo_matrix((ones, (first[same], second[same])), shape=(size, size))
    return np.asarray(connected_components(links, directed=False)[1], dtype=np.intp)


def _project(
    corners: NDArray[np.float64], normals: NDArray[np.float64], label: NDArray[np.intp]
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Draw faces on the planes of their charts; returns UV (F, 3, 2) and height (F,)."""
    up = unit_vectors(sum_at_vertices(normals, label, int(label.max()) + 1))
    up[np.linalg.norm(up, axis=1) < 0.5] = (0.0, 0.0, 1.0)
    # Frisvad's basis needs no case distinction but one pole.
    sign = np.where(up[:, 2] < 0, -1.0, 1.0)
    a = -1 / (sign + up[:, 2])
    b = up[:, 0] * up[:, 1] * a
    right = np.stack([1 + sign * up[:, 0] ** 2 * a, sign * b, -sign * up[:, 0]], axis=1)
    ahead = np.stack([b, sign + up[:, 1] ** 2 * a, -up[:, 1]], axis=1)
    uvs = np.stack([np.einsum("fkc,fc->fk", corners, axis[label]) for axis in (right, ahead)], 2)
    return uvs, np.einsum("fkc,fc->f", corners, up[label]) / 3


def _misfits(
    uvs: NDArray[np.float64],
    depth: NDArray[np.float64],
    normals: NDArray[np.float64],
    label: NDArray[np.intp],
) -> NDArray[np.intp]:
    """Return the faces that their chart cannot hold: turned away, too slanted, or hidden."""
    side1, side2 = uvs[:, 1] - uvs[:, 0], uvs[:, 2] - uvs[:, 0]
    drawn = side1[:, 0] * side2[:, 1] - side1[:, 1] * side2[:, 0]
    slanted = np.flatnonzero(drawn < _MIN_SHARE * np.linalg.norm(normals, axis=1))
    low, high = uvs.min(axis=(0, 1)), uvs.max(axis=(0, 1))
    extent = float((high - low).max()) or 1.0
    first, second = overlapping_pairs((uvs - low) / extent, label).T
    hidden = np.where(depth[first] < depth[second], first, second)
    # A chart of one face has no other plane to go to.
    is_alone = np.bincount(label)[label] == 1
    misfits = np.union1d(slanted, hidden)
    movable: NDArray[np.intp] = misfits[~is_alone[misfits]]
    return movable
