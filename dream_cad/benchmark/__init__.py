"""Benchmarks: quality of meshes, comparison of models, speed and memory over time."""

from __future__ import annotations

from dream_cad.benchmark.quality import QualityAssessor, QualityMetrics

__all__ = ["QualityAssessor", "QualityMetrics"]
