"""The quality report in plain words."""

from __future__ import annotations

import asyncio
from html import escape
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from dream_cad.benchmark.quality import QualityMetrics

_SCORES = (
    ("mesh_watertight_score", "Closed surface"),
    ("mesh_manifold_score", "Clean topology"),
    ("mesh_validity_score", "Sound data"),
    ("component_score", "In one piece"),
    ("self_intersection_score", "No crossings"),
    ("smoothness_score", "Smoothness"),
    ("triangle_quality_score", "Triangle shape"),
    ("thickness_score", "Wall thickness"),
    ("uv_score", "Texture layout"),
    ("texture_score", "Texture"),
)
_OPTIONAL = frozenset({"uv_score", "texture_score"})
_GOOD, _FAIR = 80.0, 50.0


async def measured_html(path: Path) -> str:
    """Measure a mesh file in a thread and return the report.

    Raises:
        StorageError: the file cannot be read.
        FileFormatError: it is no triangle mesh.
    """
    return report_html(await asyncio.to_thread(_measure, path))


def _measure(path: Path) -> QualityMetrics:
    from dream_cad.benchmark.quality import QualityAssessor  # scipy's trees: when asked for

    return QualityAssessor().assess_mesh_file(path)


def report_html(metrics: QualityMetrics) -> str:
    """Return the verdict, one line for each score with its reason, and the facts."""
    rows = "".join(
        _row(label, getattr(metrics, name), metrics.reasons.get(name, ""))
        for name, label in _SCORES
        if name not in _OPTIONAL or getattr(metrics, name) > 0
    )
    facts = (
        f"{metrics.face_count:,} triangles · {metrics.vertex_count:,} vertices · "
        f"game readiness {metrics.game_ready_score:.0f} · print readiness "
        f"{metrics.print_ready_score:.0f} of 100"
    )
    return (
        f'<section class="dc-report"><h3>{escape(verdict(metrics))}</h3>'
        f'<p class="dc-hint">{facts}</p><ul>{rows}</ul></section>'
    )


def verdict(metrics: QualityMetrics) -> str:
    """Return one sentence on what the mesh is good for."""
    score = f"{metrics.overall_mesh_quality:.0f} of 100"
    if metrics.is_watertight and metrics.print_ready_score >= _GOOD:
        return f"{score}: closed and ready to print."
    if metrics.is_watertight:
        return f"{score}: a closed mesh, good for rendering and games."
    return f"{score}: the surface has openings; fine to look at, not to print."


def _row(label: str, score: float, reason: str) -> str:
    grade = "good" if score >= _GOOD else "fair" if score >= _FAIR else "poor"
    return (
        f'<li class="dc-{grade}"><b>{escape(label)}</b> <span class="dc-score">{score:.0f}</span>'
        f'<span class="dc-why">{escape(reason)}</span></li>'
    )
