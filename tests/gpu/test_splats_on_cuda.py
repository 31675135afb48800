"""Gaussians on a GPU, by our tiles and by gsplat where it is installed."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from dream_cad.splats import drawing, tiles
from dream_cad.splats.projection import MIP_FILTER, PLAIN_FILTER, ScreenFilter
from dream_cad.splats.rasterise import SplatPicture, rasterise
from tests.unit.splats.test_tiles import VIEW, cloud, worst

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="there is no CUDA device"),
]
SIZE = 96


def exact(screen_filter: ScreenFilter) -> SplatPicture:
    return rasterise(
        cloud(2000),
        VIEW.world_to_camera,
        size=SIZE,
        fovy_deg=VIEW.fov_deg,
        screen_filter=screen_filter,
    )


@pytest.mark.parametrize("screen_filter", [PLAIN_FILTER, MIP_FILTER])
def test_tiles_on_cuda_draw_what_the_reference_does(screen_filter: ScreenFilter) -> None:
    drawn = tiles.draw(cloud(2000), VIEW, size=SIZE, screen_filter=screen_filter, device="cuda:0")
    assert worst(drawn, exact(screen_filter)) < 1e-4


@pytest.mark.parametrize("screen_filter", [PLAIN_FILTER, MIP_FILTER])
def test_gsplat_draws_what_the_reference_does(screen_filter: ScreenFilter) -> None:
    if drawing.load_gsplat() is None:
        pytest.skip("gsplat is not installed, or has no kernels")
    drawn = drawing.draw(cloud(2000), VIEW, size=SIZE, screen_filter=screen_filter, device="cuda:0")
    wanted = exact(screen_filter)
    # It visits tiles within three deviations only; the rest is at most 0.011 of alpha.
    assert np.abs(drawn.image - wanted.image).max() < 0.02
    assert np.abs(drawn.alpha - wanted.alpha).max() < 0.02
