"""Files that are damaged, too large or hostile are refused with a reason, in bounded memory."""

from __future__ import annotations

import io
import struct
import tracemalloc
import zipfile
from functools import lru_cache
from pathlib import Path

import numpy as np
import pytest
import trimesh
from PIL import Image

from dream_cad.benchmark import QualityAssessor
from dream_cad.benchmark.mesh_files import MAX_FACES, MAX_FILE_BYTES
from dream_cad.exceptions import DreamCadError, FileFormatError
from dream_cad.mesh.data import MeshData
from dream_cad.mesh.export import export_mesh

MEBIBYTE = 2**20
SPHERE = trimesh.creation.icosphere(2)
MESH = MeshData(np.asarray(SPHERE.vertices, np.float32), np.asarray(SPHERE.faces, np.int32))


def refusal(path: Path, *, peak: int = 64 * MEBIBYTE) -> str:
    """Assess the file, expect FileFormatError, and return its text."""
    tracemalloc.start()
    try:
        with pytest.raises(FileFormatError) as caught:
            QualityAssessor().assess_mesh_file(path)
        assert tracemalloc.get_traced_memory()[1] < peak
    finally:
        tracemalloc.stop()
    assert len(caught.value.message) > 20
    return caught.value.message


@lru_cache
def zip_bomb(size: int) -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("3D/3dmodel.model", b"\0" * size)
    return buffer.getvalue()


@pytest.mark.parametrize("suffix", ["3mf", "glb", "obj", "ply", "stl", "off"])
def test_zip_bombs_are_never_unpacked(tmp_path: Path, suffix: str) -> None:
    path = tmp_path / f"bomb.{suffix}"
    path.write_bytes(zip_bomb(200 * MEBIBYTE))
    assert path.stat().st_size < MEBIBYTE
    refusal(path)


def test_an_archive_is_refused_with_what_to_do(tmp_path: Path) -> None:
    path = tmp_path / "part.3mf"
    path.write_bytes(zip_bomb(100))
    with pytest.raises(FileFormatError, match=r"part\.3mf") as caught:
        QualityAssessor().assess_mesh_file(path)
    assert "save it as glb" in (caught.value.hint or "")


def test_five_million_faces(tmp_path: Path) -> None:
    path = tmp_path / "large.stl"
    with path.open("wb") as file:
        file.write(b"\0" * 80 + struct.pack("<I", 5_000_000))
        file.truncate(84 + 50 * 5_000_000)  # sparse: costs no disk
    assert str(MAX_FACES) in refusal(path, peak=300 * MEBIBYTE)


def test_a_file_over_the_limit_is_not_read(tmp_path: Path) -> None:
    path = tmp_path / "huge.ply"
    with path.open("wb") as file:
        file.truncate(MAX_FILE_BYTES + 1)
    assert "at most" in refusal(path, peak=MEBIBYTE)


def test_one_polygon_does_not_hide_millions_of_triangles(tmp_path: Path) -> None:
    path = tmp_path / "fan.obj"
    path.write_bytes(b"v 0 0 0\nv 1 0 0\nv 0 1 0\nf" + b" 1 2 3" * 700_000 + b"\n")
    assert "2099998 faces" in refusal(path, peak=512 * MEBIBYTE)


def test_decompression_bombs_in_textures(tmp_path: Path) -> None:
    picture = io.BytesIO()
    Image.new("1", (8_200, 8_200)).save(picture, "PNG")
    image = Image.open(picture)
    material = trimesh.visual.material.PBRMaterial(baseColorTexture=image)
    uv = np.zeros((len(SPHERE.vertices), 2))
    visual = trimesh.visual.TextureVisuals(uv=uv, material=material)
    mesh = trimesh.Trimesh(SPHERE.vertices, SPHERE.faces, visual=visual, process=False)
    path = tmp_path / "picture.glb"
    path.write_bytes(mesh.export(file_type="glb"))
    with pytest.raises(DreamCadError, match="at most"):
        QualityAssessor().assess_mesh_file(path)


@pytest.mark.parametrize("kind", ["glb", "ply", "stl", "obj"])
def test_files_cut_anywhere_never_crash(tmp_path: Path, kind: str) -> None:
    whole = export_mesh(MESH, tmp_path / f"whole.{kind}").read_bytes()
    path = tmp_path / f"cut.{kind}"
    for part in np.linspace(0, len(whole) - 4, 12).astype(int):
        path.write_bytes(whole[:part])
        try:
            metrics = QualityAssessor().assess_mesh_file(path)
        except FileFormatError:
            continue
        assert kind == "obj"  # a text file cut at a line is a smaller mesh
        assert metrics.face_count <= len(MESH.faces)


@pytest.mark.parametrize("kind", ["glb", "ply", "stl", "obj", "off"])
def test_noise_after_a_good_beginning_never_crashes(tmp_path: Path, kind: str) -> None:
    exported = SPHERE.export(file_type=kind)
    whole = exported.encode() if isinstance(exported, str) else exported
    generator = np.random.default_rng(0)
    path = tmp_path / f"noise.{kind}"
    for _ in range(12):
        damaged = bytearray(whole)
        for place in generator.integers(0, len(whole), 40):
            damaged[place] = int(generator.integers(256))
        path.write_bytes(damaged)
        try:
            metrics = QualityAssessor().assess_mesh_file(path)
        except FileFormatError:
            continue
        assert 0 <= metrics.overall_mesh_quality <= 100


def test_points_without_faces(tmp_path: Path) -> None:
    path = tmp_path / "points.ply"
    path.write_bytes(trimesh.PointCloud(SPHERE.vertices).export(file_type="ply"))
    assert "no triangles" in refusal(path)


def test_missing_and_folders(tmp_path: Path) -> None:
    assert "no file" in refusal(tmp_path / "missing.glb")
    (tmp_path / "folder.glb").mkdir()
    assert "no file" in refusal(tmp_path / "folder.glb")
