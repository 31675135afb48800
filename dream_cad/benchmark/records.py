"""What stays of each case of a suite, and what a whole pass says about a model."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from dream_cad.benchmark.results import BenchmarkResult, result_metrics
from dream_cad.benchmark.suites import SuiteCase

SUMMARIZED = (
    "generation_time_seconds",
    "peak_ram_gb",
    "peak_vram_gb",
    "quality/overall_mesh_quality",
    "quality/game_ready_score",
    "quality/print_ready_score",
    "truth/chamfer",
    "truth/f_score_0.02",
    "truth/volume_iou",
    "truth/normal_consistency",
    "truth/ssim",
    "truth/psnr_db",
    "clip_similarity",
)
_P95 = "generation_time_p95_seconds"


@dataclass(frozen=True)
class CaseRecord:
    """One case that one model has done.

    Attributes:
        model: its name.
        case: what was asked for.
        success: whether every run gave a mesh.
        metrics: numbers by name, see ``result_metrics``.
        run_seconds: of each successful run.
        error: of the first failure.
        device: what it ran on.
    """

    model: str
    case: SuiteCase
    success: bool
    metrics: dict[str, float]
    run_seconds: list[float]
    error: str | None
    device: str

    @property
    def key(self) -> str:
        """Name of the record in its pass; safe in file names."""
        return f"{self.model}--{self.case.key}"

    def to_dict(self) -> dict[str, Any]:
        """Return everything as JSON-compatible values."""
        return asdict(self)

    @classmethod
    def from_dict(cls, values: dict[str, Any]) -> CaseRecord:
        """Return the record that ``to_dict`` wrote."""
        case = dict(values["case"])
        case["tags"] = tuple(case["tags"])
        return cls(**{**values, "case": SuiteCase(**case)})


def record_of(
    case: SuiteCase, result: BenchmarkResult, further: dict[str, float] | None = None
) -> CaseRecord:
    """Return what stays of a result."""
    return CaseRecord(
        model=result.model_name,
        case=case,
        success=result.success,
        metrics={**result_metrics(result), **(further or {})},
        run_seconds=list(result.run_seconds),
        error=result.error_message,
        device=device_name(result),
    )


def device_name(result: BenchmarkResult) -> str:
    """Return the GPU that a result was made on, or the processor with its cores."""
    facts = result.environment
    if "gpu" in facts and facts.get("device") != "cpu":
        return str(facts["gpu"])
    return f"{facts['cpu']}, {facts['cores']} cores" if "cpu" in facts else "cpu"


def summarize_records(records: Iterable[CaseRecord]) -> dict[str, dict[str, float]]:
    """Return by model: cases, success rate, p95 of seconds, and the medians of ``SUMMARIZED``.

    A metric that no case of a model has is left out.
    """
    groups: dict[str, list[CaseRecord]] = defaultdict(list)
    for record in records:
        groups[record.model].append(record)
    return {model: _summary(group) for model, group in groups.items()}


def _summary(group: list[CaseRecord]) -> dict[str, float]:
    found = {
        "cases": float(len(group)),
        "success_rate": float(np.mean([record.success for record in group])),
    }
    for name in SUMMARIZED:
        values = [record.metrics[name] for record in group if name in record.metrics]
        if values:
            found[name] = float(np.median(values))
    seconds = [second for record in group for second in record.run_seconds]
    if seconds:
        found[_P95] = float(np.quantile(seconds, 0.95))
    return found
