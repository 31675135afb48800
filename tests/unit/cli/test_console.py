"""Progress of the commands: bars on a terminal, nothing elsewhere."""

from __future__ import annotations

import pytest

from dream_cad.cli.console import download_bar, generation_bar


def generate() -> None:
    with generation_bar() as advance:
        advance(0.4, "denoise 12/30")


def download() -> None:
    with download_bar() as bar:
        bar.update(bar.add_task("model.safetensors", total=4_000_000), completed=1_000_000)


@pytest.mark.parametrize(
    ("work", "said"), [(generate, ("denoise 12/30", "40%")), (download, ("model.safe", "1.0/4.0"))]
)
def test_a_terminal_shows_stage_and_share(
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    work: object,
    said: tuple[str, ...],
) -> None:
    monkeypatch.setenv("FORCE_COLOR", "1")
    monkeypatch.setenv("COLUMNS", "140")
    assert callable(work)
    work()
    found = capsys.readouterr()
    assert all(text in found.err for text in said)
    assert found.out == ""  # what a program reads stays clean


@pytest.mark.parametrize("work", [generate, download])
def test_elsewhere_nothing_moves(capsys: pytest.CaptureFixture[str], work: object) -> None:
    assert callable(work)
    work()
    assert capsys.readouterr() == ("", "")
