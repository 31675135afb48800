"""PerformanceTracker: how fast and how good models were over the days, and when that changed."""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from statistics import median
from typing import Any

from dream_cad.benchmark.performance_page import performance_page
from dream_cad.benchmark.records import device_name
from dream_cad.benchmark.results import BenchmarkResult
from dream_cad.benchmark.shifts import control_chart, find_change
from dream_cad.benchmark.tracking import TrackedRun, Tracking
from dream_cad.exceptions import InvalidConfigError, StorageError

EXPERIMENT = "performance"
MAX_DAYS = 3650.0


@dataclass(frozen=True)
class PerformanceMetrics:
    """One measurement of a model.

    Attributes:
        generation_time_seconds: of one generation, for example a median.
        peak_vram_gb: peak GPU memory in GB (10^9 bytes).
        peak_ram_gb: peak memory of the processes in GB.
        success_rate: part of the generations that gave a mesh, 0..1.
        quality_score: overall mesh quality 0..100, None if not assessed.
        throughput_per_hour: meshes an hour, None if not measured.
        device: what it ran on; trends are kept apart by it.
        timestamp: when, UTC; now by default.
        further: other numbers by name.
    """

    generation_time_seconds: float
    peak_vram_gb: float = 0.0
    peak_ram_gb: float = 0.0
    success_rate: float = 1.0
    quality_score: float | None = None
    throughput_per_hour: float | None = None
    device: str = "cpu"
    timestamp: datetime = field(default_factory=lambda: datetime.now(UTC))
    further: dict[str, float] = field(default_factory=dict)

    @classmethod
    def from_result(cls, result: BenchmarkResult) -> PerformanceMetrics:
        """Return the measurement in a benchmark's result."""
        runs = len(result.run_seconds)
        total = runs + result.failures
        quality = result.quality_metrics
        return cls(
            generation_time_seconds=result.generation_time_seconds,
            peak_vram_gb=result.peak_vram_gb,
            peak_ram_gb=result.peak_ram_gb,
            success_rate=runs / total if total else 0.0,
            quality_score=quality.overall_mesh_quality if quality else None,
            device=device_name(result),
        )

    def numbers(self) -> dict[str, float]:
        """Return the numbers by name; what is None or not finite is left out."""
        values = {name: getattr(self, name) for name in WATCHED} | self.further
        known = {name: float(value) for name, value in values.items() if value is not None}
        return {name: value for name, value in known.items() if math.isfinite(value)}


@dataclass(frozen=True)
class Watched:
    """How a metric is judged.

    Attributes:
        higher_is_better: direction.
        relevant: part of the median below which a change does not matter.
    """

    higher_is_better: bool
    relevant: float


WATCHED: dict[str, Watched] = {
    "generation_time_seconds": Watched(higher_is_better=False, relevant=0.05),
    "peak_vram_gb": Watched(higher_is_better=False, relevant=0.02),
    "peak_ram_gb": Watched(higher_is_better=False, relevant=0.10),
    "success_rate": Watched(higher_is_better=True, relevant=0.01),
    "quality_score": Watched(higher_is_better=True, relevant=0.02),
    "throughput_per_hour": Watched(higher_is_better=True, relevant=0.05),
}


