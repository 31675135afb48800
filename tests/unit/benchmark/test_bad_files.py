"""Files that are damaged, too large or hostile are refused with a reason, in bounded memory."""

from __future__ import annotations

import io
import json
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
from dream_cad.benchmark.mesh_files import MAX_FILE_BYTES
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


def write_five_million(path: Path) -> None:
    """Write a file of five million faces; sparse where the format allows, so it costs no disk."""
    count = 5_000_000
    with path.open("wb") as file:
        match path.suffix:
            case ".stl":
                file.write(b"\0" * 80 + struct.pack("<I", count))
                file.truncate(84 + 50 * count)
            case ".ply":
                head = f"element vertex 3\nelement face {count}\n"
                file.write(f"ply\nformat binary_little_endian 1.0\n{head}end_header\n".encode())
                file.truncate(36 + 13 * count)
            case ".off":
                file.write(f"OFF\n3 {count} 0\n".encode() + b"0 0 0\n" * 3)
                file.write(b"3 0 1 2\n" * count)
            case ".obj":
                file.write(b"v 0 0 0\nv 1 0 0\nv 0 1 0\n" + b"f 1 2 3\n" * count)
            case ".glb":
                file.write(glb_with_faces(count))


def glb_with_faces(count: int) -> bytes:
    indices, positions = 12 * count, 36
    document = {
        "asset": {"version": "2.0"},
        "buffers": [{"byteLength": indices + positions}],
        "bufferViews": [
            {"buffer": 0, "byteLength": indices},
            {"buffer": 0, "byteOffset": indices, "byteLength": positions},
        ],
        "accessors": [
            {"bufferView": 0, "componentType": 5125, "count": 3 * count, "type": "SCALAR"},
            {"bufferView": 1, "componentType": 5126, "count": 3, "type": "VEC3"},
        ],
        "meshes": [{"primitives": [{"attributes": {"POSITION": 1}, "indices": 0}]}],
        "nodes": [{"mesh": 0}],
        "scenes": [{"nodes": [0]}],
        "scene": 0,
    }
    text = json.dumps(document).encode()
    text += b" " * (-len(text) % 4)
    size = indices + positions
    head = struct.pack("<4sII", b"glTF", 2, 28 + len(text) + size)
    chunks = struct.pack("<I4s", len(text), b"JSON") + text + struct.pack("<I4s", size, b"BIN\0")
    return head + chunks + b"\0" * size


@pytest.mark.parametrize("kind", ["stl", "ply", "off", "obj", "glb"])
def test_five_million_faces(tmp_path: Path, kind: str) -> None:
    path = tmp_path / f"large.{kind}"
    write_five_million(path)
    size = path.stat().st_size
    message = refusal(path, peak=size + 20 * MEBIBYTE)  # no more than the file itself
    assert "5000000" in message


@pytest.mark.parametrize("line", [b"\n", b"# \n", b"v\n", b"f 1\n", b"s 1\n", b"vn\n"])
def test_an_obj_of_short_lines_is_refused_in_little_room(tmp_path: Path, line: bytes) -> None:
    path = tmp_path / "short.obj"
    content = b"v 0 0 0\nv 1 0 0\nv 0 1 0\n" + line * (MEBIBYTE // 2 // len(line))
    path.write_bytes(content)
    refusal(path, peak=4 * len(content))


def test_what_an_obj_says_in_vain_costs_no_room(tmp_path: Path) -> None:
    path = tmp_path / "airy.obj"
    triangle = b"v 0 0 0\nv 1 0 0\nv 0 1 0\n\tf  1   2 3 \r\n"
    content = triangle + b"\n# nothing\n" * (MEBIBYTE // 32)
    path.write_bytes(content)
    tracemalloc.start()
    try:
        assert QualityAssessor().assess_mesh_file(path).face_count == 1
        assert tracemalloc.get_traced_memory()[1] < 4 * len(content)
    finally:
        tracemalloc.stop()


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
