from __future__ import annotations

import numpy as np
import pytest

from jobs.nano.catalogue import CATEGORIES, COLORS, make_item, vocabulary
from jobs.nano.dataset import (
    BOX,
    POINTS,
    VIEW_AZIMUTH_DEG,
    load_shard,
    make_shard,
    picture_of,
    sample_points,
    view_of,
)
from jobs.nano.primitives import Solid, box, cone, ellipsoid, rotation, torus
from jobs.nano.render import BACKGROUND, FOREGROUND_RATIO

PALETTE = np.array([[1, 0, 0], [0, 1, 0], [0, 0, 1], [1, 1, 0]], np.float32)


def distance(parts: list, points: list[list[float]]) -> np.ndarray:
    return Solid.pack(parts, PALETTE).distance(np.array(points, np.float32))


def test_sphere_distance_is_exact() -> None:
    sphere = ellipsoid((0.1, 0.0, 0.0), (0.3, 0.3, 0.3))
    found = distance([sphere], [[0.1, 0, 0], [0.6, 0, 0], [0.1, 0.3, 0]])
    np.testing.assert_allclose(found, [-0.3, 0.2, 0.0], atol=1e-5)


def test_box_distance_is_exact_outside_faces_and_corners() -> None:
    found = distance([box((0, 0, 0), (2, 2, 2), rounding=0.0)], [[2, 0, 0], [2, 2, 1], [0, 0, 0.9]])
    np.testing.assert_allclose(found, [1.0, np.sqrt(2), -0.1], atol=1e-5)


def test_turned_cylinder_lies_along_its_new_axis() -> None:
    lying = cone((0, 0, 0), 0.2, 0.2, 2.0, turn=rotation("x", 90))
    found = distance([lying], [[0, 0.9, 0], [0, 0, 0.9]])
    assert found[0] < 0 < found[1]
    np.testing.assert_allclose(found[1], 0.7, atol=1e-5)


def test_torus_has_a_hole() -> None:
    found = distance([torus((0, 0, 0), 0.5, 0.1)], [[0, 0, 0], [0.5, 0, 0]])
    np.testing.assert_allclose(found, [0.4, -0.1], atol=1e-5)


def test_carving_removes_and_keeps_the_rest() -> None:
    solid = [box((0, 0, 0), (1, 1, 1)), ellipsoid((0, 0, 0), (0.3, 0.3, 0.3), carve=True)]
    found = distance(solid, [[0, 0, 0], [0.4, 0, 0]])
    assert found[0] > 0 > found[1]


def test_color_is_that_of_the_nearest_part() -> None:
    parts = [ellipsoid((-1, 0, 0), (0.2,) * 3), ellipsoid((1, 0, 0), (0.2,) * 3, slot=2)]
    solid = Solid.pack(parts, PALETTE)
    colors = solid.color(np.array([[-1, 0, 0.3], [1, 0, 0.3]], np.float32))
    np.testing.assert_array_equal(colors, PALETTE[[0, 2]])


@pytest.mark.parametrize("category", CATEGORIES)
def test_every_category_fills_the_unit_cube(category: str) -> None:
    item = make_item(7, category=category)
    rng = np.random.default_rng(0)
    surface = item.solid.project(rng.uniform(-0.5, 0.5, (6000, 3)).astype(np.float32))
    surface = surface[np.abs(item.solid.distance(surface)) < 2e-3]
    extent = surface.max(0) - surface.min(0)
    assert extent.max() == pytest.approx(1.0, abs=0.05)
    np.testing.assert_allclose(surface.max(0) + surface.min(0), 0.0, atol=0.06)


@pytest.mark.parametrize("category", CATEGORIES)
def test_captions_use_known_words_and_name_the_object(category: str) -> None:
    item = make_item(11, category=category)
    words = item.caption.split()
    assert set(words) <= set(vocabulary())
    assert set(words) & set(CATEGORIES[category][1])
    assert set(words) & set(COLORS[item.color][1])


def test_items_are_a_function_of_the_seed() -> None:
    first, again, other = make_item(3), make_item(3), make_item(4)
    np.testing.assert_array_equal(first.solid.centers, again.solid.centers)
    assert first.caption == again.caption
    assert first.caption != other.caption


@pytest.mark.parametrize("is_text_view", [False, True])
def test_view_says_nothing_about_the_object(is_text_view: bool) -> None:
    seeds = range(600)
    colors = np.array([make_item(seed).color for seed in seeds])
    sides = np.array([view_of(seed, is_text_view=is_text_view)[0].azimuth_deg for seed in seeds])
    from_left = sides > VIEW_AZIMUTH_DEG
    for color in COLORS:
        # Five standard deviations of a fair coin thrown for each item of the colour.
        count = (colors == color).sum()
        assert abs(from_left[colors == color].sum() - count / 2) < 2.5 * np.sqrt(count), color


def test_picture_is_framed_like_a_prepared_photo() -> None:
    picture = picture_of(make_item(5, category="chair"), 5)
    assert picture.shape == (128, 128, 4)
    assert picture.dtype == np.uint8
    rows, columns = np.nonzero(picture[..., 3] > 127)
    side = max(rows.max() - rows.min(), columns.max() - columns.min()) + 1
    assert side == pytest.approx(FOREGROUND_RATIO * 128, abs=5)
    assert (picture[0, 0, :3] == BACKGROUND).all()


def test_points_agree_with_the_solid() -> None:
    item = make_item(6)
    points, distances, colors = sample_points(item, np.random.default_rng(0))
    assert points.shape == (POINTS, 3)
    assert np.abs(points).max() <= BOX + 1e-3
    truth = item.solid.distance(points.astype(np.float32))
    np.testing.assert_allclose(distances.astype(np.float32), truth, atol=1e-3)
    np.testing.assert_allclose(
        colors / 255.0, item.solid.color(points.astype(np.float32)), atol=0.003
    )
    assert 0.2 < np.mean(distances < 0) < 0.7


def test_shards_are_published_once(tmp_path, monkeypatch) -> None:
    monkeypatch.setattr("jobs.nano.dataset.SHARD_ITEMS", 2)
    path = make_shard(tmp_path, 3)
    shard = load_shard(path)
    assert shard.captions[0] == make_item(6).caption
    assert shard.pictures.shape == (2, 128, 128, 4)
    written = path.stat().st_mtime_ns
    assert make_shard(tmp_path, 3) == path
    assert path.stat().st_mtime_ns == written
    assert [file.name for file in tmp_path.iterdir()] == [path.name]
