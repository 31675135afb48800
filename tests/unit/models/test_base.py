from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from dream_cad.exceptions import FileFormatError, ModelNotFoundError, StorageError
from dream_cad.mesh.export import load_mesh
from dream_cad.models.base import (
    GenerationResult,
    Model3D,
    ModelCapabilities,
    ignore_progress,
)
from dream_cad.models.factory import register_model
from tests.unit.cli.stub_model import Tetrahedron

pytestmark = pytest.mark.usefixtures("clean_registry")


@pytest.fixture
def result() -> GenerationResult:
    made = Tetrahedron().generate_from_text("a chair")
    made.vertex_colors = np.array(
        [[255, 0, 0], [0, 255, 0], [0, 0, 255], [255, 255, 255]], dtype=np.uint8
    )
    return made


def test_documented_attributes_and_their_defaults() -> None:
    bare = GenerationResult(np.zeros((3, 3), np.float32), np.array([[0, 1, 2]], np.int32))
    assert (bare.vertex_colors, bare.uv_coords, bare.texture, bare.materials) == (None,) * 4
    assert (bare.metadata, bare.generation_time, bare.model_name) == ({}, 0.0, "")
    other = GenerationResult(bare.vertices, bare.faces)
    other.metadata["seed"] = 1
    assert bare.metadata == {}


def test_mesh_shares_the_arrays(result: GenerationResult) -> None:
    mesh = result.to_mesh()
    assert mesh.vertices is result.vertices
    assert mesh.faces is result.faces
    assert mesh.vertex_colors is result.vertex_colors
    assert mesh.extras == {"prompt": "a chair"}


@pytest.mark.parametrize("format", ["obj", "ply", "stl", "glb"])
def test_save_infers_the_format_from_the_path(
    result: GenerationResult, tmp_path: Path, format: str
) -> None:
    path = result.save(tmp_path / f"mesh.{format}")
    assert path == str(tmp_path / f"mesh.{format}")
    again = load_mesh(Path(path))
    assert len(again.faces) == 4
    assert np.allclose(np.ptp(again.vertices, axis=0), 1.0)


def test_files_are_saved_under_their_names(result: GenerationResult, tmp_path: Path) -> None:
    assert result.save_files(tmp_path) == [str(tmp_path / name) for name in result.files]
    result.files = {"splats.ply": b"ply", "views.png": b"png"}
    paths = result.save_files(tmp_path / "new")
    assert [Path(path).read_bytes() for path in paths] == [b"ply", b"png"]
    (tmp_path / "file").touch()
    with pytest.raises(StorageError, match="could not be written"):
        result.save_files(tmp_path / "file")


def test_a_given_format_is_taken(result: GenerationResult, tmp_path: Path) -> None:
    path = Path(Tetrahedron().save(result, str(tmp_path / "mesh.glb"), format="glb"))
    assert path.read_bytes().startswith(b"glTF")


def test_save_of_an_unknown_format(result: GenerationResult, tmp_path: Path) -> None:
    with pytest.raises(FileFormatError, match="glb"):
        result.save(tmp_path / "mesh.docx")
    with pytest.raises(FileFormatError):
        result.save(tmp_path / "mesh.glb", format="exe")
    assert list(tmp_path.iterdir()) == []


def test_save_where_nothing_can_be_written(result: GenerationResult, tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(StorageError):
        result.save(tmp_path / "file" / "mesh.glb")


@pytest.mark.parametrize(("views", "size"), [(1, 32), (4, 64)])
def test_preview_is_a_sheet_of_views(result: GenerationResult, views: int, size: int) -> None:
    sheet = result.preview(views=views, size=size)
    assert (sheet.mode, sheet.size) == ("RGB", (views * size, size))
    assert len(set(sheet.get_flattened_data())) > 3  # background and several shades


def test_model_is_abstract() -> None:
    with pytest.raises(TypeError, match="abstract"):
        Model3D("name")  # type: ignore[abstract]


def test_model_facts_and_life() -> None:
    capabilities = ModelCapabilities(0.0, 0.0, license_type="MIT")
    register_model("tetrahedron", capabilities)(Tetrahedron)
    model = Tetrahedron(colour="red")
    assert (model.name, model.is_loaded, model.config) == ("tetrahedron", False, {"colour": "red"})
    assert model.capabilities == capabilities
    model.load_model()
    assert model.is_loaded
    model.unload_model()
    assert not model.is_loaded


def test_unloads_when_the_block_fails() -> None:
    model = Tetrahedron()
    model.load_model()
    with pytest.raises(ZeroDivisionError), model:
        raise ZeroDivisionError
    assert not model.is_loaded


def test_capabilities_of_a_class_that_was_never_registered() -> None:
    with pytest.raises(ModelNotFoundError):
        _ = Tetrahedron().capabilities


def test_options_model_is_optional() -> None:
    assert Model3D.options_model() is None


def test_ignored_progress_does_nothing() -> None:
    ignore_progress(0.5, "stage")
