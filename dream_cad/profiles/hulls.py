"""Convex collision hulls: a mesh cut by planes where that makes its hulls smaller.

Physics engines want few convex bodies of few triangles. The parts are cut greedily: of all parts
and axis-aligned planes the cut is made that takes most off the sum of the hulls' volumes. Published
decompositions (CoACD, V-HACD) fit closer and take a minute for what takes a second here.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import trimesh
from numpy.typing import NDArray
from scipy.spatial import ConvexHull, QhullError

from dream_cad.exceptions import GenerationError, InvalidConfigError
from dream_cad.mesh.checks import check_mesh
from dream_cad.mesh.data import MeshData

_SAMPLES = 6_000
_SEED = 0
_CUTS_PER_AXIS = 9
_MIN_GAIN = 0.02
"""A cut that takes less than this share off the first hull's volume is not worth a body."""
_MIN_THICKNESS = 1e-3
"""Flat parts are thickened to this share of the mesh's longest side: bodies need a volume."""
_MIN_FACES = 4

Points = NDArray[np.float64]


@dataclass(frozen=True)
class _Cut:
    gain: float
    parts: tuple[Points, Points]


def convex_hulls(mesh: MeshData, *, count: int, max_faces: int) -> tuple[MeshData, ...]:
    """Return convex bodies that together cover a mesh's surface, up to the hulls' own rounding.

    The same mesh gives the same hulls.

    Args:
        mesh: any mesh; it need not be closed.
        count: bodies at most, 1 or more.
        max_faces: triangles of each at most, 4 or more.

    Raises:
        InvalidConfigError: a number is out of range.
        GenerationError: the mesh is a single point, or has no finite hull.
    """
    if count < 1 or max_faces < _MIN_FACES:
        raise InvalidConfigError(
            f"{count} hulls of {max_faces} faces; expected 1 or more of {_MIN_FACES} or more."
        )
    check_mesh(mesh)
    points = _surface_points(mesh)
    extent = float(np.ptp(points, axis=0).max())
    if extent == 0:
        raise GenerationError("The mesh is a single point and has no collision hull.")
    thickness = extent * _MIN_THICKNESS
    parts = _decompose(points, count, thickness)
    return tuple(_body(part, max_faces, thickness) for part in parts)


def _surface_points(mesh: MeshData) -> Points:
    """Return the vertices and, for long triangles between them, points of the surface."""
    vertices = mesh.vertices[np.unique(mesh.faces)].astype(np.float64)
    surface = trimesh.Trimesh(mesh.vertices, mesh.faces, process=False)
    if not surface.area > 0:
        return vertices
    sampled = trimesh.sample.sample_surface(surface, _SAMPLES, seed=_SEED)[0]
    return np.concatenate([vertices, np.asarray(sampled, dtype=np.float64)])


def _decompose(points: Points, count: int, thickness: float) -> list[Points]:
    parts = [points]
    if count == 1:
        return parts
    whole = _volume(points, thickness)
    cuts = [_best_cut(points, thickness)]
    while len(parts) < count:
        index = max(range(len(parts)), key=lambda i: cuts[i].gain)
        best = cuts[index]
        if best.gain < _MIN_GAIN * whole:
            break
        parts[index : index + 1] = best.parts
        cuts[index : index + 1] = [_best_cut(part, thickness) for part in best.parts]
    return parts


def _best_cut(points: Points, thickness: float) -> _Cut:
    """Try planes across each axis; both sides keep the points within a thickness of the plane."""
    before = _volume(points, thickness)
    best = _Cut(0.0, (points, points))
    low, high = points.min(axis=0), points.max(axis=0)
    for axis in range(3):
        for at in np.linspace(low[axis], high[axis], _CUTS_PER_AXIS + 2)[1:-1]:
            below = points[points[:, axis] <= at + thickness]
            above = points[points[:, axis] >= at - thickness]
            if min(len(below), len(above)) < _MIN_FACES:
                continue
            gain = before - _volume(below, thickness) - _volume(above, thickness)
            if gain > best.gain:
                best = _Cut(gain, (below, above))
    return best


def _volume(points: Points, thickness: float) -> float:
    """Return the volume of the points' hull, which is at least a thickness wide everywhere."""
    try:
        return float(ConvexHull(points).volume)
    except QhullError:
        extent = np.maximum(np.ptp(points, axis=0), thickness)
        return float(np.prod(extent))


def _body(points: Points, max_faces: int, thickness: float) -> MeshData:
    try:
        hull = ConvexHull(points)
    except QhullError:
        points = _thickened(points, thickness)
        hull = ConvexHull(points)
    corners = points[hull.vertices]
    if len(hull.simplices) > max_faces:
        corners = _fewer(corners, max_faces)
    solid = trimesh.convex.convex_hull(corners)
    return MeshData(
        np.asarray(solid.vertices, dtype=np.float32), np.asarray(solid.faces, dtype=np.int32)
    )


def _thickened(points: Points, thickness: float) -> Points:
    """Move copies of flat points both ways along each axis, which gives them a volume."""
    shifts = np.concatenate([np.eye(3), -np.eye(3)]) * thickness / 2
    return (points[:, None] + shifts).reshape(-1, 3)


def _fewer(corners: Points, max_faces: int) -> Points:
    """Return the corners that lie farthest out in evenly spread directions.

    A hull of n points has at most 2n - 4 triangles.
    """
    wanted = max((max_faces + 4) // 2, 4)
    number = np.arange(wanted) + 0.5
    height = 1 - 2 * number / wanted
    angle = number * math.pi * (3 - math.sqrt(5))  # the golden angle spreads them evenly
    radius = np.sqrt(1 - height**2)
    directions = np.column_stack([radius * np.cos(angle), radius * np.sin(angle), height])
    scale = np.maximum(np.ptp(corners, axis=0), 1e-12)  # flat bodies keep their corners
    farthest = np.argmax((corners / scale) @ directions.T, axis=0)
    return np.asarray(corners[np.unique(farthest)])
