from __future__ import annotations

import numpy as np
import pytest

from dream_cad.exceptions import InvalidConfigError, ShapeError
from dream_cad.mesh.texels import count_overlaps, rasterize_texels
from tests.unit.mesh.shapes import checker, textured_quad

QUAD = textured_quad(checker())


def test_centres_of_texels_show_their_own_uv() -> None:
    texels = rasterize_texels(QUAD.faces, QUAD.uv_coords, texture_size=16)
    assert texels.mask.all()
    uv = texels.to_image(texels.interpolate(QUAD.uv_coords))
    centre = (np.arange(16) + 0.5) / 16
    assert uv[..., 0] == pytest.approx(np.tile(centre, (16, 1)), abs=1e-6)
    # Row 0 is the top, v = 1.
    assert uv[..., 1] == pytest.approx(np.tile(1 - centre[:, None], (1, 16)), abs=1e-6)


def test_published_rule_samples_the_upper_left_corners() -> None:
    texels = rasterize_texels(QUAD.faces, QUAD.uv_coords, texture_size=16, sample_at="corner")
    uv = texels.to_image(texels.interpolate(QUAD.uv_coords))
    assert uv[3, 5] == pytest.approx([5 / 16, 1 - 3 / 16], abs=1e-6)
    assert uv[0, 0] == pytest.approx([0, 1], abs=1e-6)


def test_every_texel_agrees_with_the_plain_rule(rng: np.random.Generator) -> None:
    """Random triangles, against the 2x2 system of the spec for all texels and faces at once."""
    uvs = rng.random((30, 2)).astype(np.float32)
    faces = np.arange(30, dtype=np.int32).reshape(-1, 3)
    size = 32
    texels = rasterize_texels(faces, uvs, texture_size=size)
    row, column = np.divmod(np.arange(size**2), size)
    point = np.stack([(column + 0.5) / size, 1 - (row + 0.5) / size], axis=1)
    a, b, c = np.moveaxis(uvs[faces].astype(np.float64), 1, 0)
    basis = np.linalg.inv(np.stack([b - a, c - a], axis=2))
    weights = np.einsum("fij,pfj->pfi", basis, point[:, None] - a)
    is_inside = (weights >= 0).all(axis=2) & (weights.sum(axis=2) <= 1)
    assert np.array_equal(texels.mask.ravel(), is_inside.any(axis=1))
    assert is_inside[texels.index, texels.face].all()
    expected = weights[texels.index, texels.face]
    assert texels.weights[:, 1:] == pytest.approx(expected, abs=1e-5)
    assert texels.weights.sum(axis=1) == pytest.approx(1, abs=1e-6)


def test_background_fills_what_shows_nothing() -> None:
    small = QUAD.uv_coords * np.float32(0.5)
    texels = rasterize_texels(QUAD.faces, small, texture_size=16)
    image = texels.to_image(np.ones((len(texels.index), 2), np.uint8), (7, 9))
    assert (image[:8] == (7, 9)).all()
    assert (image[8:, :8] == 1).all()


def test_overlaps_are_counted_and_shared_edges_are_not() -> None:
    assert count_overlaps(QUAD.faces, QUAD.uv_coords, texture_size=32)[0] == 0
    doubled = np.concatenate([QUAD.faces, QUAD.faces[:1]])
    overlapping, covered = count_overlaps(doubled, QUAD.uv_coords, texture_size=32)
    assert overlapping == pytest.approx(32 * 31 / 2, abs=1)
    assert covered > 0.9 * 32 * 32


def test_faces_without_area_and_no_faces_show_nothing() -> None:
    line = np.array([[0, 0], [0.5, 0.5], [1, 1]], np.float32)
    for faces in (np.array([[0, 1, 2]], np.int32), np.empty((0, 3), np.int32)):
        texels = rasterize_texels(faces, line, texture_size=16)
        assert len(texels.index) == 0
        assert texels.interpolate(line).shape == (0, 2)


def test_bad_input_is_refused() -> None:
    with pytest.raises(InvalidConfigError):
        rasterize_texels(QUAD.faces, QUAD.uv_coords, texture_size=8)
    with pytest.raises(ShapeError, match="vertex 3"):
        rasterize_texels(QUAD.faces, QUAD.uv_coords[:3], texture_size=16)
