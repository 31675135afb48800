"""Readiness for 3D printing with layers, standing as it is (+Y up)."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from dream_cad.benchmark.aspects.thickness import Thickness
from dream_cad.benchmark.scores import PERFECT, Score, geometric_mean
from dream_cad.benchmark.welded import WeldedMesh

PRINT_SIZE_MM = 100.0
MIN_WALL_MM = 1.2  # three lines of a 0.4 mm nozzle
_UP = 1
_OVERHANG_COSINE = -0.7071067811865476  # steeper than 45° below the horizon
_FLOOR = 0.005  # of the longest side: faces so near the lowest point rest on the bed
_WEIGHTS = {"closed": 4.0, "walls": 2.0, "overhang": 1.0, "base": 0.5}


@dataclass(frozen=True)
class Printability:
    """What a print meets.

    Attributes:
        overhang: part of the surface that hangs over at more than 45° and needs support.
        base: area resting on the bed over the area of the bounding box's floor, 0..1.
        thin_walls: part of the walls below ``MIN_WALL_MM`` on a print of ``PRINT_SIZE_MM``.
        volume_cm3: material of a solid print of that size; 0 unless closed.
    """

    overhang: float
    base: float
    thin_walls: float
    volume_cm3: float


def measure_printability(
    mesh: WeldedMesh, thickness: Thickness, *, is_watertight: bool
) -> Printability:
    """Measure overhangs, base and thin walls at print size."""
    if not len(mesh.faces) or mesh.size == 0:
        return Printability(0.0, 0.0, 1.0, 0.0)
    height = mesh.corners[:, :, _UP].max(axis=1) - mesh.vertices[:, _UP].min()
    is_floor = height <= _FLOOR * mesh.size
    is_down = mesh.normals[:, _UP] < _OVERHANG_COSINE
    resting = float(mesh.doubled_area[is_floor & is_down].sum()) / 2
    hanging = float(mesh.doubled_area[is_down & ~is_floor].sum()) / 2
    x, _, z = mesh.extents
    walls = thickness.walls * PRINT_SIZE_MM
    scale_cm = PRINT_SIZE_MM / 10 / mesh.size
    return Printability(
        overhang=hanging / mesh.area if mesh.area else 0.0,
        base=min(1.0, resting / (x * z)) if x * z > 0 else 0.0,
        thin_walls=float((walls < MIN_WALL_MM).mean()) if len(walls) else 1.0,
        volume_cm3=abs(mesh.volume) * scale_cm**3 if is_watertight else 0.0,
    )


def score_printability(found: Printability, closed: float, intersections: float) -> Score:
    """Score a print: geometric mean of four parts, at most the weakest of the closed ones.

    Closed: the smallest of validity, manifold, watertight (``closed``) and self-intersection score
    (weight 4); walls ``100 (1 - t)`` (2); overhang ``100 (1 - 0.7 h)`` (1), support can carry it;
    base ``50 + 50 min(1, b / 0.1)`` (1/2).
    """
    parts = {
        "closed": min(closed, intersections),
        "walls": PERFECT * (1 - found.thin_walls),
        "overhang": PERFECT * (1 - 0.7 * found.overhang),
        "base": 50 + 50 * min(1.0, found.base / 0.1),
    }
    reason = (
        f"Closed surface {parts['closed']:.0f}, {found.thin_walls:.1%} of the walls below "
        f"{MIN_WALL_MM} mm at {PRINT_SIZE_MM:.0f} mm, {found.overhang:.1%} overhang, base "
        f"{found.base:.1%}, {found.volume_cm3:.1f} cm³."
    )
    return Score(float(np.minimum(geometric_mean(parts, _WEIGHTS), closed)), reason)
