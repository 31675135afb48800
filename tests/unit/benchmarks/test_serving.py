"""What of benchmarks/serving.py can be wrong without a cluster: percentiles, starts, verdicts."""

from __future__ import annotations

from pathlib import Path

import pytest

from benchmarks.serving import LIMITS, figure, verdicts
from benchmarks.serving_load import percentiles
from benchmarks.serving_model import NoopModel
from benchmarks.serving_scenarios import Start, read_starts


def test_percentiles_are_of_the_sorted_times() -> None:
    times = [float(number) for number in range(100, 0, -1)]
    assert percentiles(times) == {"p50_ms": 51.0, "p99_ms": 100.0, "n": 100}
    assert percentiles([7.0]) == {"p50_ms": 7.0, "p99_ms": 7.0, "n": 1}


def test_the_model_notes_its_starts_in_order(tmp_path: Path) -> None:
    log = tmp_path / "log"
    model = NoopModel()
    assert read_starts(log) == []
    for prompt in ("low", "urgent 1"):
        result = model.generate_from_text(prompt, log=str(log))
    assert result.faces.shape == (1, 3)
    starts = read_starts(log)
    assert [start.prompt for start in starts] == ["low", "urgent 1"]
    assert starts == sorted(starts, key=lambda start: start.at)
    log.write_text("1.5 0.0")  # a line that is being written
    assert read_starts(log) == []
    log.write_text("1.5 0.02 a b\n")
    assert read_starts(log) == [Start(1.5, 0.02, "a b")]


@pytest.mark.parametrize("is_good", [True, False])
def test_each_figure_is_held_against_its_limit(is_good: bool) -> None:
    found: dict[str, dict[str, float]] = {}
    for name, (sign, limit) in LIMITS.items():
        section, _, key = name.partition(".")
        better = -0.01 if sign == "<=" else 0.01
        found.setdefault(section, {})[key] = limit + (better if is_good else -better)
    assert verdicts(found) == dict.fromkeys(LIMITS, is_good)
    assert verdicts({}) == {}
    assert figure(found, "claim.p50_ms") is None
