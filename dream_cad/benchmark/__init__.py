"""Benchmarks: quality of meshes, comparison of models, speed and memory."""

from __future__ import annotations

from dream_cad.benchmark.ab_test import ABTestConfig, ABTester, ABTestResult
from dream_cad.benchmark.model_benchmark import ModelBenchmark
from dream_cad.benchmark.quality import QualityAssessor, QualityMetrics
from dream_cad.benchmark.results import BenchmarkConfig, BenchmarkResult

__all__ = [
    "ABTestConfig",
    "ABTestResult",
    "ABTester",
    "BenchmarkConfig",
    "BenchmarkResult",
    "ModelBenchmark",
    "QualityAssessor",
    "QualityMetrics",
]
