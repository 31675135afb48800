from __future__ import annotations

import numpy as np
import pytest
from numpy.typing import NDArray

from dream_cad.exceptions import InvalidConfigError, ShapeError
from dream_cad.mesh.views import View, look_at

EYE = np.array([0.0, -2.0, 0.0])
VIEW = View(look_at(EYE), 90.0)


def test_the_origin_is_in_the_middle_and_axes_point_as_in_pictures() -> None:
    points = np.array([[0, 0, 0], [1.0, 0, 0], [0, 0, 1.0]])
    places, depth = VIEW.project(points, 100)
    # from -y, +x is to the right and +z up, that is to lower rows; half the side at 45 degrees
    np.testing.assert_allclose(places, [[50, 50], [75, 50], [50, 25]], atol=1e-9)
    np.testing.assert_allclose(depth, 2.0)
    np.testing.assert_allclose(VIEW.eye, EYE, atol=1e-12)


def test_points_behind_the_camera_have_negative_depth_and_finite_places() -> None:
    places, depth = VIEW.project(np.array([[0, -5.0, 0], [0, -2.0, 0]]), 10)
    assert depth[0] == pytest.approx(-3)
    assert np.isfinite(places).all()


def test_rays_meet_what_is_projected_to_their_pixel() -> None:
    eye, rays = VIEW.rays(8)
    assert rays.shape == (8, 8, 3)
    places, depth = VIEW.project(eye + 3 * rays[2, 5], 8)
    np.testing.assert_allclose(places, [5.5, 2.5], atol=1e-9)
    assert depth == pytest.approx(3)


@pytest.mark.parametrize("eye", [np.zeros(3), np.array([0.0, 0.0, 2.0])])
def test_a_camera_without_direction_is_refused(eye: NDArray[np.float64]) -> None:
    with pytest.raises(ShapeError, match="has no direction, or looks along its up"):
        look_at(eye)


def test_wrong_cameras_are_refused() -> None:
    with pytest.raises(ShapeError, match="4, 4"):
        View(np.eye(3), 40.0)
    with pytest.raises(ShapeError, match="finite"):
        View(np.full((4, 4), np.nan), 40.0)
    with pytest.raises(InvalidConfigError, match="fov_deg"):
        View(np.eye(4), 180.0)
