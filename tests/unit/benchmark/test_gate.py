from __future__ import annotations

from pathlib import Path

import pytest

from dream_cad.benchmark import BenchmarkResult
from dream_cad.benchmark.comparison import comparison_page
from dream_cad.benchmark.gate import baseline_path, check_baseline, write_baseline
from dream_cad.benchmark.records import CaseRecord, device_name, summarize_records
from dream_cad.benchmark.suites import text_cases
from dream_cad.exceptions import FileFormatError, InvalidConfigError
from tests.unit.benchmark.test_tracking import MESH

GOOD = {"success_rate": 1.0, "generation_time_seconds": 2.0, "quality/overall_mesh_quality": 90.0}
CASES = text_cases("smoke")


def record(model: str, number: int, seconds: float, *, success: bool = True) -> CaseRecord:
    metrics = {"generation_time_seconds": seconds} if success else {}
    return CaseRecord(
        model,
        CASES[number],
        success,
        metrics,
        [seconds] if success else [],
        None if success else "GenerationError: <no>",
        "cpu",
    )


@pytest.fixture
def baseline(tmp_path: Path) -> Path:
    path = baseline_path(tmp_path, "NVIDIA H100 80GB HBM3", "smoke")
    write_baseline(path, {"a": {**GOOD, "cases": 6.0}, "b": GOOD}, {"suite": "smoke"})
    return path


def failing(path: Path, **changed: float) -> list[str]:
    found = GOOD | {name.replace("__", "/"): value for name, value in changed.items()}
    return [check.metric for check in check_baseline(path, {"a": found}) if not check.is_passed]


def test_small_changes_pass_and_regressions_do_not(baseline: Path) -> None:
    assert baseline.name == "nvidia-h100-80gb-hbm3--smoke.json"
    assert failing(baseline) == []
    assert failing(baseline, generation_time_seconds=2.49, quality__overall_mesh_quality=88.5) == []
    assert failing(baseline, generation_time_seconds=2.6) == ["generation_time_seconds"]
    assert failing(baseline, generation_time_seconds=0.1, success_rate=0.99) == ["success_rate"]
    assert failing(baseline, generation_time_seconds=float("nan")) == ["generation_time_seconds"]


def test_what_is_missing_now_is_a_regression_and_other_models_are_left_out(baseline: Path) -> None:
    checks = check_baseline(baseline, {"a": {"success_rate": 1.0}})
    assert [check.is_passed for check in checks] == [True, False, False]
    assert "REGRESSION: a generation_time_seconds: missing" in str(checks[1])
    assert {check.model for check in checks} == {"a"}


def test_unusable_baselines_are_told(baseline: Path, tmp_path: Path) -> None:
    with pytest.raises(InvalidConfigError, match="--write-baseline"):
        check_baseline(tmp_path / "none.json", {"a": GOOD})
    with pytest.raises(InvalidConfigError, match="knows none of c"):
        check_baseline(baseline, {"c": GOOD})
    baseline.write_text('{"models": 3}')
    with pytest.raises(FileFormatError):
        check_baseline(baseline, {"a": GOOD})


def test_records_survive_json_and_are_summarized() -> None:
    records = [record("a", 0, 1.0), record("a", 1, 3.0), record("a", 2, 0, success=False)]
    assert [CaseRecord.from_dict(one.to_dict()) for one in records] == records
    found = summarize_records([*records, record("b", 0, 5.0)])
    assert found["a"]["success_rate"] == pytest.approx(2 / 3)
    assert found["a"]["generation_time_seconds"] == 2.0
    assert found["a"]["generation_time_p95_seconds"] == pytest.approx(2.9)
    assert found["b"]["cases"] == 1
    assert "truth/chamfer" not in found["a"]


def test_devices_are_named_by_what_did_the_work() -> None:
    def device(**facts: object) -> str:
        return device_name(BenchmarkResult("m", "p", True, 1.0, 0.0, 0.0, environment=facts))

    assert device(gpu="H100", device="cuda:0", cpu="Xeon", cores=8) == "H100"
    assert device(gpu="H100", device="cpu", cpu="Xeon", cores=8) == "Xeon, 8 cores"
    assert device() == "cpu"


def test_the_comparison_has_a_row_for_each_prompt_and_a_column_for_each_model() -> None:
    records = [record("a", 0, 1.0), record("a", 1, 0, success=False), record("b", 0, 5.0)]
    html = comparison_page("smoke", records, lambda one: MESH if one.success else None)
    assert html.count('class="stage"') == 2
    assert html.count('type="model/gltf-binary"') == 2
    assert "GenerationError: &lt;no&gt;" in html
    assert html.count("<td>–</td>") == 1  # b has not done the second prompt
    assert "seconds 5" in html
    assert CASES[0].prompt in html
