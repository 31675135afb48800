from __future__ import annotations

import json
import os
import shutil
import subprocess
from pathlib import Path

import DracoPy
import numpy as np
import pytest
import trimesh

from dream_cad.exceptions import FileFormatError
from dream_cad.mesh.data import MeshData
from dream_cad.mesh.export import mesh_bytes
from dream_cad.mesh.loading import load_mesh
from dream_cad.profiles.draco import EXTENSION, compress
from dream_cad.profiles.glb_parts import joined, named, read_glb
from tests.unit.mesh.gltf import needs_validator, problems, validate
from tests.unit.mesh.shapes import checker, colored_sphere, sphere
from tests.unit.mesh.test_gltf_validator import unwrapped_sphere

FLAT = np.full((8, 8, 3), (128, 128, 255), np.uint8)
MAPS = unwrapped_sphere(normal_texture=FLAT, metallic_roughness_texture=checker(8, 8))
MESHES = {"geometry": sphere(2), "colours": colored_sphere(2), "maps": MAPS}
_NODE = Path(__file__).parents[3] / "build" / "node" / "node_modules"
_READER = """
const draco = require('draco3d'), input = require('fs').readFileSync(0);
draco.createDecoderModule({}).then(lib => {
  const length = input.readUInt32LE(12), tree = JSON.parse(input.slice(20, 20 + length));
  const used = tree.meshes[0].primitives[0].extensions.KHR_draco_mesh_compression;
  const view = tree.bufferViews[used.bufferView], start = 28 + length + view.byteOffset;
  const blob = new Int8Array(input.slice(start, start + view.byteLength));
  const buffer = new lib.DecoderBuffer(), mesh = new lib.Mesh(), decoder = new lib.Decoder();
  buffer.Init(blob, blob.length);
  if (!decoder.DecodeBufferToMesh(buffer, mesh).ok()) throw new Error('not decoded');
  const values = {};
  for (const [name, id] of Object.entries(used.attributes)) {
    const attribute = decoder.GetAttributeByUniqueId(mesh, id), got = new lib.DracoFloat32Array();
    decoder.GetAttributeFloatForAllPoints(mesh, attribute, got);
    values[name] = Array.from({length: got.size()}, (_, i) => got.GetValue(i));
  }
  process.stdout.write(JSON.stringify({faces: mesh.num_faces(), values}));
});
"""


def bounds(content: bytes, tmp_path: Path) -> np.ndarray:
    path = tmp_path / "x.glb"
    path.write_bytes(content)
    return np.asarray(trimesh.load_scene(path).bounds)


def blob_of(content: bytes) -> tuple[bytes, dict[str, int]]:
    parts = read_glb(content)
    used = parts.tree["meshes"][0]["primitives"][0]["extensions"][EXTENSION]
    return parts.view(used["bufferView"]), used["attributes"]


def test_names_are_seen_by_importers() -> None:
    tree = read_glb(named(mesh_bytes(MESHES["maps"], "glb"), "SM_Chair")).tree
    assert tree["meshes"][0]["name"] == "SM_Chair"
    assert [node["name"] for node in tree["nodes"] if "mesh" in node] == ["SM_Chair"]
    assert tree["materials"][0]["name"] == "M_SM_Chair"


@needs_validator
def test_joined_files_hold_all_meshes_in_place(tmp_path: Path) -> None:
    moved = MeshData(sphere(1).vertices + np.float32(2), sphere(1).faces)
    contents = {"A": mesh_bytes(MAPS, "glb"), "B": mesh_bytes(moved, "glb")}
    contents["C"] = mesh_bytes(unwrapped_sphere(roughness=0.5), "glb")
    whole = joined(contents)
    assert problems(whole) == []
    info = validate(whole)["info"]
    assert info["totalTriangleCount"] == 2 * len(MAPS.faces) + 80
    assert bounds(whole, tmp_path) == pytest.approx(np.array([[-0.5] * 3, [2.5] * 3]), abs=1e-3)
    tree = read_glb(whole).tree
    assert [mesh["name"] for mesh in tree["meshes"]] == ["A", "B", "C"]
    assert tree["asset"]["extras"] == {"seed": 7, "nested": {"list": [1, None]}}


