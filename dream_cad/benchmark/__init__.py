"""Benchmarks: quality of meshes, comparison of models, speed and memory."""

from __future__ import annotations

from dream_cad.benchmark.ab_test import ABTestConfig, ABTester, ABTestResult
from dream_cad.benchmark.clip_score import ClipScorer, ClipSimilarity
from dream_cad.benchmark.image_metrics import ImageMetrics, compare_renders
from dream_cad.benchmark.model_benchmark import ModelBenchmark
from dream_cad.benchmark.performance import PerformanceMetrics, PerformanceTracker
from dream_cad.benchmark.quality import QualityAssessor, QualityMetrics
from dream_cad.benchmark.reference import ReferenceMetrics, compare_to_reference
from dream_cad.benchmark.results import BenchmarkConfig, BenchmarkResult

__all__ = [
    "ABTestConfig",
    "ABTestResult",
    "ABTester",
    "BenchmarkConfig",
    "BenchmarkResult",
    "ClipScorer",
    "ClipSimilarity",
    "ImageMetrics",
    "ModelBenchmark",
    "PerformanceMetrics",
    "PerformanceTracker",
    "QualityAssessor",
    "QualityMetrics",
    "ReferenceMetrics",
    "compare_renders",
    "compare_to_reference",
]
