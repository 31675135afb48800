from __future__ import annotations

import numpy as np
import pytest
from numpy.typing import NDArray

from dream_cad.exceptions import InvalidConfigError
from dream_cad.mesh.views import View, look_at
from dream_cad.splats.cloud import GaussianCloud
from dream_cad.splats.projection import MIP_FILTER, PLAIN_FILTER, ScreenFilter, project
from dream_cad.splats.rasterise import SplatPicture, rasterise
from dream_cad.splats.tiles import draw

VIEW = View(look_at(np.array([0.4, -1.8, 0.7])), 40.0)


def cloud(count: int, scale: float = 0.03, opacity: tuple[float, float] = (0, 1)) -> GaussianCloud:
    random = np.random.default_rng(count)
    parts = (
        random.uniform(-0.6, 0.6, (count, 3)),
        random.uniform(*opacity, (count, 1)),
        random.lognormal(np.log(scale), 0.8, (count, 3)),
        random.normal(size=(count, 4)),
        random.random((count, 3)),
    )
    return GaussianCloud.from_packed(np.concatenate(parts, axis=1).astype(np.float32))


def both(
    splats: GaussianCloud, size: int, screen_filter: ScreenFilter
) -> tuple[SplatPicture, SplatPicture]:
    background = (0.2, 0.5, 0.9)
    fast = draw(splats, VIEW, size=size, background=background, screen_filter=screen_filter)
    exact = rasterise(
        splats,
        VIEW.world_to_camera,
        size=size,
        fovy_deg=VIEW.fov_deg,
        background=background,
        screen_filter=screen_filter,
    )
    return fast, exact


def worst(fast: SplatPicture, exact: SplatPicture) -> float:
    pairs = ((fast.image, exact.image), (fast.alpha, exact.alpha), (fast.depth, exact.depth))
    return max(float(np.abs(a - b).max()) for a, b in pairs)


@pytest.mark.parametrize("screen_filter", [PLAIN_FILTER, MIP_FILTER, ScreenFilter(0.3, False, 8)])
@pytest.mark.parametrize("size", [33, 64])
def test_tiles_draw_what_every_pixel_of_the_reference_is(
    screen_filter: ScreenFilter, size: int
) -> None:
    fast, exact = both(cloud(300), size, screen_filter)
    assert exact.alpha.max() > 0.9
    assert worst(fast, exact) < 2e-5
    np.testing.assert_array_equal(fast.radii, exact.radii)


def test_deep_stacks_stop_where_the_light_ends() -> None:
    # some 600 of these lie over each pixel: several blocks, most of them behind the last light
    fast, exact = both(cloud(900, scale=0.4, opacity=(0.05, 0.3)), 16, MIP_FILTER)
    assert exact.alpha.min() > 0.999
    assert worst(fast, exact) < 1e-4


def test_an_empty_view_is_the_background() -> None:
    nothing = cloud(5).select(np.zeros(5, bool))
    seen = draw(nothing, VIEW, size=9, background=(0.25, 0.5, 1.0))
    assert seen.image.shape == (3, 9, 9)
    np.testing.assert_array_equal(seen.image[:, 4, 4], [0.25, 0.5, 1.0])
    assert seen.alpha.max() == 0


def test_gaussians_behind_the_camera_or_beside_the_picture_are_left_out() -> None:
    far = np.array([[0.0, -9.0, 0.0], [40.0, 40.0, 0.0], [0.0, 0.0, 0.0]], np.float32)
    splats = GaussianCloud(
        far,
        np.ones(3, np.float32),
        np.full((3, 3), 0.01, np.float32),
        np.tile(np.array([1, 0, 0, 0], np.float32), (3, 1)),
        np.ones((3, 3), np.float32),
    )
    seen = project(splats, VIEW, 32, MIP_FILTER)
    assert seen.mean.tolist() == [pytest.approx([15.5, 15.5])]
    assert seen.radii[0] == 0


def weight(scale: float, screen_filter: ScreenFilter) -> float:
    """What a faint round Gaussian adds to the whole picture."""
    one = GaussianCloud.from_packed(
        np.array([[0, 0, 0, 0.9, scale, scale, scale, 1, 0, 0, 0, 1, 1, 1]], np.float32)
    )
    return float(draw(one, VIEW, size=64, screen_filter=screen_filter).alpha.sum())


def area(scale: float) -> float:
    """The same without any widening: 2 pi sigma^2 times the opacity, in pixels."""
    distance = float(np.linalg.norm(VIEW.eye))
    sigma: NDArray[np.float64] = np.float64(scale * 32 / (VIEW.tangent * distance))
    return float(0.9 * 2 * np.pi * sigma**2)


def test_the_mip_filter_keeps_the_weight_of_splats_smaller_than_a_pixel() -> None:
    small = 0.02
    assert weight(small, MIP_FILTER) == pytest.approx(area(small), rel=0.06)
    assert weight(small / 4, PLAIN_FILTER) > 1.5 * area(small / 4)


def test_sizes_are_checked() -> None:
    with pytest.raises(InvalidConfigError, match="size is 0"):
        draw(cloud(3), VIEW, size=0)
    with pytest.raises(InvalidConfigError, match="multiple of 8"):
        draw(cloud(3), VIEW, size=8, screen_filter=ScreenFilter(tile=12))
