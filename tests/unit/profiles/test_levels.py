from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from dream_cad.mesh.color import sample_texture
from dream_cad.mesh.data import MeshData
from dream_cad.mesh.texels import rasterize_texels
from dream_cad.mesh.unwrap import unwrap_uv
from dream_cad.profiles.levels import fill_background, make_levels, texture_size
from tests.unit.mesh.shapes import colored_sphere, position_colors, sphere


def painted_sphere(size: int = 128) -> MeshData:
    mesh = sphere(3)
    atlas = unwrap_uv(mesh.vertices, mesh.faces, texture_size=size, padding=2)
    vertices = mesh.vertices[atlas.vmapping]
    texels = rasterize_texels(atlas.faces, atlas.uvs, texture_size=size)
    texture = texels.to_image(position_colors(texels.interpolate(vertices)))
    return MeshData(vertices, atlas.faces, uv_coords=atlas.uvs, texture=texture)


def color_error(mesh: MeshData) -> float:
    """How far the colours at the middles of the faces are from those of their positions."""
    assert mesh.texture is not None
    assert mesh.uv_coords is not None
    seen = sample_texture(mesh.texture, mesh.uv_coords[mesh.faces].mean(axis=1))
    middles = mesh.vertices[mesh.faces].mean(axis=1)
    return float(np.abs(seen.astype(int) - position_colors(middles)).max())


@pytest.mark.parametrize("mesh", [colored_sphere(4), painted_sphere()], ids=["vertices", "texture"])
def test_levels_have_their_budgets_maps_and_colours(mesh: MeshData) -> None:
    levels = make_levels(mesh, (800, 300, 100), (128, 64, 64))
    assert [level.number for level in levels] == [0, 1, 2]
    for level, budget, size in zip(levels, (800, 300, 100), (128, 64, 64), strict=True):
        assert 0.9 * budget <= len(level.mesh.faces) <= budget
        assert texture_size(level.mesh) == [size, size]
        assert level.mesh.vertex_colors is None
        assert color_error(level.mesh) < 30


def test_levels_that_save_nothing_are_left_out() -> None:
    levels = make_levels(colored_sphere(2), (5_000, 2_000, 100), (64, 64, 32))
    assert [len(level.mesh.faces) <= 320 for level in levels] == [True, True]
    assert len(levels[0].mesh.faces) == 320


def test_a_texture_that_is_too_large_shrinks_without_fewer_faces() -> None:
    (level,) = make_levels(painted_sphere(256), (10_000,), (64,))
    assert len(level.mesh.faces) == 1280
    assert texture_size(level.mesh) == [64, 64]


def test_a_bare_mesh_stays_bare() -> None:
    (level,) = make_levels(sphere(2), (100,), (64,))
    assert level.mesh.texture is None
    assert texture_size(level.mesh) is None


def test_the_background_takes_the_nearest_colour() -> None:
    mesh = painted_sphere(64)
    assert mesh.texture is not None
    assert mesh.uv_coords is not None
    mask = rasterize_texels(mesh.faces, mesh.uv_coords, texture_size=64).mask
    red = np.where(mask[..., None], np.uint8([200, 0, 0]), np.uint8([0, 0, 0]))
    filled = fill_background(replace(mesh, texture=red, materials={"normal_texture": red}))
    assert filled.texture is not None
    assert filled.materials is not None
    for image in (filled.texture, filled.materials["normal_texture"]):
        assert (image == [200, 0, 0]).all()
