"""Every kind of GLB that we write, through the Khronos validator: no errors, no warnings."""

from __future__ import annotations

import numpy as np
import pytest

from dream_cad.mesh.data import MeshData
from dream_cad.mesh.export import mesh_bytes
from dream_cad.mesh.glb import read_glb_tree
from dream_cad.mesh.normals import vertex_normals
from dream_cad.mesh.unwrap import unwrap_uv
from tests.unit.mesh.gltf import needs_validator, problems, validate
from tests.unit.mesh.shapes import checker, colored_sphere, sphere, textured_quad

pytestmark = needs_validator


def unwrapped_sphere(**materials: object) -> MeshData:
    mesh = sphere(2)
    atlas = unwrap_uv(mesh.vertices, mesh.faces, texture_size=64, padding=2)
    return MeshData(
        mesh.vertices[atlas.vmapping],
        atlas.faces,
        uv_coords=atlas.uvs,
        texture=checker(64, 64),
        materials=dict(materials) or None,
        extras={"seed": 7, "nested": {"list": [1, None]}},
    )


FLAT = np.full((8, 8, 3), (128, 128, 255), np.uint8)
MESHES = {
    "geometry": sphere(2),
    "vertex colours": colored_sphere(),
    "texture": unwrapped_sphere(),
    "factors": unwrapped_sphere(metallic=0.25, roughness=1.0),
    "normal map": unwrapped_sphere(normal_texture=FLAT),
    "all maps": unwrapped_sphere(normal_texture=FLAT, metallic_roughness_texture=checker(8, 8)),
    "no base colour": textured_quad(None, materials={"normal_texture": FLAT}),
    "odd sizes": textured_quad(checker(7, 3)),
    "colours and texture": MeshData(
        *(lambda quad: (quad.vertices, quad.faces))(textured_quad(checker())),
        vertex_colors=np.zeros((4, 3), np.uint8),
        uv_coords=np.array([[0, 0], [1, 0], [1, 1], [0, 1]], np.float32),
        texture=checker(),
    ),
}


@pytest.mark.parametrize("name", MESHES)
def test_glb_is_valid(name: str) -> None:
    assert problems(mesh_bytes(MESHES[name], "glb")) == []


def test_ugly_geometry_is_valid() -> None:
    """Slivers, faces without area, vertices of no face, one UV point for all."""
    vertices = np.array([[0, 0, 0], [1, 0, 0], [2, 0, 0], [0, 1e-20, 0], [5, 5, 5]], np.float32)
    faces = np.array([[0, 1, 2], [0, 1, 3], [0, 0, 1]], np.int32)
    mesh = MeshData(
        vertices,
        faces,
        uv_coords=np.zeros((5, 2), np.float32),
        texture=checker(),
        materials={"normal_texture": FLAT},
    )
    assert problems(mesh_bytes(mesh, "glb")) == []


def test_validator_sees_a_broken_file() -> None:
    """The check itself must be able to fail."""
    content = bytearray(mesh_bytes(sphere(1), "glb"))
    length = int.from_bytes(content[12:16], "little")
    content[20 : 20 + length] = content[20 : 20 + length].replace(b'"VEC3"', b'"VEC4"', 1)
    assert validate(bytes(content))["issues"]["numErrors"] > 0


def test_normal_map_brings_its_tangents() -> None:
    mesh = MESHES["normal map"]
    content = mesh_bytes(mesh, "glb")
    tree = read_glb_tree(content)
    accessor = tree["accessors"][tree["meshes"][0]["primitives"][0]["attributes"]["TANGENT"]]
    view = tree["bufferViews"][accessor["bufferView"]]
    start = 20 + int.from_bytes(content[12:16], "little") + 8 + view["byteOffset"]
    stored = np.frombuffer(content[start : start + view["byteLength"]], "<f4").reshape(-1, 4)
    normals = vertex_normals(mesh.vertices, mesh.faces)
    assert np.einsum("vc,vc->v", stored[:, :3], normals) == pytest.approx(0, abs=1e-6)
    assert set(np.unique(stored[:, 3])) <= {-1.0, 1.0}
    assert "TANGENT" not in str(read_glb_tree(mesh_bytes(MESHES["texture"], "glb"))["meshes"])
