from __future__ import annotations

import numpy as np
import pytest

from dream_cad.exceptions import ShapeError
from dream_cad.splats.cloud import GaussianCloud
from dream_cad.splats.rasterise import rasterise

# at z = -2 in front of a camera that looks along +z
CAMERA = np.eye(4)
CAMERA[2, 3] = 2.0


def one(z: float, color: tuple[float, float, float], opacity: float = 0.9) -> list[float]:
    return [0, 0, z, opacity, 0.3, 0.3, 0.3, 1, 0, 0, 0, *color]


def cloud(*rows: list[float]) -> GaussianCloud:
    return GaussianCloud.from_packed(np.array(rows, np.float32))


def test_the_nearer_hides_the_farther_whatever_their_order() -> None:
    red, blue = one(0.0, (1, 0, 0)), one(0.5, (0, 0, 1))
    first, second = (
        rasterise(cloud(*rows), CAMERA, size=9, fovy_deg=60.0)
        for rows in ([red, blue], [blue, red])
    )
    np.testing.assert_allclose(first.image, second.image)
    assert first.image[0, 4, 4] > 0.85
    assert first.image[2, 4, 4] < 0.15
    assert first.alpha[4, 4] == pytest.approx(1 - 0.1 * 0.1, abs=0.01)
    assert first.depth[4, 4] == pytest.approx(0.9 * 2.0 + 0.09 * 2.5, abs=0.02)


def test_what_is_not_seen_is_not_drawn() -> None:
    behind, faint = one(-3.0, (1, 0, 0)), one(0.0, (1, 0, 0), opacity=0.003)
    seen = rasterise(cloud(behind, faint), CAMERA, size=5, fovy_deg=60.0, background=(0, 1, 0))
    np.testing.assert_array_equal(seen.image[1], 1.0)
    assert seen.alpha.max() == 0
    assert seen.radii[0] == 0
    assert seen.radii[1] > 0


def test_the_camera_is_checked() -> None:
    with pytest.raises(ShapeError, match="4, 4"):
        rasterise(cloud(one(0.0, (1, 0, 0))), np.eye(3), size=5, fovy_deg=60.0)
