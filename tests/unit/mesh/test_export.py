from __future__ import annotations

import errno
import io
import itertools
import os
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from dream_cad.exceptions import (
    FileFormatError,
    InvalidConfigError,
    ShapeError,
    StorageError,
)
from dream_cad.mesh.data import MeshData
from dream_cad.mesh.export import FORMATS, export_mesh, load_mesh, mesh_bytes, resolve_format
from dream_cad.mesh.glb import read_glb_tree
from tests.unit.mesh.shapes import checker, colored_sphere, sphere, textured_quad


def test_format_comes_from_suffix_or_argument() -> None:
    assert resolve_format(Path("a/chair.GLB"), None) == "glb"
    assert resolve_format(Path("chair"), ".Ply") == "ply"
    assert resolve_format(Path("chair.obj"), "stl") == "stl"


@pytest.mark.parametrize(("path", "format"), [("a.fbx", None), ("a", None), ("a.glb", "usdz")])
def test_unknown_format_names_the_legal_ones(tmp_path: Path, path: str, format: str | None) -> None:
    with pytest.raises(FileFormatError, match="obj, ply, stl, glb") as caught:
        export_mesh(sphere(), tmp_path / path, format)
    assert caught.value.details["allowed"] == list(FORMATS)
    assert list(tmp_path.iterdir()) == []


def test_suffix_is_added_and_folders_are_made(tmp_path: Path) -> None:
    path = export_mesh(sphere(), tmp_path / "new" / "deep" / "ball", "stl")
    assert path == tmp_path / "new" / "deep" / "ball.stl"
    assert path.is_file()


def test_existing_file_is_replaced_whole(tmp_path: Path) -> None:
    path = tmp_path / "ball.glb"
    path.write_bytes(b"old")
    export_mesh(sphere(), path)
    assert len(load_mesh(path).faces) == len(sphere().faces)
    assert [entry.name for entry in tmp_path.iterdir()] == ["ball.glb"]


def test_full_disk_leaves_the_old_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "ball.glb"
    path.write_bytes(b"old")

    def full(descriptor: int) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(StorageError, match="No space left") as caught:
        export_mesh(sphere(), path)
    assert caught.value.retryable
    assert path.read_bytes() == b"old"
    assert [entry.name for entry in tmp_path.iterdir()] == ["ball.glb"]


