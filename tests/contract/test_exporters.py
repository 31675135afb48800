"""Every exporter, on every kind of appearance: what it carries comes back."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import trimesh

from dream_cad.mesh.color import sample_texture
from dream_cad.mesh.data import MeshData
from dream_cad.mesh.export import FORMATS, export_mesh, load_mesh, mesh_bytes
from tests.unit.mesh.shapes import checker, colored_sphere, sphere, textured_quad

MESHES = {
    "bare": sphere(2),
    "colored": replace(colored_sphere(2), extras={"seed": 3}),
    "textured": textured_quad(checker(), materials={"metallic": 0.25, "roughness": 0.5}),
}

pytestmark = [
    pytest.mark.parametrize("format", FORMATS),
    pytest.mark.parametrize("mesh", [pytest.param(m, id=name) for name, m in MESHES.items()]),
]


def test_geometry_comes_back(tmp_path: Path, mesh: MeshData, format: str) -> None:
    loaded = load_mesh(export_mesh(mesh, tmp_path / f"mesh.{format}"))
    assert loaded.vertices.dtype == np.float32
    assert loaded.faces.dtype == np.int32
    if format == "stl":  # has no shared vertices: their order is not kept, the triangles are
        corners = np.sort(loaded.vertices[loaded.faces].reshape(len(loaded.faces), -1), axis=0)
        expected = np.sort(mesh.vertices[mesh.faces].reshape(len(mesh.faces), -1), axis=0)
        np.testing.assert_allclose(corners, expected, atol=1e-6)
    else:
        np.testing.assert_allclose(loaded.vertices, mesh.vertices, atol=1e-6)
        assert np.array_equal(loaded.faces, mesh.faces)


def test_appearance_comes_back(tmp_path: Path, mesh: MeshData, format: str) -> None:
    loaded = load_mesh(export_mesh(mesh, tmp_path / f"mesh.{format}"))
    has_texture = mesh.texture is not None
    if format == "stl":
        assert loaded.vertex_colors is None
        assert loaded.texture is None
    elif has_texture and format in ("obj", "glb"):
        assert mesh.uv_coords is not None
        assert np.array_equal(loaded.texture, mesh.texture)
        np.testing.assert_allclose(loaded.uv_coords, mesh.uv_coords, atol=1e-6)
        assert loaded.vertex_colors is None
    elif has_texture:
        expected = sample_texture(mesh.texture, mesh.uv_coords)
        assert np.array_equal(loaded.vertex_colors, expected)
    else:
        assert np.array_equal(loaded.vertex_colors, mesh.vertex_colors) or (
            loaded.vertex_colors is None and mesh.vertex_colors is None
        )


def test_material_and_receipt_come_back(tmp_path: Path, mesh: MeshData, format: str) -> None:
    loaded = load_mesh(export_mesh(mesh, tmp_path / f"mesh.{format}"))
    if format == "glb":
        assert loaded.extras == mesh.extras
        expected = mesh.materials or {"metallic": 0.0, "roughness": 0.9}
        assert loaded.materials == pytest.approx(expected)
    else:
        assert loaded.extras == {}


def test_normals_point_outwards(mesh: MeshData, format: str) -> None:
    if format == "stl":
        count = int.from_bytes(mesh_bytes(mesh, format)[80:84], "little")
        assert count == len(mesh.faces)
        return
    content = mesh_bytes(mesh, format)
    stream = trimesh.util.wrap_as_stream(content)
    if format == "obj":
        stream = trimesh.util.wrap_as_stream(content.decode())
    (loaded,) = trimesh.load_scene(stream, file_type=format, process=False).geometry.values()
    assert "vertex_normals" in loaded._cache
    direction = mesh.vertices * 2 if mesh.texture is None else np.array([[0, 0, 1]])
    assert (loaded.vertex_normals * direction).sum(axis=1).min() > 0.95


def test_bytes_equal_the_file(tmp_path: Path, mesh: MeshData, format: str) -> None:
    if format == "obj" and mesh.texture is not None:
        return  # the file refers to its material, the bytes carry colours
    path = export_mesh(mesh, tmp_path / f"mesh.{format}")
    assert path.read_bytes() == mesh_bytes(mesh, format)