class PerformanceTracker:
    """Keeps measurements in MLflow and judges them.

    Args:
        tracking: where; the embedded store or MLFLOW_TRACKING_URI when None.
    """

    def __init__(self, tracking: Tracking | None = None) -> None:
        self._tracking = tracking or Tracking()

    def track_performance(self, model_name: str, metrics: PerformanceMetrics) -> None:
        """Record one measurement.

        Raises:
            InvalidConfigError: the model has no name.
        """
        if not model_name.strip():
            raise InvalidConfigError("A measurement needs the name of its model.")
        self._tracking.record(
            EXPERIMENT,
            name=model_name,
            metrics=metrics.numbers(),
            params={"device": metrics.device},
            tags={"model": model_name, "device": metrics.device},
            at=metrics.timestamp,
        )

    def get_performance_trend(self, model_name: str, days: int = 30) -> dict[str, Any]:
        """Return what the last ``days`` days say about a model.

        Returns:
            ``{"model", "days", "devices": {device: {metric: trend}}, "alarms": [...]}``. A trend
            has ``points`` (time and value), ``n``, ``first``, ``last``, ``median``, ``lowest``,
            ``highest``, ``change`` (last over median, minus one), ``control`` (limits and alarm;
            None with too few points) and ``change_point`` (None without one). A model that was
            never measured has no devices.

        Raises:
            InvalidConfigError: ``days`` is not in 0..3650.
        """
        if not 0 < days <= MAX_DAYS:
            raise InvalidConfigError(f"days is {days}; expected a number up to {MAX_DAYS:g}.")
        runs = self._tracking.runs(EXPERIMENT, days=days, tags={"model": model_name})
        return _trend_of(model_name, runs, days)

    def generate_report(self, days: int = 30, path: Path | None = None) -> dict[str, Any]:
        """Return the trends of all models; with ``path``, also write them as an HTML page.

        Returns:
            ``{"generated_at", "days", "models": {name: trend}, "alarms": [...], "measurements"}``.

        Raises:
            InvalidConfigError: ``days`` is not in 0..3650.
            StorageError: the page cannot be written.
        """
        if not 0 < days <= MAX_DAYS:
            raise InvalidConfigError(f"days is {days}; expected a number up to {MAX_DAYS:g}.")
        runs = self._tracking.runs(EXPERIMENT, days=days)
        names = sorted({run.tags.get("model", "") for run in runs})
        models = {
            name: _trend_of(name, [r for r in runs if r.tags.get("model", "") == name], days)
            for name in names
        }
        report = {
            "generated_at": datetime.now(UTC).isoformat(timespec="seconds"),
            "days": days,
            "measurements": len(runs),
            "models": models,
            "alarms": [alarm for trend in models.values() for alarm in trend["alarms"]],
        }
        if path is not None:
            _write(path, performance_page(report))
        return report


def _trend_of(model: str, runs: list[TrackedRun], days: float) -> dict[str, Any]:
    devices: dict[str, dict[str, Any]] = {}
    for device in sorted({run.tags.get("device", "") for run in runs}):
        mine = [run for run in runs if run.tags.get("device", "") == device]
        names = sorted({name for run in mine for name in run.metrics})
        devices[device] = {name: _series(name, mine) for name in names}
    alarms = [
        {"model": model, "device": device, "metric": metric, "what": text}
        for device, metrics in devices.items()
        for metric, trend in metrics.items()
        for text in _alarms(trend)
    ]
    return {"model": model, "days": days, "devices": devices, "alarms": alarms}


def _series(name: str, runs: list[TrackedRun]) -> dict[str, Any]:
    """Return the trend of one metric of one device."""
    points = [(run.started, run.metrics[name]) for run in runs if name in run.metrics]
    values = [value for _, value in points]
    watched = WATCHED.get(name)  # of other numbers nobody knows the better direction
    control = change = None
    if watched is not None:
        is_up, relevant = watched.higher_is_better, watched.relevant
        control = control_chart(values, higher_is_better=is_up, relevant=relevant)
        change = find_change(values, higher_is_better=is_up, relevant=relevant)
    middle = median(values)
    return {
        "points": [{"time": at.isoformat(), "value": value} for at, value in points],
        "n": len(values),
        "first": values[0],
        "last": values[-1],
        "median": middle,
        "lowest": min(values),
        "highest": max(values),
        "change": values[-1] / middle - 1 if middle else 0.0,
        "control": asdict(control) if control else None,
        "change_point": None
        if change is None
        else asdict(change) | {"time": points[change.index][0].isoformat()},
    }


def _alarms(trend: dict[str, Any]) -> list[str]:
    found = []
    control, change = trend["control"], trend["change_point"]
    if control and control["is_alarm"]:
        found.append(
            f"The last value {trend['last']:.4g} is outside its limits "
            f"{control['low']:.4g}..{control['high']:.4g}."
        )
    if change and change["is_worse"]:
        found.append(
            f"Worse since {change['time'][:16]}: median {change['before']:.4g} before, "
            f"{change['after']:.4g} after (p = {change['p_value']:.3g})."
        )
    return found


def _write(path: Path, text: str) -> None:
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text, encoding="utf-8")
    except OSError as error:
        raise StorageError(f"{path} could not be written: {error.strerror or error}.") from error
