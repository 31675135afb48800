from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from dream_cad.exceptions import InvalidConfigError, ShapeError
from dream_cad.mesh.data import MeshData
from dream_cad.mesh.texture_views import (
    FIT_STEPS,
    Observation,
    average_views,
    fit_texture,
    inpaint,
    learning_rate,
    mip_levels,
    total_variation,
)
from dream_cad.mesh.view_texels import ViewTexels, look_into_texture
from dream_cad.mesh.views import View, look_at
from tests.unit.mesh.shapes import sphere

SIDE = 16


def quad() -> MeshData:
    """A unit square in the plane y = 0, seen from -y with u to the right and v up."""
    corners = np.array([[0, 0], [1, 0], [1, 1], [0, 1]], np.float32)
    at = np.stack([corners[:, 0] - 0.5, np.zeros(4), corners[:, 1] - 0.5], axis=1)
    faces = np.array([[0, 1, 2], [0, 2, 3]], np.int32)
    return MeshData(at.astype(np.float32), faces, uv_coords=corners)


def ahead(distance: float, *aside: float) -> View:
    return View(look_at(np.array([*aside, -distance, 0.0] if aside else [0, -distance, 0.0])), 40.0)


def wanted() -> NDArray[np.float32]:
    """A smooth texture, row 0 at the top: red grows to the right, green upwards."""
    steps = (np.arange(SIDE, dtype=np.float32) + 0.5) / SIDE
    right, up = np.meshgrid(steps, steps[::-1])
    return np.stack([right, up, np.full_like(right, 0.5)], axis=2) * np.float32(0.8) + 0.1


def observed(view: View, size: int = 64) -> Observation:
    """What a view shows of ``wanted``: its colours are linear in UV."""
    texels = look_into_texture(quad(), view, size)
    blue = np.full(len(texels.uv), 0.5)
    colors = np.stack([texels.uv[:, 0], texels.uv[:, 1], blue], axis=1) * 0.8 + 0.1
    return Observation(texels, colors.astype(np.float32))


VIEWS = [ahead(2.0), ahead(1.6, 0.8), ahead(1.7, -0.6)]


