from __future__ import annotations

import itertools

import pytest

from dream_cad.models.profile import StageClock, part_of


def test_seconds_add_up_by_stage() -> None:
    ticks = itertools.count()
    clock = StageClock(now=lambda: float(next(ticks)))
    for name in ("encode", "surface", "encode"):
        with clock.stage(name):
            pass
    assert clock.seconds == {"encode": 2.0, "surface": 1.0}


def test_failed_stages_count_too() -> None:
    clock = StageClock(now=iter([1.0, 4.0]).__next__)
    with pytest.raises(ValueError, match="broken"), clock.stage("encode"):
        raise ValueError("broken")
    assert clock.seconds == {"encode": 3.0}


def test_part_of_progress_is_scaled_and_clamped() -> None:
    seen: list[tuple[float, str]] = []
    report = part_of(lambda fraction, stage: seen.append((fraction, stage)), 0.5, 0.75)
    for fraction in (-1.0, 0.0, 0.5, 2.0):
        report(fraction, "draw")
    assert seen == [(0.5, "draw"), (0.5, "draw"), (0.625, "draw"), (0.75, "draw")]
