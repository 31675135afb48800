from __future__ import annotations

import pytest
import torch

from dream_cad.exceptions import ShapeError
from dream_cad.nn.triplane import planes_to_tokens, sample_triplane, tokens_to_planes


def test_tokens_are_plane_major_rows() -> None:
    planes = torch.randn(2, 3, 5, 4, 4)
    tokens = planes_to_tokens(planes)
    assert tokens.shape == (2, 5, 48)
    assert torch.equal(tokens[1, 2, 16 + 4 * 3 + 1], planes[1, 1, 2, 3, 1])
    assert torch.equal(tokens_to_planes(tokens, 4), planes)


def ramps(size: int) -> torch.Tensor:
    """(1, 3, 2, size, size): channel 0 is the coordinate along W, channel 1 along H."""
    centers = (torch.arange(size) + 0.5) / size * 2 - 1
    along_w = centers.expand(size, size)
    return torch.stack((along_w, along_w.T)).expand(1, 3, 2, size, size)


def test_planes_are_sampled_at_xy_xz_yz() -> None:
    point = torch.tensor([[[0.1, -0.3, 0.5]]])
    x, y, z = point[0, 0]
    features = sample_triplane(ramps(16), point)
    torch.testing.assert_close(features[0, 0], torch.stack((x, y, x, z, y, z)))


def test_border_blends_with_zero_and_outside_is_zero() -> None:
    planes = torch.ones(1, 3, 1, 4, 4)
    points = torch.tensor([[[0.0, 0.0, 0.0], [1.0, 0.0, 0.0], [1.0, 1.0, 1.0], [3.0, 3.0, 3.0]]])
    features = sample_triplane(planes, points)
    torch.testing.assert_close(features[0, 0], torch.ones(3))
    torch.testing.assert_close(features[0, 1], torch.tensor([0.5, 0.5, 1.0]))
    torch.testing.assert_close(features[0, 2], torch.full((3,), 0.25))
    torch.testing.assert_close(features[0, 3], torch.zeros(3))


def test_sampling_is_differentiable_in_planes_and_points() -> None:
    planes = torch.randn(2, 3, 2, 4, 4, requires_grad=True)
    points = (torch.rand(2, 6, 3) - 0.5).requires_grad_()
    sample_triplane(planes, points).sum().backward()
    assert planes.grad is not None
    assert planes.grad.abs().sum() > 0
    assert points.grad is not None


@pytest.mark.parametrize(
    ("planes", "points"),
    [((3, 2, 4, 4), (1, 5, 3)), ((1, 2, 2, 4, 4), (1, 5, 3)), ((2, 3, 2, 4, 4), (1, 5, 3))],
)
def test_wrong_shapes_are_refused(planes: tuple[int, ...], points: tuple[int, ...]) -> None:
    with pytest.raises(ShapeError, match="do not fit"):
        sample_triplane(torch.zeros(planes), torch.zeros(points))