def test_folder_that_is_a_file_is_a_storage_error(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(StorageError, match="could not be written"):
        export_mesh(sphere(), tmp_path / "file" / "ball.ply")


def test_textured_obj_brings_material_and_picture(tmp_path: Path) -> None:
    texture = checker()
    export_mesh(textured_quad(texture), tmp_path / "my quad.obj")
    names = sorted(entry.name for entry in tmp_path.iterdir())
    assert names == ["my quad.obj", "my_quad.mtl", "my_quad.png"]
    assert "mtllib my_quad.mtl" in (tmp_path / "my quad.obj").read_text()
    assert "map_Kd my_quad.png" in (tmp_path / "my_quad.mtl").read_text()
    assert np.array_equal(np.asarray(Image.open(tmp_path / "my_quad.png")), texture)


def test_obj_brings_the_pbr_maps_that_mtl_can_name(tmp_path: Path) -> None:
    packed, bumps = checker(4, 4), checker(6, 6)
    materials = {
        "roughness": 0.4,
        "metallic": 0.1,
        "normal_texture": bumps,
        "metallic_roughness_texture": packed,
    }
    export_mesh(textured_quad(checker(), materials=materials), tmp_path / "q.obj")
    lines = (tmp_path / "q.mtl").read_text().splitlines()
    for line in ("Pr 0.40000000", "Pm 0.10000000", "norm q_normal.png"):
        assert line in lines
    assert "map_Pr q_roughness.png" in lines
    assert np.array_equal(np.asarray(Image.open(tmp_path / "q_roughness.png")), packed[..., 1])
    assert np.array_equal(np.asarray(Image.open(tmp_path / "q_metallic.png")), packed[..., 2])
    assert np.array_equal(np.asarray(Image.open(tmp_path / "q_normal.png")), bumps)
    assert load_mesh(tmp_path / "q.obj").texture is not None


def test_obj_bytes_carry_colours_inline() -> None:
    lines = mesh_bytes(colored_sphere(), "obj").decode().splitlines()
    vertex = next(line for line in lines if line.startswith("v ")).split()
    assert len(vertex) == 7
    assert all(0 <= float(value) <= 1 for value in vertex[4:])
    texture = np.full((4, 4, 3), (255, 0, 51), dtype=np.uint8)
    lines = mesh_bytes(textured_quad(texture), "obj").decode().splitlines()
    vertex = next(line for line in lines if line.startswith("v ")).split()
    assert [float(value) for value in vertex[4:]] == pytest.approx([1.0, 0.0, 0.2])


def test_glb_colours_are_linear_16_bit() -> None:
    mesh = sphere(1)
    colors = np.full((len(mesh.vertices), 3), (188, 0, 255), dtype=np.uint8)
    content = mesh_bytes(MeshData(mesh.vertices, mesh.faces, vertex_colors=colors), "glb")
    tree = read_glb_tree(content)
    attributes = tree["meshes"][0]["primitives"][0]["attributes"]
    accessor = tree["accessors"][attributes["COLOR_0"]]
    assert (accessor["componentType"], accessor["type"]) == (5123, "VEC4")
    assert accessor["normalized"] is True
    view = tree["bufferViews"][accessor["bufferView"]]
    json_length = int.from_bytes(content[12:16], "little")
    start = 20 + json_length + 8 + view["byteOffset"]
    rgba = np.frombuffer(content[start : start + view["byteLength"]], "<u2").reshape(-1, 4)
    assert len(rgba) == len(mesh.vertices)
    # sRGB 188 is 0.503 of the light, by the curve of IEC 61966-2-1.
    assert rgba[0] / 65_535 == pytest.approx([0.5029, 0.0, 1.0, 1.0], abs=1e-4)


def test_glb_carries_receipt_normals_and_plain_material() -> None:
    mesh = sphere()
    receipt = {"seed": 7, "nested": {"list": [1, "two", None]}}
    tree = read_glb_tree(mesh_bytes(MeshData(mesh.vertices, mesh.faces, extras=receipt), "glb"))
    assert tree["asset"]["extras"] == receipt
    assert tree["asset"]["version"] == "2.0"
    assert "NORMAL" in tree["meshes"][0]["primitives"][0]["attributes"]
    material = tree["materials"][0]["pbrMetallicRoughness"]
    assert material["metallicFactor"] == 0.0
    assert material["roughnessFactor"] == 0.9


def test_glb_maps_and_factors() -> None:
    pixels = checker(4, 4)
    materials = {"metallic": 0.25, "metallic_roughness_texture": pixels, "normal_texture": pixels}
    mesh = textured_quad(checker(), materials=materials)
    material = read_glb_tree(mesh_bytes(mesh, "glb"))["materials"][0]
    assert material["pbrMetallicRoughness"]["metallicFactor"] == 0.25
    assert material["pbrMetallicRoughness"]["roughnessFactor"] == 1.0
    assert "normalTexture" in material


@pytest.mark.parametrize("value", [-0.1, 1.5, float("nan"), "shiny"])
def test_glb_refuses_factors_out_of_range(value: object) -> None:
    with pytest.raises(InvalidConfigError, match="roughness"):
        mesh_bytes(textured_quad(checker(), materials={"roughness": value}), "glb")


@pytest.mark.parametrize("extras", [{"x": float("nan")}, {"x": object()}])
def test_glb_refuses_a_receipt_that_is_no_json(extras: dict[str, object]) -> None:
    mesh = sphere(1)
    with pytest.raises(InvalidConfigError, match="JSON"):
        mesh_bytes(MeshData(mesh.vertices, mesh.faces, extras=extras), "glb")


def test_glb_texture_is_upright() -> None:
    """glTF counts v from the top: the texel at v = 1 of ours is in row 0 of the picture."""
    content = mesh_bytes(textured_quad(checker()), "glb")
    tree = read_glb_tree(content)
    accessor = tree["accessors"][tree["meshes"][0]["primitives"][0]["attributes"]["TEXCOORD_0"]]
    view = tree["bufferViews"][accessor["bufferView"]]
    start = 20 + int.from_bytes(content[12:16], "little") + 8 + view["byteOffset"]
    stored = np.frombuffer(content[start : start + view["byteLength"]], "<f4").reshape(-1, 2)
    assert stored.tolist() == [[0, 1], [1, 1], [1, 0], [0, 0]]


def test_glb_is_laid_out_as_the_format_says() -> None:
    """Lengths add up, every view starts at a multiple of four, numbers come back bit for bit."""
    mesh = textured_quad(checker(3, 5), materials={"normal_texture": checker(7, 7)})
    content = mesh_bytes(mesh, "glb")
    assert int.from_bytes(content[8:12], "little") == len(content)
    start = 20 + int.from_bytes(content[12:16], "little")
    assert start % 4 == 0
    assert content[start + 4 : start + 8] == b"BIN\0"
    data = content[start + 8 :]
    tree = read_glb_tree(content)
    assert int.from_bytes(content[start : start + 4], "little") == len(data)
    assert tree["buffers"] == [{"byteLength": len(data)}]
    views = tree["bufferViews"]
    assert all(view["byteOffset"] % 4 == 0 for view in views)
    assert all(
        first["byteOffset"] + first["byteLength"] <= second["byteOffset"]
        for first, second in itertools.pairwise(views)
    )
    primitive = tree["meshes"][0]["primitives"][0]

    def stored(accessor: int, kind: str) -> np.ndarray:
        view = views[tree["accessors"][accessor]["bufferView"]]
        end = view["byteOffset"] + view["byteLength"]
        return np.frombuffer(data[view["byteOffset"] : end], kind)

    assert stored(primitive["indices"], "<u4").tolist() == mesh.faces.ravel().tolist()
    position = primitive["attributes"]["POSITION"]
    assert stored(position, "<f4").tolist() == mesh.vertices.ravel().tolist()
    assert tree["accessors"][position]["max"] == mesh.vertices.max(0).tolist()
    assert stored(primitive["attributes"]["TANGENT"], "<f4").size == 4 * len(mesh.vertices)
    pictures = [views[image["bufferView"]] for image in tree["images"]]
    sizes = [
        Image.open(io.BytesIO(data[view["byteOffset"] :][: view["byteLength"]])).size
        for view in pictures
    ]
    assert sizes == [(5, 3), (7, 7)]
    assert tree["materials"][0]["normalTexture"] == {"index": 1}
    assert tree["textures"] == [{"source": 0}, {"source": 1}]


@pytest.mark.parametrize("format", FORMATS)
def test_empty_and_broken_meshes_are_refused(format: str) -> None:
    mesh = sphere(1)
    nan = mesh.vertices.copy()
    nan[0, 0] = np.nan
    for broken in (
        MeshData(mesh.vertices, mesh.faces[:0]),
        MeshData(mesh.vertices[:3], mesh.faces),
        MeshData(nan, mesh.faces),
        MeshData(mesh.vertices[:, :2], mesh.faces),
        MeshData(mesh.vertices, mesh.faces.astype(np.float32)),
        MeshData(mesh.vertices, mesh.faces, vertex_colors=np.zeros((2, 3), np.uint8)),
        MeshData(mesh.vertices, mesh.faces, texture=checker()),
        MeshData(mesh.vertices, mesh.faces, materials={"normal_texture": checker()}),
        textured_quad(checker(), materials={"normal_texture": checker()[..., :2]}),
        textured_quad(checker(), materials={"metallic_roughness_texture": "gold"}),
        MeshData(
            mesh.vertices, mesh.faces, uv_coords=np.full((len(mesh.vertices), 2), np.nan, "f4")
        ),
    ):
        with pytest.raises(ShapeError):
            mesh_bytes(broken, format)
