from __future__ import annotations

import io
import xml.etree.ElementTree as ET
import zipfile
from pathlib import Path

import numpy as np
import pytest
import trimesh

from dream_cad.exceptions import GenerationError
from dream_cad.mesh.data import MeshData
from dream_cad.profiles.printing import make_solid, write_3mf, write_stl
from tests.unit.mesh.shapes import from_trimesh, sphere, textured_quad, to_trimesh

_CORE = "{http://schemas.microsoft.com/3dmanufacturing/core/2015/02}"


def without(mesh: MeshData, keep: np.ndarray) -> MeshData:
    return MeshData(mesh.vertices, mesh.faces[keep])


def test_a_closed_body_stays_as_it_is() -> None:
    solid = make_solid(sphere(3), max_faces=10_000)
    assert (solid.repair, len(solid.mesh.faces)) == ("none", 1280)
    assert solid.volume == pytest.approx(4 / 3 * np.pi / 8, rel=0.02)


def test_a_body_turned_inside_out_is_turned_back() -> None:
    mesh = sphere(2)
    solid = make_solid(MeshData(mesh.vertices, mesh.faces[:, ::-1]), max_faces=10_000)
    assert solid.volume > 0
    assert to_trimesh(solid.mesh).volume == pytest.approx(solid.volume)


def test_a_small_hole_is_filled() -> None:
    mesh = sphere(2)
    solid = make_solid(without(mesh, np.arange(1, len(mesh.faces))), max_faces=10_000)
    assert (solid.repair, len(solid.mesh.faces)) == ("holes filled", len(mesh.faces))
    assert to_trimesh(solid.mesh).is_watertight


def test_a_broken_surface_is_rebuilt() -> None:
    mesh = sphere(3)
    torn = without(mesh, np.random.default_rng(0).random(len(mesh.faces)) > 0.1)
    solid = make_solid(torn, max_faces=20_000)
    assert solid.repair == "rebuilt from voxels"
    assert to_trimesh(solid.mesh).is_watertight
    assert len(solid.mesh.faces) <= 20_000
    assert solid.volume == pytest.approx(4 / 3 * np.pi / 8, rel=0.05)
    assert np.ptp(solid.mesh.vertices, axis=0) == pytest.approx(1, abs=0.02)


def test_what_encloses_nothing_gets_the_thickness_of_its_voxels_or_is_refused() -> None:
    sheet = make_solid(textured_quad(np.zeros((8, 8, 3), np.uint8)), max_faces=100_000)
    assert sheet.repair == "rebuilt from voxels"
    assert 0 < sheet.volume < 0.03
    point = MeshData(np.zeros((3, 3), np.float32), np.array([[0, 1, 2]], np.int32))
    with pytest.raises(GenerationError):
        make_solid(point, max_faces=100)


def test_stl_and_3mf_hold_the_body(tmp_path: Path) -> None:
    mesh = from_trimesh(trimesh.creation.box((10, 20, 30)))
    path = tmp_path / "box.stl"
    path.write_bytes(write_stl(mesh))
    read = trimesh.load_mesh(path)
    assert read.is_watertight
    assert read.volume == pytest.approx(6000)
    with zipfile.ZipFile(io.BytesIO(write_3mf(mesh, "a-box"))) as archive:
        assert set(archive.namelist()) == {"[Content_Types].xml", "_rels/.rels", "3D/3dmodel.model"}
        model = ET.fromstring(archive.read("3D/3dmodel.model"))
    assert model.get("unit") == "millimeter"
    vertices = [
        [float(vertex.attrib[axis]) for axis in "xyz"] for vertex in model.iter(f"{_CORE}vertex")
    ]
    faces = [
        [int(face.attrib[name]) for name in ("v1", "v2", "v3")]
        for face in model.iter(f"{_CORE}triangle")
    ]
    assert trimesh.Trimesh(vertices, faces, process=False).volume == pytest.approx(6000)
