from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import trimesh

from dream_cad.exceptions import FileFormatError, StorageError
from dream_cad.mesh.export import mesh_bytes
from dream_cad.mesh.loading import load_mesh
from tests.unit.mesh.shapes import sphere


def test_missing_file_is_a_storage_error(tmp_path: Path) -> None:
    with pytest.raises(StorageError, match="could not be read"):
        load_mesh(tmp_path / "none.glb")


def test_unknown_suffix_names_the_legal_ones(tmp_path: Path) -> None:
    with pytest.raises(FileFormatError, match="obj, ply, stl, glb"):
        load_mesh(tmp_path / "a.fbx")


@pytest.mark.parametrize("format", ["glb", "ply", "stl", "obj"])
def test_garbage_is_a_format_error(tmp_path: Path, format: str) -> None:
    path = tmp_path / f"garbage.{format}"
    path.write_bytes(b"\x00\x01garbage" * 30)
    with pytest.raises(FileFormatError):
        load_mesh(path)


def test_truncated_glb_is_a_format_error(tmp_path: Path) -> None:
    path = tmp_path / "cut.glb"
    path.write_bytes(mesh_bytes(sphere(), "glb")[:200])
    with pytest.raises(FileFormatError, match="cut short"):
        load_mesh(path)


def test_scenes_are_flattened_with_their_transforms(tmp_path: Path) -> None:
    scene = trimesh.Scene()
    for x in (-2.0, 3.0):
        move = trimesh.transformations.translation_matrix((x, 0, 0))
        scene.add_geometry(trimesh.creation.box((1, 1, 1)), transform=move)
    path = tmp_path / "two.glb"
    path.write_bytes(scene.export(file_type="glb"))
    mesh = load_mesh(path)
    assert len(mesh.faces) == 24
    assert mesh.vertices[:, 0].min() == pytest.approx(-2.5)
    assert mesh.vertices[:, 0].max() == pytest.approx(3.5)


def test_a_single_moved_geometry_is_placed(tmp_path: Path) -> None:
    move = trimesh.transformations.translation_matrix((5, 0, 0))
    scene = trimesh.Scene()
    scene.add_geometry(trimesh.creation.box((1, 1, 1)), transform=move)
    path = tmp_path / "one.glb"
    path.write_bytes(scene.export(file_type="glb"))
    assert load_mesh(path).vertices[:, 0].mean() == pytest.approx(5)


def test_stl_corners_are_merged(tmp_path: Path) -> None:
    mesh = sphere(2)
    path = tmp_path / "ball.stl"
    path.write_bytes(mesh_bytes(mesh, "stl"))
    loaded = load_mesh(path)
    assert loaded.vertices.shape == mesh.vertices.shape
    assert loaded.vertices.dtype == np.float32
    assert loaded.faces.dtype == np.int32
