from __future__ import annotations

from pathlib import Path

import pytest
from typer.testing import CliRunner

from dream_cad.cli import app, pull_stage


@pytest.fixture
def fetched(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> list[str]:
    """Sources fetched, from a hub that holds two files of each."""
    sources: list[str] = []

    def fetch(source: str, *, patterns: object) -> Path:
        sources.append(source)
        return tmp_path

    sizes = {"config.json": 100, "onnx/model.onnx": 224_000_000}
    monkeypatch.setattr(pull_stage, "list_repository", lambda source, patterns: sizes)
    monkeypatch.setattr(pull_stage, "download_repository", fetch)
    monkeypatch.setenv("DREAM_CAD_MATTING_MODEL", "owner/matting")
    monkeypatch.setenv("DREAM_CAD_TEXT_TO_IMAGE", "owner/drawing")
    return sources


@pytest.mark.parametrize(
    ("stage", "source"), [("matting", "owner/matting"), ("text-to-image", "owner/drawing")]
)
def test_stage_networks_are_fetched_after_their_sizes_are_shown(
    stage: str, source: str, fetched: list[str], tmp_path: Path
) -> None:
    result = CliRunner().invoke(app, ["pull", stage, "--yes"])
    assert result.exit_code == 0, result.output
    assert fetched == [source]
    assert "224.0 MB" in result.stderr
    assert result.stdout.strip() == str(tmp_path)


def test_nothing_is_fetched_without_a_yes(fetched: list[str]) -> None:
    result = CliRunner().invoke(app, ["pull", "matting"], input="n\n")
    assert result.exit_code != 0
    assert fetched == []


def test_folder_option_is_refused_for_stages(fetched: list[str], tmp_path: Path) -> None:
    result = CliRunner().invoke(app, ["pull", "matting", "--to", str(tmp_path), "--yes"])
    assert result.exit_code != 0
    assert fetched == []
