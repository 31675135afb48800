from __future__ import annotations

import numpy as np
import pytest
import torch
import trimesh
from torch import Tensor

from dream_cad.surface.logit_grid import march_logits
from dream_cad.surface.volume import adaptive_volume, dilate, grid_points, refinement_levels

RADIUS = 0.6


class Ball:
    """Logits of a ball, counting the points asked for."""

    def __init__(self) -> None:
        self.count = 0

    def coarse(self, points: Tensor) -> Tensor:
        self.count += points[..., 0].numel()
        return 20 * (RADIUS - points.norm(dim=-1))

    def fine(self, points: Tensor) -> Tensor:
        return self.coarse(points)


def test_adaptive_grid_is_the_dense_one_near_the_surface() -> None:
    field = Ball()
    grid = adaptive_volume(field, 64, min_resolution=15)
    dense = Ball().coarse(grid_points(grid.shape[0] - 1, 1.01))
    known = ~torch.isnan(grid)
    torch.testing.assert_close(grid[known], dense[known], rtol=1e-5, atol=1e-4)
    assert field.count < 0.5 * dense.numel()
    adaptive, whole = (march_logits(g.numpy(), bounds=1.01) for g in (grid, dense))
    np.testing.assert_allclose(adaptive.vertices, whole.vertices, atol=1e-5)
    np.testing.assert_array_equal(adaptive.faces, whole.faces)


def test_surface_lies_where_the_field_is_zero_and_faces_outwards() -> None:
    mesh = march_logits(Ball().coarse(grid_points(40, 1.01)).numpy(), bounds=1.01)
    np.testing.assert_allclose(np.linalg.norm(mesh.vertices, axis=1), RADIUS, atol=2e-3)
    solid = trimesh.Trimesh(mesh.vertices, mesh.faces)
    assert solid.volume == pytest.approx(4 / 3 * np.pi * RADIUS**3, rel=0.01)


def test_published_divisor_shrinks() -> None:
    grid = Ball().coarse(grid_points(40, 1.01)).numpy()
    exact, published = march_logits(grid, bounds=1.01), march_logits(grid, bounds=1.01, divisor=41)
    np.testing.assert_allclose(
        (published.vertices + 1.01) * 41, (exact.vertices + 1.01) * 40, atol=1e-4
    )


@pytest.mark.parametrize(
    ("resolution", "levels"),
    [(384, [95, 190, 380]), (256, [63, 126, 252]), (128, [63, 126]), (64, [63]), (32, [31])],
)
def test_levels_of_the_specification(resolution: int, levels: list[int]) -> None:
    assert refinement_levels(resolution, 63, 4) == levels


def test_dilation_grows_by_one_on_each_side() -> None:
    mask = torch.zeros(7, 7, 7, dtype=torch.bool)
    mask[3, 3, 3] = True
    assert dilate(mask).sum() == 27
    assert dilate(mask, 2).sum() == 125
    mask[0, 0, 0] = True
    assert dilate(mask)[:2, :2, :2].all()


def test_nothing_crosses() -> None:
    assert march_logits(np.ones((4, 4, 4), np.float32), bounds=1.0).faces.shape == (0, 3)
    assert march_logits(np.full((4, 4, 4), np.nan, np.float32), bounds=1.0).vertices.shape == (0, 3)
