from __future__ import annotations

import numpy as np
import pytest

from dream_cad.mesh.bake import bake_normal_map
from dream_cad.mesh.normals import indexed_normals, vertex_normals
from dream_cad.mesh.packed_unwrap import packed_unwrap
from dream_cad.mesh.tangents import (
    encode_tangent_space,
    published_tangents,
    unit_vectors,
    vertex_tangents,
)
from dream_cad.mesh.texels import rasterize_texels
from tests.unit.mesh.shapes import checker, sphere, textured_quad

QUAD = textured_quad(checker())
UP = np.tile(np.float32([0, 0, 1]), (4, 1))


def test_tangent_runs_along_u() -> None:
    tangents = vertex_tangents(QUAD.vertices, QUAD.faces, QUAD.uv_coords, UP)
    assert tangents == pytest.approx(np.tile([1, 0, 0, 1], (4, 1)), abs=1e-6)


def test_mirrored_layout_turns_the_sign() -> None:
    mirrored = QUAD.uv_coords * np.float32([-1, 1]) + np.float32([1, 0])
    tangents = vertex_tangents(QUAD.vertices, QUAD.faces, mirrored, UP)
    assert tangents == pytest.approx(np.tile([-1, 0, 0, -1], (4, 1)), abs=1e-6)
    # Growing v is still +y: w (n x t) = -1 ((0,0,1) x (-1,0,0)) = (0,1,0).


def test_lost_directions_still_give_a_frame() -> None:
    tangents = vertex_tangents(QUAD.vertices, QUAD.faces, np.zeros((4, 2), np.float32), UP)
    assert np.linalg.norm(tangents[:, :3], axis=1) == pytest.approx(1)
    assert np.einsum("vc,vc->v", tangents[:, :3], UP) == pytest.approx(0)


def test_published_tangents_clip_mirrored_faces() -> None:
    faces_uv = QUAD.uv_coords[QUAD.faces]
    plain = published_tangents(QUAD.vertices, QUAD.faces, faces_uv, UP)
    assert plain == pytest.approx(np.tile([1, 0, 0], (4, 1)), abs=1e-6)
    # dp1 dv2 - dp2 dv1 points along +x whatever the sign of u, and the determinant is clipped.
    mirrored = published_tangents(QUAD.vertices, QUAD.faces, faces_uv * (-1, 1), UP)
    assert mirrored == pytest.approx(plain, abs=1e-6)


def test_flat_spot_and_tilts_have_the_colours_of_gltf() -> None:
    tangent = np.float32([[1, 0, 0, 1]])
    normal = np.float32([[0, 0, 1]])
    encode = lambda *d: encode_tangent_space(np.float32([d]), normal, tangent)[0]  # noqa: E731
    assert encode(0, 0, 3) == pytest.approx([0.5, 0.5, 1.0])
    assert encode(1, 0, 1) == pytest.approx([0.8536, 0.5, 0.8536], abs=1e-4)  # red along u
    assert encode(0, 1, 1) == pytest.approx([0.5, 0.8536, 0.8536], abs=1e-4)  # green along v


def test_what_a_viewer_decodes_is_what_was_baked() -> None:
    mesh = sphere(3)
    atlas = packed_unwrap(mesh.vertices, mesh.faces, texture_size=256, padding=2)
    vertices = mesh.vertices[atlas.vmapping]
    normals = vertex_normals(vertices, atlas.faces)
    tangents = vertex_tangents(vertices, atlas.faces, atlas.uvs, normals)
    texels = rasterize_texels(atlas.faces, atlas.uvs, texture_size=256)
    points = texels.interpolate(vertices)
    wanted = unit_vectors(points + 0.1 * np.sin(20 * points[:, ::-1]))
    image = bake_normal_map(texels, wanted, normals, tangents)
    assert (image[~texels.mask] == 0).all()
    x, y, z = (2 * image[texels.mask].astype(np.float64) - 1).T
    # glTF 2.0: interpolate, then t x + w (n x t) y + n z.
    normal = unit_vectors(texels.interpolate(normals))
    tangent = unit_vectors(texels.interpolate(tangents[:, :3]))
    sign = tangents[texels.corners[:, 0], 3:]
    seen = tangent * x[:, None] + sign * np.cross(normal, tangent) * y[:, None]
    seen = unit_vectors(seen + normal * z[:, None])
    angle = np.degrees(np.arccos(np.clip((seen * wanted).sum(axis=1), -1, 1)))
    assert np.percentile(angle, 99) < 1
    assert angle.max() < 8


def test_indexed_normals_break_where_vertices_are_split() -> None:
    mesh = sphere(1)
    split = mesh.vertices[mesh.faces.ravel()]
    faces = np.arange(len(split), dtype=np.int32).reshape(-1, 3)
    flat = indexed_normals(split, faces).reshape(-1, 3, 3)
    assert np.abs(flat - flat[:, :1]).max() < 1e-6
    smooth = indexed_normals(mesh.vertices, mesh.faces)
    assert smooth == pytest.approx(mesh.vertices / 0.5, abs=0.05)
    lonely = indexed_normals(np.zeros((3, 3), np.float32), np.array([[0, 1, 2]], np.int32))
    assert lonely.tolist() == [[0, 0, 1]] * 3
