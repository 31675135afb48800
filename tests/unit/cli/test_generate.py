from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from dream_cad.cli import run
from dream_cad.mesh.export import load_mesh
from dream_cad.models.factory import register_model
from tests.conftest import SetSettings
from tests.unit.cli.stub_model import Silent, Tetrahedron

Capture = pytest.CaptureFixture[str]


@pytest.fixture(autouse=True)
def tetrahedron(clean_registry: None, set_settings: SetSettings) -> None:
    register_model("tetrahedron")(Tetrahedron)
    register_model("silent")(Silent)
    set_settings(default_model="tetrahedron")


def receipt(capsys: Capture, *arguments: object) -> dict[str, Any]:
    assert run(["generate", *map(str, arguments), "--json"]) == 0
    found: dict[str, Any] = json.loads(capsys.readouterr().out)
    return found


def test_writes_the_mesh_and_prints_its_path(tmp_path: Path, capsys: Capture) -> None:
    target = tmp_path / "chair.glb"
    assert run(["generate", "a red chair", "-o", str(target)]) == 0
    output = capsys.readouterr()
    assert output.out == f"{target}\n"
    assert "4 faces" in output.err
    assert len(load_mesh(target).faces) == 4


def test_default_output_is_in_the_output_folder_and_never_overwrites(
    capsys: Capture, set_settings: SetSettings, tmp_path: Path
) -> None:
    set_settings(output_dir=tmp_path / "meshes")
    for name in ("a-red-chair.glb", "a-red-chair-2.glb"):
        assert run(["generate", "A red  chair!"]) == 0
        assert capsys.readouterr().out.strip() == str(tmp_path / "meshes" / name)
    assert run(["generate", "!!!", "--format", "ply"]) == 0
    assert capsys.readouterr().out.strip() == str(tmp_path / "meshes" / "mesh.ply")


def test_options_reach_the_model_with_their_types(tmp_path: Path, capsys: Capture) -> None:
    target = tmp_path / "x.obj"
    flags = ["--seed", 7, "--resolution", 16, "--guidance", 2.5, "--option", "scale=2"]
    found = receipt(capsys, "a chair", "-o", target, *flags)
    assert found["metadata"] == {
        "prompt": "a chair",
        "seed": 7,
        "resolution": 16,
        "guidance_scale": 2.5,
        "scale": 2.0,
    }
    assert (found["model"], found["faces"], found["path"]) == ("tetrahedron", 4, str(target))
    assert np.allclose(np.ptp(load_mesh(target).vertices, axis=0), 2.0)


def test_image_is_handed_on_as_a_path(tmp_path: Path, capsys: Capture) -> None:
    found = receipt(capsys, "--image", tmp_path / "in.png", "-o", tmp_path / "x.glb")
    assert found["metadata"] == {"image": str(tmp_path / "in.png")}


def test_files_beside_the_mesh_are_written_where_asked(tmp_path: Path, capsys: Capture) -> None:
    found = receipt(capsys, "x", "-o", tmp_path / "x.glb", "--files", tmp_path / "more")
    assert found["files"] == [str(tmp_path / "more" / "note.txt")]
    assert (tmp_path / "more" / "note.txt").read_bytes() == b"x"


def test_preview_is_written(tmp_path: Path, capsys: Capture) -> None:
    picture = tmp_path / "new" / "sheet.png"
    found = receipt(capsys, "x", "-o", tmp_path / "x.glb", "--preview", picture)
    assert found["preview"] == str(picture)
    assert picture.read_bytes().startswith(b"\x89PNG")


@pytest.mark.parametrize(
    ("arguments", "code", "message"),
    [
        ([], 2, "either a prompt or --image"),
        (["a chair", "--image", "x.png"], 2, "either a prompt or --image"),
        (["a\x00chair"], 2, "control character"),
        (["  "], 2, "prompt is empty"),
        (["x" * 100_000], 2, "at most 2000"),
        (["x", "--model", "tetra"], 1, "Did you mean 'tetrahedron'"),
        (["x", "--model", "trellis"], 1, "needs 16 GB of GPU memory"),
        (["x", "--model", "silent"], 1, "returned no result"),
        (["x", "--format", "docx"], 1, "docx"),
        (["x", "--resolution", "4096"], 2, "less than or equal to 64"),
        (["x", "--guidance", "nan"], 2, "finite number"),
        (["x", "--option", "scale=-1"], 2, "greater than 0"),
        (["x", "--option", "scale=tall"], 2, "'scale' is 'tall'"),
        (["x", "--option", "colour=red"], 2, "Options: seed, resolution, guidance_scale, scale"),
        (["x", "--texture"], 2, "no option 'texture'"),
        (["x", "--option", "scale"], 2, "not of the form name=value"),
        (["x", "--option", "=1"], 2, "not of the form name=value"),
        (["x", "--option", "scale=1", "--option", "scale=2"], 2, "comes twice"),
        (["x", "--seed", "1", "--option", "seed=2"], 2, "comes twice"),
        (["x", "--seed", "one"], 2, "valid integer"),
        (["x", "--no-such-flag"], 2, "No such option"),
    ],
)
def test_errors_are_one_or_two_lines_with_the_right_exit_code(
    capsys: Capture, arguments: list[str], code: int, message: str
) -> None:
    assert run(["generate", *arguments]) == code
    output = capsys.readouterr()
    assert output.out == ""
    assert message in output.err
    assert output.err.startswith("error: ")
    assert len(output.err.splitlines()) <= 2
    assert "Traceback" not in output.err


def test_unwritable_output_is_an_error(tmp_path: Path, capsys: Capture) -> None:
    (tmp_path / "file").write_text("in the way")
    assert run(["generate", "x", "-o", str(tmp_path / "file" / "x.glb")]) == 1
    assert capsys.readouterr().err.startswith("error: ")


def test_unwritable_preview_is_an_error(tmp_path: Path, capsys: Capture) -> None:
    (tmp_path / "file").write_text("in the way")
    arguments = ["-o", str(tmp_path / "x.glb"), "--preview", str(tmp_path / "file" / "x.png")]
    assert run(["generate", "x", *arguments]) == 1
    assert "preview could not be written" in capsys.readouterr().err


def test_debug_level_shows_the_traceback(capsys: Capture, set_settings: SetSettings) -> None:
    set_settings(log_level="debug")
    assert run(["generate", "x", "--model", "nothing"]) == 1
    assert "Traceback" in capsys.readouterr().err


@pytest.mark.parametrize("level", ["info", "debug"])
def test_a_fault_of_the_program_is_told_briefly(
    capsys: Capture, monkeypatch: pytest.MonkeyPatch, set_settings: SetSettings, level: str
) -> None:
    def fail(*args: object, **kwargs: object) -> None:
        raise RuntimeError("first line\nsecond line")

    set_settings(log_level=level)
    monkeypatch.setattr(Tetrahedron, "_make", fail)
    assert run(["generate", "x"]) == 1
    error = capsys.readouterr().err
    assert "error: Internal fault, RuntimeError: first line\n" in error
    assert ("Traceback" in error) is (level == "debug")


def test_bad_settings_are_named(
    capsys: Capture, monkeypatch: pytest.MonkeyPatch, set_settings: SetSettings
) -> None:
    set_settings()
    monkeypatch.setenv("DREAM_CAD_MAX_WORKERS", "0")
    from dream_cad.settings import get_settings

    get_settings.cache_clear()
    assert run(["models"]) == 2
    assert "DREAM_CAD_MAX_WORKERS is '0'" in capsys.readouterr().err
