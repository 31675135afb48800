"""Noise of the surface and shape of the triangles."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from dream_cad.benchmark.aspects.topology import EdgeTable
from dream_cad.benchmark.scores import PERFECT, Score, decay, share
from dream_cad.benchmark.welded import Floats, WeldedMesh

SLIVER_QUALITY = 0.05
_HALF_ROUGHNESS = math.radians(10)
_GOOD_QUALITY = 0.8  # the mean of well-made meshes; marching cubes gives about 0.75


@dataclass(frozen=True)
class Shape:
    """Form of the surface.

    Attributes:
        roughness_deg: area-weighted mean over vertices of twice the smaller of the summed convex
            and summed concave dihedral angles, divided by the number of edges, in degrees. Bumps
            mix both signs; boxes, spheres and other creases do not.
        triangle_quality: mean of ``4 sqrt(3) area / (a² + b² + c²)``, 1 for equilateral ones.
        slivers: faces with a quality below ``SLIVER_QUALITY``.
    """

    roughness_deg: float
    triangle_quality: float
    slivers: int


def measure_shape(mesh: WeldedMesh, edges: EdgeTable) -> Shape:
    """Measure roughness and triangle quality; an empty mesh gives zeros."""
    if not len(mesh.faces):
        return Shape(0.0, 0.0, 0)
    quality = _qualities(mesh)
    return Shape(
        roughness_deg=math.degrees(_roughness(mesh, edges)),
        triangle_quality=float(quality.mean()),
        slivers=int((quality < SLIVER_QUALITY).sum()),
    )


def score_smoothness(shape: Shape) -> Score:
    """Score noise: ``100 / (1 + r / 10°)`` for a roughness r."""
    value = PERFECT * decay(math.radians(shape.roughness_deg), _HALF_ROUGHNESS)
    return Score(value, f"Neighbouring bumps and dents of {shape.roughness_deg:.2f}° on average.")


def score_triangles(shape: Shape, faces: int) -> Score:
    """Score triangle shapes: ``100 min(1, q / 0.8) (1 - s)²``, mean quality q, sliver share s."""
    if faces == 0:
        return Score(0.0, "No face.")
    slivers = share(shape.slivers, faces)
    value = PERFECT * min(1.0, shape.triangle_quality / _GOOD_QUALITY) * (1 - slivers) ** 2
    return Score(
        value,
        f"Mean triangle quality {shape.triangle_quality:.3f} of 1; {shape.slivers} slivers.",
    )


def _qualities(mesh: WeldedMesh) -> Floats:
    sides = np.roll(mesh.corners, -1, axis=1) - mesh.corners
    squares = np.einsum("fkc,fkc->f", sides, sides)
    doubled = mesh.doubled_area
    quality: Floats = np.divide(
        2 * math.sqrt(3) * doubled, squares, out=np.zeros_like(doubled), where=squares > 0
    )
    return quality


def _roughness(mesh: WeldedMesh, edges: EdgeTable) -> float:
    """Return the area-weighted mean over vertices of ``2 min(convex, concave) / edges``."""
    pair = edges.start[edges.count == 2]
    ends = edges.ends[edges.count == 2]
    left, right = edges.face[pair], edges.face[pair + 1]
    n, m = mesh.normals[left], mesh.normals[right]
    cosine = np.clip(np.einsum("ec,ec->e", n, m), -1, 1)
    opposite = mesh.corners[right].sum(axis=1) - mesh.vertices[ends].sum(axis=1)
    side = np.einsum("ec,ec->e", opposite - mesh.vertices[ends[:, 0]], n)
    angle = np.where(side > 0, 1.0, -1.0) * np.arccos(cosine)
    angle[mesh.is_flat[left] | mesh.is_flat[right]] = 0
    count = len(mesh.vertices)
    both = np.repeat(angle, 2)
    concave = np.bincount(ends.ravel(), np.maximum(both, 0), count)
    convex = np.bincount(ends.ravel(), np.maximum(-both, 0), count)
    degree = np.maximum(np.bincount(ends.ravel(), minlength=count), 1)
    weight = np.bincount(mesh.faces.ravel(), np.repeat(mesh.doubled_area, 3), count)
    mixed = 2 * np.minimum(concave, convex) / degree
    return share(float(np.sum(mixed * weight)), float(weight.sum()))