@pytest.mark.parametrize("name", MESHES)
def test_compressed_geometry_is_the_same(name: str) -> None:
    mesh = MESHES[name]
    blob, ids = blob_of(compress(mesh_bytes(mesh, "glb")))
    decoded = DracoPy.decode(blob)
    assert len(decoded.faces) == len(mesh.faces)
    was = np.sort(mesh.vertices[mesh.faces].mean(axis=1), axis=0)
    now = np.sort(decoded.points[decoded.faces].mean(axis=1), axis=0)
    assert np.abs(was - now).max() < 2e-4
    kinds = {"geometry": set(), "colours": {"COLOR_0"}, "maps": {"TEXCOORD_0", "TANGENT"}}
    assert ids.keys() == {"POSITION", "NORMAL"} | kinds[name]


@needs_validator
@pytest.mark.parametrize("name", MESHES)
def test_compressed_files_are_valid(name: str) -> None:
    content = compress(mesh_bytes(MESHES[name], "glb"))
    assert problems(content) == []
    assert validate(content)["info"]["extensionsRequired"] == [EXTENSION]


@pytest.mark.skipif(
    shutil.which("node") is None or not (_NODE / "draco3d").is_dir(),
    reason="node or its package draco3d is absent; `make setup` installs it where npm is",
)
def test_an_independent_reader_decodes_it() -> None:
    content = compress(mesh_bytes(MAPS, "glb"))
    done = subprocess.run(
        ["node", "-e", _READER],
        input=content,
        capture_output=True,
        check=True,
        timeout=60,
        env=os.environ | {"NODE_PATH": str(_NODE)},
    )
    found = json.loads(done.stdout)
    assert found["faces"] == len(MAPS.faces)
    points = np.array(found["values"]["POSITION"]).reshape(-1, 3)
    uvs = np.array(found["values"]["TEXCOORD_0"]).reshape(-1, 2)
    assert len(found["values"]["TANGENT"]) == 4 * len(points)
    assert MAPS.uv_coords is not None
    top_left = MAPS.uv_coords * [1, -1] + [0, 1]  # glTF's v grows downwards
    both = np.column_stack([points, uvs])
    wanted = np.column_stack([MAPS.vertices, top_left])
    far = np.linalg.norm(both[:, None] - wanted[None], axis=2).min(axis=1)
    assert far.max() < 1e-3


def test_base_colours_become_jpeg_and_other_maps_stay(tmp_path: Path) -> None:
    noise = np.random.default_rng(0).integers(0, 255, (64, 64, 3), dtype=np.uint8)
    smooth = np.asarray(np.kron(noise[:8, :8], np.ones((8, 8, 1))), dtype=np.uint8)
    mesh = unwrapped_sphere(normal_texture=noise)
    content = mesh_bytes(MeshData(mesh.vertices, mesh.faces, None, mesh.uv_coords, noise), "glb")
    images = read_glb(compress(content)).tree["images"]
    assert [image["mimeType"] for image in images] == ["image/jpeg"]
    maps = MeshData(
        mesh.vertices, mesh.faces, None, mesh.uv_coords, smooth, {"normal_texture": noise}
    )
    kinds = {
        image["mimeType"] for image in read_glb(compress(mesh_bytes(maps, "glb"))).tree["images"]
    }
    assert "image/png" in kinds


def test_damaged_files_are_refused(tmp_path: Path) -> None:
    content = mesh_bytes(sphere(1), "glb")
    for cut in (b"", content[:40], content[:-8]):
        with pytest.raises(FileFormatError):
            compress(cut)
    path = tmp_path / "same.glb"
    path.write_bytes(named(content, "X"))
    assert len(load_mesh(path).faces) == 80
