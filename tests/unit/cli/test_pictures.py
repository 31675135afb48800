from __future__ import annotations

from pathlib import Path

import pytest
import typer

from dream_cad.cli.pictures import first_picture, read_pictures


def test_one_several_or_by_view() -> None:
    assert read_pictures(None) is None
    assert read_pictures(["a.png"]) == Path("a.png")
    assert read_pictures(["a.png", "b.png"]) == [Path("a.png"), Path("b.png")]
    by_view = read_pictures(["front=a.png", "back=b.png"])
    assert by_view == {"front": Path("a.png"), "back": Path("b.png")}
    assert first_picture(by_view) == Path("a.png")
    assert first_picture(None) is None


def test_a_file_of_that_very_name_is_meant(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    Path("front=a.png").touch()
    assert read_pictures(["front=a.png"]) == Path("front=a.png")


@pytest.mark.parametrize("given", [["front=a.png", "b.png"], ["front=a.png", "front=b.png"]])
def test_half_named_pictures_are_refused(given: list[str]) -> None:
    with pytest.raises(typer.BadParameter, match="another view"):
        read_pictures(given)
