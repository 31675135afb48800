from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from dream_cad.exceptions import InvalidConfigError
from dream_cad.mesh.bake import bake_normal_map
from dream_cad.mesh.cleanup import finish_mesh
from dream_cad.mesh.color import sample_texture
from dream_cad.mesh.data import MeshData
from dream_cad.mesh.normals import vertex_normals
from dream_cad.mesh.packed_unwrap import packed_unwrap
from dream_cad.mesh.retexture import simplify_textured
from dream_cad.mesh.tangents import unit_vectors, vertex_tangents
from dream_cad.mesh.texels import count_overlaps, rasterize_texels
from dream_cad.mesh.texture_fill import dilate
from tests.unit.mesh.shapes import checker, colored_sphere, sphere, textured_quad

SIZE = 128
TILT = np.array([0.3, 0.1, 0.2])


def painted_sphere() -> MeshData:
    """Colour is position, and the normal map leans everywhere the same way in space."""
    mesh = sphere(4)
    atlas = packed_unwrap(mesh.vertices, mesh.faces, texture_size=SIZE, padding=2)
    vertices = mesh.vertices[atlas.vmapping]
    texels = rasterize_texels(atlas.faces, atlas.uvs, texture_size=SIZE)
    points = texels.interpolate(vertices)
    normals = vertex_normals(vertices, atlas.faces)
    tangents = vertex_tangents(vertices, atlas.faces, atlas.uvs, normals)
    bumps = bake_normal_map(texels, unit_vectors(points) + TILT, normals, tangents)
    images = [
        np.rint(dilate(image, texels.mask, 3) * 255).astype(np.uint8)
        for image in (texels.to_image(points + np.float32(0.5)), bumps)
    ]
    return MeshData(
        vertices,
        atlas.faces,
        uv_coords=atlas.uvs,
        texture=images[0],
        materials={"normal_texture": images[1], "roughness": 0.4},
    )


def test_colours_stay_where_they_were() -> None:
    mesh = painted_sphere()
    fewer = simplify_textured(mesh, 600)
    assert 550 <= len(fewer.faces) <= 620
    assert fewer.texture.shape == (SIZE, SIZE, 3)
    assert fewer.materials["roughness"] == 0.4
    assert count_overlaps(fewer.faces, fewer.uv_coords, texture_size=SIZE)[0] == 0
    middle = fewer.uv_coords[fewer.faces].mean(axis=1)
    seen = sample_texture(fewer.texture, middle).astype(float)
    wanted = (unit_vectors(fewer.vertices[fewer.faces].mean(axis=1)) / 2 + 0.5) * 255
    off = np.abs(seen - wanted)
    assert np.median(off) < 2
    assert off.max() < 30  # next to the seams of the old layout


def test_normal_maps_fit_the_new_surface() -> None:
    fewer = simplify_textured(painted_sphere(), 600)
    normals = vertex_normals(fewer.vertices, fewer.faces)
    tangents = vertex_tangents(fewer.vertices, fewer.faces, fewer.uv_coords, normals)
    texels = rasterize_texels(fewer.faces, fewer.uv_coords, texture_size=SIZE)
    local = fewer.materials["normal_texture"][texels.mask] / 127.5 - 1
    normal = unit_vectors(texels.interpolate(normals))
    tangent = unit_vectors(texels.interpolate(tangents[:, :3]))
    sign = tangents[texels.corners[:, 0], 3:]
    x, y, z = local.T[..., None]
    seen = unit_vectors(tangent * x + sign * np.cross(normal, tangent) * y + normal * z)
    wanted = unit_vectors(unit_vectors(texels.interpolate(fewer.vertices)) + TILT)
    angle = np.degrees(np.arccos(np.clip((seen * wanted).sum(axis=1), -1, 1)))
    assert np.median(angle) < 2
    assert np.percentile(angle, 99) < 10


def test_finisher_simplifies_textured_meshes() -> None:
    finished = finish_mesh(painted_sphere(), target_faces=400, min_component=0.0)
    assert len(finished.faces) <= 420
    assert finished.texture is not None
    assert np.abs(finished.vertices).max() == pytest.approx(0.5)


def test_smaller_meshes_come_back_as_they_are() -> None:
    quad = textured_quad(checker(16, 16))
    assert simplify_textured(quad, 10) is quad


def test_meshes_without_pictures_are_refused() -> None:
    with pytest.raises(InvalidConfigError, match="no texture"):
        simplify_textured(colored_sphere(), 50)
    quad = replace(textured_quad(checker()), texture=None)
    with pytest.raises(InvalidConfigError, match="no texture"):
        simplify_textured(quad, 1)