def test_pixels_look_where_the_camera_points() -> None:
    size = 101
    texels = look_into_texture(quad(), ahead(2.0), size)
    middle = np.flatnonzero(texels.pixel == (size // 2) * size + size // 2)
    np.testing.assert_allclose(texels.uv[middle], [[0.5, 0.5]], atol=1e-6)
    rows, columns = texels.pixel // size, texels.pixel % size
    assert np.corrcoef(columns, texels.uv[:, 0])[0, 1] > 0.999
    assert np.corrcoef(rows, texels.uv[:, 1])[0, 1] < -0.999
    # seen straight on, a pixel is as wide as the picture plane says
    np.testing.assert_allclose(texels.footprint, 2 * 2 * ahead(2.0).tangent / size, rtol=1e-5)


def test_uv_follows_perspective_on_slanted_faces() -> None:
    view, size = ahead(1.2, 1.2), 200
    texels = look_into_texture(quad(), view, size)
    place = np.stack(
        [texels.uv[:, 0] - 0.5, np.zeros(len(texels.uv)), texels.uv[:, 1] - 0.5], axis=1
    )
    back, _ = view.project(place, size)
    centre = np.stack([texels.pixel % size, texels.pixel // size], axis=1) + 0.5
    np.testing.assert_allclose(back, centre, atol=1e-2)
    assert texels.footprint.max() > 1.3 * texels.footprint.min()


def test_a_mesh_without_uv_is_refused() -> None:
    with pytest.raises(ShapeError, match="unwrap"):
        look_into_texture(sphere(1), ahead(2.0), 16)


def test_black_pixels_are_not_observed() -> None:
    texels = look_into_texture(quad(), ahead(2.0), 32)
    picture = np.ones((32, 32, 3), np.float32)
    picture[:16] = 0
    seen = Observation.of(texels, picture)
    assert 0 < len(seen.colors) < len(texels.pixel)
    assert (seen.texels.pixel >= 16 * 32).all()


def test_black_behind_transparent_pixels_is_taken_out() -> None:
    texels = look_into_texture(quad(), ahead(2.0), 32)
    alpha = np.full((32, 32), 0.8, np.float32)
    alpha[:16] = 0.4
    picture = np.full((32, 32, 3), 0.6, np.float32) * alpha[..., None]
    picture[20] = 0
    seen = Observation.of(texels, picture, alpha)
    assert (seen.texels.pixel >= 16 * 32).all()
    dark = seen.texels.pixel // 32 == 20
    np.testing.assert_allclose(seen.colors[~dark], 0.6, rtol=1e-6)
    assert dark.any()
    assert seen.colors[dark].max() == 0


def test_averaging_lays_pixels_on_their_texels() -> None:
    image, filled = average_views([observed(view) for view in VIEWS], SIDE)
    assert filled.all()
    assert np.abs(image - wanted()).max() < 0.03


def test_the_average_of_nothing_is_empty() -> None:
    empty = observed(VIEWS[0])
    empty = Observation(empty.texels.select(slice(0)), empty.colors[:0])
    image, filled = average_views([empty], SIDE)
    assert not filled.any()
    assert image.max() == 0


def test_fitting_finds_the_texture_and_repeats_with_its_seed() -> None:
    seen = [observed(view, 32) for view in VIEWS]
    parts: list[float] = []
    found = fit_texture(seen, SIDE, steps=120, seed=3, on_step=parts.append)
    assert np.abs(found - wanted())[1:-1, 1:-1].mean() < 0.03
    assert parts[-1] == 1.0
    assert len(parts) == 120
    first = fit_texture(seen, SIDE, steps=15, seed=3)
    np.testing.assert_array_equal(first, fit_texture(seen, SIDE, steps=15, seed=3))
    assert np.abs(first - fit_texture(seen, SIDE, steps=15, seed=4)).max() > 0


def test_a_good_start_is_kept() -> None:
    seen = [observed(view) for view in VIEWS]
    found = fit_texture(seen, SIDE, start=wanted(), steps=20)
    assert np.abs(found - wanted()).mean() < 0.03


def test_tables_that_are_not_kept_give_the_same(monkeypatch: pytest.MonkeyPatch) -> None:
    seen = [observed(view, 32) for view in VIEWS]
    kept = fit_texture(seen, SIDE, steps=10)
    monkeypatch.setattr("dream_cad.mesh.texture_views._KEPT_PIXELS", 0)
    np.testing.assert_array_equal(fit_texture(seen, SIDE, steps=10), kept)


def test_distant_views_are_compared_through_mip_maps() -> None:
    """A checkerboard far below a pixel looks grey, hence a grey view leaves its contrast alone."""
    board = np.indices((SIDE, SIDE)).sum(axis=0) % 2
    start = np.repeat(board[..., None], 3, axis=2).astype(np.float32)
    far = look_into_texture(quad(), ahead(2.0), 8)
    wide = replace(far, footprint=np.full_like(far.footprint, 4 / SIDE))
    grey = Observation(wide, np.full((len(wide.uv), 3), 0.5, np.float32))
    found = fit_texture([grey], SIDE, start=start, steps=1)
    # only the smoothing pulls: by one step of the first rate
    assert np.abs(found - start).max() <= 0.0101
    assert found.std() > 0.45


def test_mip_levels_are_means() -> None:
    levels = mip_levels(torch.arange(48.0).reshape(3, 4, 4))
    assert [tuple(level.shape) for level in levels] == [(3, 4, 4), (3, 2, 2), (3, 1, 1)]
    assert float(levels[1][0, 0, 0]) == (0 + 1 + 4 + 5) / 4
    assert float(levels[2][1, 0, 0]) == 16 + 7.5


def test_variation_counts_both_axes() -> None:
    ramp = torch.arange(4.0).repeat(3, 4, 1)
    assert float(total_variation(ramp)) == 1
    assert float(total_variation(2 * ramp.transpose(1, 2))) == 2


def test_the_rate_falls_from_a_hundredth_to_almost_nothing() -> None:
    rates = [learning_rate(step) for step in range(FIT_STEPS)]
    assert rates[0] == 1e-2
    assert rates == sorted(rates, reverse=True)
    assert rates[-1] == pytest.approx(1e-5, rel=0.01)


def test_wrong_calls_of_the_fit_are_refused() -> None:
    seen = [observed(VIEWS[0], 16)]
    with pytest.raises(InvalidConfigError, match="power of two"):
        fit_texture(seen, 24)
    with pytest.raises(ShapeError, match="another size"):
        fit_texture(seen, SIDE, start=np.zeros((8, 8, 3), np.float32))
    nothing = ViewTexels(*(np.zeros(shape) for shape in (0, (0, 2), 0)))  # type: ignore[arg-type]
    with pytest.raises(ShapeError, match="No view"):
        fit_texture([Observation(nothing, np.zeros((0, 3), np.float32))], SIDE)


def test_inpainting_fills_what_is_missing_and_only_that() -> None:
    image = np.full((SIDE, SIDE, 3), 0.5, np.float32)
    filled = np.ones((SIDE, SIDE), bool)
    filled[4:8, 4:8] = False
    image[~filled] = 0
    image[0, 0] = 2.0
    painted = inpaint(image, filled)
    assert painted.dtype == np.uint8
    assert abs(int(painted[5, 5, 0]) - 127) <= 4
    assert painted[0, 0].tolist() == [255, 255, 255]
    np.testing.assert_array_equal(inpaint(image, np.ones_like(filled))[5, 5], 0)
