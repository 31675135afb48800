"""Wall thickness, from rays along the three axes.

Between a crossing into the solid and the next one out of it, a ray of length t through a wall whose
faces stand at angles with cosines c to the ray measures the wall as ``t min(c)``. Only crossings
with c >= 0.5 count; some axis sees every face under at least 0.577.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from dream_cad.benchmark.scores import PERFECT, Score
from dream_cad.benchmark.welded import Floats, WeldedMesh
from dream_cad.benchmark.xray import cross_rays

THIN_WALL = 0.01  # of the longest side: 1 mm on an object of 10 cm
RAYS = 96
_MIN_COSINE = 0.5


@dataclass(frozen=True)
class Thickness:
    """Walls as parts of the longest side of the bounding box.

    Attributes:
        minimum: 1st percentile, None where no wall was met (an open sheet, or an empty mesh).
        median: 50th percentile, or None.
        thin_share: share of the samples below ``THIN_WALL``; 0 where no wall was met.
        walls: (N,) float64 the samples.
    """

    minimum: float | None
    median: float | None
    thin_share: float
    walls: Floats


def measure_thickness(mesh: WeldedMesh, rays: int = RAYS) -> Thickness:
    """Sample the walls with ``rays`` x ``rays`` rays an axis."""
    if not len(mesh.faces) or mesh.size == 0:
        return Thickness(None, None, 0.0, np.zeros(0))
    low = mesh.vertices.min(axis=0)
    walls = np.concatenate([_walls(mesh, axis, low, rays) for axis in range(3)]) / mesh.size
    if not len(walls):
        return Thickness(None, None, 0.0, walls)
    thinnest, median = np.quantile(walls, [0.01, 0.5])
    return Thickness(float(thinnest), float(median), float((walls < THIN_WALL).mean()), walls)


def score_thickness(thickness: Thickness) -> Score:
    """Score walls: ``100 (1 - s)`` for a share s below 1 % of the longest side."""
    if thickness.minimum is None or thickness.median is None:
        return Score(0.0, "No wall: nothing is enclosed.")
    reason = (
        f"{thickness.thin_share:.1%} of the walls are thinner than {THIN_WALL:.0%} of the longest "
        f"side (1st percentile {thickness.minimum:.2%}, median {thickness.median:.2%})."
    )
    return Score(PERFECT * (1 - thickness.thin_share), reason)


def _walls(mesh: WeldedMesh, axis: int, low: Floats, rays: int) -> Floats:
    hits = cross_rays(mesh.corners, axis, low, mesh.size, rays)
    cosine = mesh.normals[hits.face, axis]
    is_wall = (hits.ray[1:] == hits.ray[:-1]) & (cosine[:-1] < 0) & (cosine[1:] > 0)
    facing = np.minimum(-cosine[:-1], cosine[1:])
    is_wall &= facing >= _MIN_COSINE
    lengths: Floats = (np.diff(hits.position) * facing)[is_wall]
    return lengths
