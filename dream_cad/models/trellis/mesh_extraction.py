"""From cube features of the mesh decoder to a mesh (spec, section 11c)."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from dream_cad.exceptions import ShapeError
from dream_cad.models.trellis.flexicubes import (
    CORNERS,
    EDGES,
    Floats,
    Ints,
    dual_vertices,
    group_table,
    settle_ambiguity,
)

_CHANNELS = 101


@dataclass(frozen=True)
class ExtractedMesh:
    """A mesh in the world, z up; without a surface all arrays are empty.

    Attributes:
        vertices: (V, 3) float32 in [-0.5, 0.5].
        faces: (F, 3) int64; normals point to positive distance, outwards.
        attributes: (V, 6) RGB and normal in [0, 1].
    """

    vertices: Floats
    faces: Ints
    attributes: Floats


@dataclass(frozen=True)
class _Cubes:
    """Surface cubes, sorted by position, with the values of their corners."""

    places: Ints
    corners: Ints
    sdf: Floats
    values: Floats
    alpha: Floats
    beta: Floats
    gamma: Floats


def extract_mesh(coords: Ints, feats: Floats, resolution: int) -> ExtractedMesh:
    """Extract the surface of sparse cubes; cubes outside the set are empty space.

    Args:
        coords: (N, 3) cube positions in [0, resolution).
        feats: (N, 101) distance 8, deformation 24, weights 21, colour 48.
        resolution: cubes along an axis.

    Raises:
        ShapeError: if the features are not (N, 101).
    """
    if feats.shape != (len(coords), _CHANNELS):
        raise ShapeError(f"cube features are {feats.shape}; expected ({len(coords)}, {_CHANNELS})")
    cubes = _surface_cubes(coords.astype(np.int64), feats.astype(np.float32), resolution)
    if not len(cubes.places):
        empty = np.zeros((0, 3), np.float32)
        return ExtractedMesh(empty, np.zeros((0, 3), np.int64), np.zeros((0, 6), np.float32))
    return _dual_mesh(cubes, resolution)


def _sigmoid(x: Floats) -> Floats:
    out: Floats = (1 / (1 + np.exp(-x))).astype(np.float32)
    return out


def _vertex_ids(places: Ints, resolution: int) -> Ints:
    side = resolution + 1
    corners = places[:, None] + CORNERS
    out: Ints = (corners[..., 0] * side + corners[..., 1]) * side + corners[..., 2]
    return out


def _surface_cubes(coords: Ints, feats: Floats, resolution: int) -> _Cubes:
    """Average corner values per grid vertex and keep the cubes that the surface crosses."""
    ids, index = np.unique(_vertex_ids(coords, resolution), return_inverse=True)
    index = index.reshape(-1)
    raw = np.concatenate(
        (
            feats[:, :8, None] - np.float32(1 / resolution),
            feats[:, 8:32].reshape(-1, 8, 3),
            feats[:, 53:].reshape(-1, 8, 6),
        ),
        axis=2,
    ).reshape(-1, 10)
    counts = np.bincount(index, minlength=len(ids))
    sums = [np.bincount(index, raw[:, c], len(ids)) for c in range(10)]
    mean = (np.stack(sums, axis=1) / counts[:, None]).astype(np.float32)
    places, source = _with_neighbours(coords, resolution)
    corners = _vertex_ids(places, resolution)
    found = np.searchsorted(ids, corners).clip(max=len(ids) - 1)
    known = ids[found] == corners
    sdf = np.where(known, mean[found, 0], np.float32(1))
    inside = (sdf < 0).sum(axis=1)
    keep = (inside > 0) & (inside < 8)
    places, source, corners, sdf = places[keep], source[keep], corners[keep], sdf[keep]
    values = np.where(known[keep][..., None], mean[found[keep], 1:], np.float32(0))
    weights = np.where(source[:, None] >= 0, feats[source, 32:53], np.float32(0))
    return _Cubes(
        places,
        corners,
        sdf,
        _corner_values(places, values, resolution),
        1 + np.float32(0.99) * np.tanh(weights[:, 12:20]),
        1 + np.float32(0.99) * np.tanh(weights[:, :12]),
        np.float32(0.005) + np.float32(0.99) * _sigmoid(weights[:, 20]),
    )


def _corner_values(places: Ints, values: Floats, resolution: int) -> Floats:
    """Deformed position and colours (K, 8, 9) of the corners."""
    reach = (1 - 1e-8) / (2 * resolution)
    grid = (places[:, None] + CORNERS) / resolution - 0.5
    positions = grid + reach * np.tanh(values[..., :3])
    return np.concatenate((positions, _sigmoid(values[..., 3:])), axis=2).astype(np.float32)


def _with_neighbours(coords: Ints, resolution: int) -> tuple[Ints, Ints]:
    """Cubes and their 26 neighbours inside the grid, sorted; row of the features or -1."""
    steps = np.stack(np.meshgrid(*[(-1, 0, 1)] * 3, indexing="ij"), axis=-1).reshape(-1, 3)
    near = (coords[:, None] + steps).reshape(-1, 3)
    near = near[((near >= 0) & (near < resolution)).all(axis=1)]
    side = np.array((resolution**2, resolution, 1))
    keys = np.unique(near @ side)
    own = coords @ side
    source = np.full(len(keys), -1)
    source[np.searchsorted(keys, own)] = np.arange(len(own))
    return np.stack(np.unravel_index(keys, (resolution,) * 3), axis=1), source


def _dual_mesh(cubes: _Cubes, resolution: int) -> ExtractedMesh:
    cases = ((cubes.sdf < 0) << np.arange(8)).sum(axis=1)
    cases = settle_ambiguity(cases, cubes.places, resolution)
    counts, table = group_table()
    owner, group = _number_groups(counts[cases])
    edges = table[cases[owner], group]
    values = dual_vertices(
        cubes.values[owner], cubes.sdf[owner], cubes.beta[owner], cubes.alpha[owner], edges
    )
    faces = _faces(cubes, owner, edges)
    return ExtractedMesh(values[:, :3], faces, values[:, 3:])


def _number_groups(counts: Ints) -> tuple[Ints, Ints]:
    """Cube and group of each dual vertex: all cubes with one group first, then two, ..."""
    order = np.argsort(counts, kind="stable")
    owner = np.repeat(order, counts[order])
    starts = np.repeat(np.cumsum(counts[order]) - counts[order], counts[order])
    return owner, np.arange(len(owner)) - starts


def _faces(cubes: _Cubes, owner: Ints, edges: NDArray[np.bool_]) -> Ints:
    """Quads around the grid edges that four cubes share, split in two triangles."""
    vertex, edge = np.nonzero(edges)
    cube = owner[vertex]
    first, second = (cubes.corners[cube, EDGES[edge, end]] for end in (0, 1))
    order = np.lexsort((cube, second, first))
    keys = np.stack((first, second), axis=1)[order]
    starts = np.flatnonzero(np.r_[True, (keys[1:] != keys[:-1]).any(axis=1)])
    sizes = np.diff(np.r_[starts, len(keys)])
    shared = starts[sizes == 4]
    quads = vertex[order][shared[:, None] + np.arange(4)]
    start = order[shared]
    positive = cubes.sdf[cube[start], EDGES[edge[start], 0]] > 0
    quads = np.concatenate((quads[positive][:, [0, 1, 3, 2]], quads[~positive][:, [2, 3, 1, 0]]))
    gamma = cubes.gamma[owner[quads]]
    diagonal = gamma[:, 0] * gamma[:, 2] > gamma[:, 1] * gamma[:, 3]
    split = np.where(diagonal[:, None], [0, 1, 2, 0, 2, 3], [0, 1, 3, 3, 1, 2])
    return np.take_along_axis(quads, split, axis=1).reshape(-1, 3)
