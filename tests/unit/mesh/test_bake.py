from __future__ import annotations

import numpy as np
import pytest

from dream_cad.exceptions import GenerationError, InvalidConfigError, ShapeError
from dream_cad.mesh.bake import bake_normal_map, bake_texture, rasterize_positions
from dream_cad.mesh.color import sample_texture
from dream_cad.mesh.texels import rasterize_texels
from dream_cad.mesh.unwrap import unwrap_uv
from tests.unit.mesh.shapes import checker, sphere, textured_quad

QUAD = textured_quad(checker())


def test_a_quad_holds_its_own_positions() -> None:
    positions, coverage = rasterize_positions(
        QUAD.vertices, QUAD.faces, QUAD.uv_coords, texture_size=32, padding=0
    )
    assert coverage.all()
    centre = (np.arange(32) + 0.5) / 32 - 0.5
    assert positions[..., 0] == pytest.approx(np.tile(centre, (32, 1)), abs=1e-6)
    assert positions[..., 1] == pytest.approx(np.tile(centre[:, None], (1, 32)), abs=1e-6)


def test_the_border_is_half_the_padding_wide() -> None:
    uvs = QUAD.uv_coords * np.float32(0.5) + np.float32(0.25)
    counts = []
    for padding in (0, 4):
        positions, coverage = rasterize_positions(
            QUAD.vertices, QUAD.faces, uvs, texture_size=64, padding=padding
        )
        rows = np.flatnonzero(coverage.any(axis=1))
        counts.append(len(rows))
        assert (positions[~coverage] == 0).all()
    assert counts == [32, 36]
    # On the border a texel shows the nearest point of the edge.
    assert positions[14, 32] == pytest.approx([0.0156, -0.5, 0], abs=0.02)


def test_baked_sphere_looks_up_its_own_colours() -> None:
    mesh = sphere(2)
    atlas = unwrap_uv(mesh.vertices, mesh.faces, texture_size=256, padding=6)
    assert np.array_equal(atlas.vmapping[atlas.faces], mesh.faces)
    vertices = mesh.vertices[atlas.vmapping]
    positions, coverage = rasterize_positions(
        vertices, atlas.faces, atlas.uvs, texture_size=256, padding=6
    )
    assert 0.3 < coverage.mean() < 1
    texture = bake_texture(lambda points: points + np.float32(0.5), positions, coverage)
    assert (texture[~coverage] == 0).all()
    looked_up = sample_texture(texture[::-1], atlas.uvs).astype(int)
    error = np.abs(looked_up - (vertices + 0.5) * 255).max(axis=1)
    assert np.percentile(error, 90) < 4  # tips of charts may blend with texels beyond the border


def test_colours_are_clipped_and_truncated() -> None:
    positions, coverage = np.zeros((16, 16, 3), np.float32), np.zeros((16, 16), bool)
    coverage[0, :3] = True

    def color_at(points: np.ndarray) -> np.ndarray:
        assert points.shape == (3, 3)
        return np.array([[-1, 0.999, 2], [0.5, 0.1, 0.2], [1, 0, 1]], np.float32)

    texture = bake_texture(color_at, positions, coverage)
    assert texture[0, :3].tolist() == [[0, 254, 255], [127, 25, 51], [255, 0, 255]]
    assert texture[1:].max() == 0


@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_colours_that_are_no_numbers_are_refused(value: float) -> None:
    positions, coverage = np.zeros((16, 16, 3), np.float32), np.ones((16, 16), bool)
    with pytest.raises(GenerationError, match="not finite"):
        bake_texture(lambda points: np.full_like(points, value), positions, coverage)


def test_normal_maps_want_one_finite_direction_a_texel() -> None:
    texels = rasterize_texels(QUAD.faces, QUAD.uv_coords, texture_size=16)
    up = np.tile(np.float32([0, 0, 1]), (4, 1))
    along = np.tile(np.float32([1, 0, 0]), (4, 1))
    with pytest.raises(ShapeError, match="256, 3"):
        bake_normal_map(texels, np.ones((5, 3)), up, along)
    with pytest.raises(ShapeError, match="finite"):
        bake_normal_map(texels, np.full((256, 3), np.nan), up, along)


@pytest.mark.parametrize(("size", "padding"), [(8, 0), (9000, 0), (64, -1), (64, 9)])
def test_sizes_out_of_range_are_refused(size: int, padding: int) -> None:
    with pytest.raises(InvalidConfigError):
        unwrap_uv(QUAD.vertices, QUAD.faces, texture_size=size, padding=padding)
    with pytest.raises(InvalidConfigError):
        rasterize_positions(
            QUAD.vertices, QUAD.faces, QUAD.uv_coords, texture_size=size, padding=padding
        )


def test_numbers_of_vertices_and_uvs_must_agree() -> None:
    with pytest.raises(ShapeError):
        rasterize_positions(
            QUAD.vertices, QUAD.faces, QUAD.uv_coords[:3], texture_size=32, padding=0
        )
    with pytest.raises(ShapeError):
        unwrap_uv(QUAD.vertices, QUAD.faces[:0], texture_size=32, padding=0)
