from __future__ import annotations

import pytest

from jobs.batch.pipeline import Advance
from jobs.batch.progress import batch_bar


def test_a_terminal_shows_rows_rate_time_left_and_gpu(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("FORCE_COLOR", "1")
    monkeypatch.setenv("COLUMNS", "140")
    with batch_bar(10) as advance:
        advance(Advance(3, 0, None))
        advance(Advance(3, 1, 40.0))
    said = capsys.readouterr().err
    assert "7/10" in said
    assert "rows/s" in said
    assert "0:00" in said  # time left
    assert "GPU 40 %" in said


def test_elsewhere_nothing_moves(capsys: pytest.CaptureFixture[str]) -> None:
    with batch_bar(10) as advance:
        advance(Advance(10, 0, 40.0))
    assert "rows/s" not in capsys.readouterr().err
