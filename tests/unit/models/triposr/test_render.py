from __future__ import annotations

import math

import pytest
import torch

from dream_cad.models.triposr.render import intersect_box, orbit_rays, render_rays

RADIUS = 0.87


def constant_field(raw: float) -> object:
    def query(points: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        color = torch.tensor([0.2, 0.4, 0.6]).expand(len(points), 3)
        return torch.full((len(points),), raw), color

    return query


def test_first_view_stands_in_front() -> None:
    origins, directions = orbit_rays(4, height=5, width=5)
    torch.testing.assert_close(origins[0, 2, 2], torch.tensor([1.9, 0.0, 0.0]))
    torch.testing.assert_close(directions[0, 2, 2], torch.tensor([-1.0, 0.0, 0.0]))
    torch.testing.assert_close(directions.norm(dim=-1), torch.ones(4, 5, 5))
    assert directions[0, 0, 2, 2] > 0  # the top row looks up
    assert directions[0, 2, 4, 1] > 0  # seen from the front, +y is on the right


@pytest.mark.parametrize("n_views", [1, 3])
def test_every_view_looks_at_the_origin(n_views: int) -> None:
    origins, directions = orbit_rays(n_views, elevation_deg=30, height=3, width=3)
    centre = -torch.nn.functional.normalize(origins[:, 1, 1], dim=-1)
    torch.testing.assert_close(directions[:, 1, 1], centre, atol=1e-6, rtol=0)


def test_box_is_hit_and_missed() -> None:
    origins = torch.tensor([[2.0, 0.0, 0.0], [2.0, 0.0, 0.0], [0.0, 0.0, 0.0]])
    directions = torch.tensor([[-1.0, 0.0, 0.0], [1.0, 0.0, 0.0], [0.0, 0.0, 1.0]])
    near, far, valid = intersect_box(origins, directions, RADIUS)
    half = RADIUS * 0.999
    torch.testing.assert_close(near[:, 0], torch.tensor([2 - half, 0.0, 0.0]))
    torch.testing.assert_close(far[:, 0], torch.tensor([2 + half, 0.0, half]))
    assert valid.tolist() == [True, False, True]


def test_empty_and_solid_fields() -> None:
    origins, directions = orbit_rays(2, height=4, width=4)
    empty = render_rays(constant_field(-50.0), origins, directions, radius=RADIUS)
    torch.testing.assert_close(empty, torch.ones(2, 4, 4, 3), atol=1e-5, rtol=0)
    solid = render_rays(constant_field(20.0), origins, directions, radius=RADIUS)
    torch.testing.assert_close(solid[0, 1, 1], torch.tensor([0.2, 0.4, 0.6]))


def test_rays_that_miss_are_white() -> None:
    origins = torch.tensor([[2.0, 0.0, 0.0], [2.0, 0.0, 0.0]])
    directions = torch.tensor([[1.0, 0.0, 0.0], [-1.0, 0.0, 0.0]])
    colors = render_rays(constant_field(20.0), origins, directions, radius=RADIUS)
    assert colors[0].tolist() == [1.0, 1.0, 1.0]
    assert colors[1, 0] < 0.3


def test_thin_medium_follows_the_absorption_law() -> None:
    origins, directions = torch.tensor([[2.0, 0.0, 0.0]]), torch.tensor([[-1.0, 0.0, 0.0]])
    colors = render_rays(constant_field(1.0 + math.log(0.5)), origins, directions, radius=RADIUS)
    passed = math.exp(-0.5)
    assert colors[0, 0].item() == pytest.approx(0.2 * (1 - passed) + passed, abs=1e-5)
