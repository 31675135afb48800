from __future__ import annotations

import json
import zipfile
from pathlib import Path

import pytest

from dream_cad.cli import run
from dream_cad.mesh.export import export_mesh
from dream_cad.models.factory import register_model
from tests.conftest import SetSettings
from tests.unit.cli.stub_model import Tetrahedron
from tests.unit.mesh.shapes import sphere

Capture = pytest.CaptureFixture[str]


def test_a_file_becomes_a_package(tmp_path: Path, capsys: Capture) -> None:
    mesh = export_mesh(sphere(2), tmp_path / "round-thing.glb")
    assert run(["package", str(mesh), "--profile", "print-fdm", "--size", "50", "--json"]) == 0
    made = json.loads(capsys.readouterr().out)
    assert made["path"] == str(tmp_path / "round-thing-print-fdm.zip")
    assert max(made["size"]) == pytest.approx(50)
    with zipfile.ZipFile(made["path"]) as archive:
        assert archive.namelist()[:2] == ["round-thing.stl", "round-thing.3mf"]


def test_the_zip_and_its_names_can_be_chosen(tmp_path: Path, capsys: Capture) -> None:
    mesh = export_mesh(sphere(1), tmp_path / "x.ply")
    target = tmp_path / "new" / "out.zip"
    assert run(["package", str(mesh), "-o", str(target), "--name", "A ball"]) == 0
    assert capsys.readouterr().out == f"{target}\n"
    with zipfile.ZipFile(target) as archive:
        assert archive.namelist()[0] == "ball.glb"


def test_wrong_profiles_and_files_are_refused(tmp_path: Path, capsys: Capture) -> None:
    mesh = export_mesh(sphere(1), tmp_path / "x.ply")
    assert run(["package", str(mesh), "--profile", "godot"]) == 2
    assert "unity-mobile-prop" in capsys.readouterr().err
    assert run(["package", str(tmp_path / "none.glb")]) == 1
    assert list(tmp_path.glob("*.zip")) == []


def test_generate_makes_the_package_too(
    clean_registry: None, set_settings: SetSettings, tmp_path: Path
) -> None:
    register_model("tetrahedron")(Tetrahedron)
    set_settings(default_model="tetrahedron")
    target = tmp_path / "x.glb"
    flags = ["--profile", "print-fdm", "--profile-size", "80"]
    assert run(["generate", "a red pyramid", "-o", str(target), *flags]) == 0
    assert target.is_file()
    with zipfile.ZipFile(tmp_path / "x-print-fdm.zip") as archive:
        manifest = json.loads(archive.read("manifest.json"))
    assert manifest["name"] == "RedPyramid"
    assert max(manifest["size"]) == pytest.approx(80)
    assert run(["generate", "a pyramid", "-o", str(target), "--profile", "x"]) == 2
