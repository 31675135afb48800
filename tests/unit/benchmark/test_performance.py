from __future__ import annotations

import json
import math
from datetime import UTC, datetime, timedelta
from pathlib import Path

import numpy as np
import pytest

from dream_cad.benchmark import BenchmarkResult, PerformanceMetrics, PerformanceTracker
from dream_cad.benchmark.performance_page import performance_page
from dream_cad.benchmark.shifts import control_chart, find_change
from dream_cad.benchmark.tracking import Tracking
from dream_cad.exceptions import InvalidConfigError

# mlflow 3.17 still uses what its dependencies deprecate.
pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning")

NOW = datetime.now(UTC)
STEADY = [1.0, 1.02, 0.99, 1.01, 1.0, 0.98, 1.01, 1.0, 0.99, 1.01, 1.0, 1.02]


def chart(values: list[float], *, up: bool = False):  # type: ignore[no-untyped-def]
    return control_chart(values, higher_is_better=up, relevant=0.05)


def test_the_last_value_is_judged_by_those_before_it() -> None:
    assert not chart(STEADY).is_alarm
    slower = chart([*STEADY, 1.3])
    assert slower.is_alarm
    assert slower.low < slower.center == 1.0 < slower.high < 1.3
    faster = chart([*STEADY, 0.5])
    assert (faster.is_alarm, faster.is_better) == (False, True)
    assert chart([*STEADY, 0.5], up=True).is_alarm
    assert chart(STEADY[:5]) is None


def test_small_changes_of_very_steady_series_do_not_matter() -> None:
    assert not chart([1.0] * 10 + [1.04]).is_alarm
    assert chart([1.0] * 10 + [1.06]).is_alarm
    assert chart([1.0, 1.0, 9.0, 1.0, 1.0, 1.0, 1.0, 1.3]).is_alarm  # an outlier widens nothing


def test_change_points_are_found_where_they_are() -> None:
    generator = np.random.default_rng(0)
    noise = generator.normal(0, 0.02, 24)
    moved = [*(1 + noise[:14]), *(1.2 + noise[14:])]
    found = find_change(moved, higher_is_better=False, relevant=0.05)
    assert found is not None
    assert (found.index, found.is_worse) == (14, True)
    assert found.p_value <= 0.01
    better = find_change(moved, higher_is_better=True, relevant=0.05)
    assert better is not None
    assert not better.is_worse
    assert find_change(moved, higher_is_better=False, relevant=0.5) is None
    assert find_change([1.0] * 30, higher_is_better=False, relevant=0.05) is None
    assert find_change(moved[:7], higher_is_better=False, relevant=0.05) is None


def test_chance_raises_few_alarms() -> None:
    generator = np.random.default_rng(1)
    found = [
        find_change(list(generator.normal(1, 0.2, 20)), higher_is_better=True, relevant=0.0)
        for _ in range(100)
    ]
    assert sum(change is not None for change in found) <= 5


@pytest.fixture(scope="module")
def tracker(tmp_path_factory: pytest.TempPathFactory) -> PerformanceTracker:
    folder = tmp_path_factory.mktemp("performance")
    tracker = PerformanceTracker(Tracking(uri=f"sqlite:///{folder / 'runs.db'}"))
    for day, seconds in enumerate([*STEADY, *(1.5 + 0.1 * (s - 1) for s in STEADY[:5])]):
        at = NOW - timedelta(days=20 - day)
        metrics = PerformanceMetrics(seconds, 0.0, 1.0, device="H100", timestamp=at)
        tracker.track_performance("slower", metrics)
    tracker.track_performance("slower", PerformanceMetrics(9.0, device="cpu"))
    tracker.track_performance("new", PerformanceMetrics(2.0, quality_score=math.nan))
    return tracker


def test_trends_are_kept_apart_by_device(tracker: PerformanceTracker) -> None:
    trend = tracker.get_performance_trend("slower", days=30)
    assert set(trend["devices"]) == {"H100", "cpu"}
    series = trend["devices"]["H100"]["generation_time_seconds"]
    assert series["n"] == 17
    assert (series["first"], series["highest"]) == (1.0, 1.502)
    times = [point["time"] for point in series["points"]]
    assert times == sorted(times)
    assert series["change_point"]["index"] in {11, 12}  # value 11 is as high as any before
    assert [alarm["what"][:12] for alarm in trend["alarms"]] == ["The last val", "Worse since "]
    assert {alarm["metric"] for alarm in trend["alarms"]} == {"generation_time_seconds"}
    recent = tracker.get_performance_trend("slower", days=6)["devices"]["H100"]
    assert recent["generation_time_seconds"]["n"] == 2
    assert tracker.get_performance_trend("never measured")["devices"] == {}


def test_the_report_is_a_dict_and_a_page(tracker: PerformanceTracker, tmp_path: Path) -> None:
    path = tmp_path / "pages" / "report.html"
    report = tracker.generate_report(path=path)
    assert report["measurements"] == 19
    assert set(report["models"]) == {"slower", "new"}
    assert "quality_score" not in report["models"]["new"]["devices"]["cpu"]
    assert len(report["alarms"]) == 2
    assert json.loads(json.dumps(report)) == report
    html = path.read_text()
    assert html.count("<svg") == sum(
        len(metrics) for m in report["models"].values() for metrics in m["devices"].values()
    )
    assert "Worse since" in html
    assert "http" not in html


def test_names_are_escaped_on_the_page() -> None:
    report = {"days": 1, "measurements": 0, "generated_at": "now", "models": {}, "alarms": []}
    alarm = {"model": "<img>", "device": "d", "metric": "m", "what": "w"}
    assert "No alarms" in performance_page(report)
    assert "&lt;img&gt;" in performance_page({**report, "alarms": [alarm]})


def test_results_become_measurements_and_bad_requests_are_refused(
    tracker: PerformanceTracker,
) -> None:
    result = BenchmarkResult(
        "m", "p", False, 2.0, 3.0, 1.0, run_seconds=[2.0], failures=3, environment={"gpu": "A"}
    )
    metrics = PerformanceMetrics.from_result(result)
    assert (metrics.success_rate, metrics.device, metrics.quality_score) == (0.25, "A", None)
    assert metrics.numbers()["peak_vram_gb"] == 3.0
    with pytest.raises(InvalidConfigError, match="days"):
        tracker.get_performance_trend("slower", days=0)
    with pytest.raises(InvalidConfigError, match="name"):
        tracker.track_performance(" ", metrics)
