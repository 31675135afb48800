"""The acceptance gates: what a mesh must hold, and what can be repaired (simplified, closed)."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import trimesh

from dream_cad.benchmark.quality import QualityAssessor, is_watertight
from dream_cad.mesh.cleanup import weld_vertices
from dream_cad.mesh.data import MeshData
from dream_cad.mesh.simplify import simplify
from dream_cad.mesh.uv_overlap import overlapping_pairs


@dataclass(frozen=True)
class Verdict:
    """What the gates say of a mesh.

    Attributes:
        mesh: as it came, or repaired.
        failed: gates that it does not pass: gate, wanted, measured.
        quality: overall quality 0..100; None where nothing had to be measured.
    """

    mesh: MeshData
    failed: list[dict[str, Any]]
    quality: float | None


def judge(mesh: MeshData, require: Mapping[str, Any], *, is_ranked: bool = False) -> Verdict:
    """Repair a mesh as far as the gates ask for it, then check them.

    Args:
        mesh: finished mesh.
        require: any of watertight, max_faces, min_quality, uv_overlap_free.
        is_ranked: measure the quality also where no gate asks for it.
    """
    mesh = _repaired(mesh, require)
    is_scored = is_ranked or require.get("min_quality") is not None
    quality = overall_quality(mesh) if is_scored else None
    failed = [
        {"gate": gate, "wanted": wanted, "measured": measured}
        for gate, wanted, measured, passes in _checks(mesh, require, quality)
        if not passes
    ]
    return Verdict(mesh, failed, quality)


def overall_quality(mesh: MeshData) -> float:
    """Return the overall quality of a mesh, 0..100, see docs/quality.md."""
    return float(QualityAssessor().assess(mesh).overall_mesh_quality)


def _checks(
    mesh: MeshData, require: Mapping[str, Any], quality: float | None
) -> list[tuple[str, Any, Any, bool]]:
    checks: list[tuple[str, Any, Any, bool]] = []
    if (most := require.get("max_faces")) is not None:
        checks.append(("max_faces", most, len(mesh.faces), len(mesh.faces) <= most))
    if require.get("watertight"):
        tight = is_watertight(mesh)
        checks.append(("watertight", True, tight, tight))
    if (least := require.get("min_quality")) is not None:
        measured = round(quality or 0.0, 2)
        checks.append(("min_quality", least, measured, measured >= least))
    if require.get("uv_overlap_free"):
        pairs = count_uv_overlaps(mesh)
        checks.append(("uv_overlap_free", True, f"{pairs} pairs of faces overlap", pairs == 0))
    return checks


def count_uv_overlaps(mesh: MeshData) -> int:
    """Return how many pairs of faces share area in the texture; 0 without a texture."""
    if mesh.uv_coords is None:
        return 0
    triangles = mesh.uv_coords[mesh.faces]
    return len(overlapping_pairs(triangles, np.zeros(len(triangles), np.int64)))


def _repaired(mesh: MeshData, require: Mapping[str, Any]) -> MeshData:
    most = require.get("max_faces")
    if most is not None and len(mesh.faces) > most and mesh.uv_coords is None:
        mesh = simplify(mesh, most)
    if require.get("watertight") and mesh.uv_coords is None and not is_watertight(mesh):
        mesh = _filled(mesh)
    return mesh


def _filled(mesh: MeshData) -> MeshData:
    """Close small holes; colours follow the nearest old vertices, of which none is moved."""
    welded = weld_vertices(mesh)
    solid = trimesh.Trimesh(welded.vertices, welded.faces, process=False)
    trimesh.repair.fill_holes(solid)
    if len(solid.vertices) != len(welded.vertices):
        return welded  # new vertices would have no colour
    return MeshData(
        welded.vertices,
        np.ascontiguousarray(solid.faces, dtype=np.int32),
        vertex_colors=welded.vertex_colors,
        materials=welded.materials,
        extras=welded.extras,
    )
