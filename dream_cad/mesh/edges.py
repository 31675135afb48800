"""Edges of triangle meshes: neighbours of faces, and borders."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.sparse import coo_matrix
from scipy.sparse.csgraph import connected_components

Ints = NDArray[np.int64]


@dataclass(frozen=True)
class EdgeTable:
    """The edges of a mesh, each once.

    Attributes:
        ends: (E, 2) int64, the lower vertex first.
        counts: (E,) faces at each edge.
        of_face: (F, 3) edges of each face: corners 0-1, 1-2, 2-0.
    """

    ends: Ints
    counts: Ints
    of_face: Ints

    @classmethod
    def of(cls, faces: NDArray[np.integer[Any]]) -> EdgeTable:
        """Collect the edges of faces (F, 3)."""
        corners = faces.astype(np.int64)
        pairs = np.stack([corners, np.roll(corners, -1, axis=1)], axis=2).reshape(-1, 2)
        pairs.sort(axis=1)
        size = int(corners.max()) + 1 if len(corners) else 1
        keys, inverse, counts = np.unique(
            pairs[:, 0] * size + pairs[:, 1], return_inverse=True, return_counts=True
        )
        ends = np.stack([keys // size, keys % size], axis=1)
        return cls(ends, counts, inverse.reshape(-1, 3))

    @property
    def is_border(self) -> NDArray[np.bool_]:
        """(E,) edges of one face only."""
        return np.asarray(self.counts == 1)

    def neighbours(self) -> tuple[Ints, Ints]:
        """Return pairs of faces (N, 2) that share an edge of exactly two, and that edge (N,)."""
        order = np.argsort(self.of_face, axis=None, kind="stable")
        first = np.cumsum(self.counts) - self.counts
        shared = np.flatnonzero(self.counts == 2)
        pairs = np.stack([order[first[shared]], order[first[shared] + 1]], axis=1) // 3
        return pairs, shared


def connected_parts(pairs: Ints, count: int) -> Ints:
    """Number the connected parts of ``count`` nodes joined by pairs (N, 2); returns (count,)."""
    graph = coo_matrix((np.ones(len(pairs), np.int8), (pairs[:, 0], pairs[:, 1])), (count, count))
    labels: Ints = connected_components(graph, directed=False)[1].astype(np.int64)
    return labels


def directed_border(faces: NDArray[np.integer[Any]]) -> Ints:
    """Return the half edges (B, 2) that no face runs the other way, as their faces run them."""
    corners = faces.astype(np.int64)
    if not len(corners):
        return np.zeros((0, 2), np.int64)
    half = np.stack([corners, np.roll(corners, -1, axis=1)], axis=2).reshape(-1, 2)
    size = int(corners.max()) + 1
    keys = half[:, 0] * size + half[:, 1]
    opposite = half[:, 1] * size + half[:, 0]
    return np.asarray(half[~np.isin(keys, opposite)])
