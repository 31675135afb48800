from __future__ import annotations

import pickle

import pytest
import torch

from dream_cad.exceptions import ShapeError
from dream_cad.models.triposr.config import TripoSRConfig
from dream_cad.models.triposr.field import TriplaneField
from dream_cad.models.triposr.network import NeRFMLP, TripoSRNetwork


def make_field() -> TriplaneField:
    torch.manual_seed(0)
    planes = torch.randn(3, 6, 8, 8)
    return TriplaneField(planes, NeRFMLP(18, 16, 2), radius=0.87, density_bias=-1.0)


def test_field_equals_the_network_query() -> None:
    config = TripoSRConfig.tiny()
    network = TripoSRNetwork(config).eval()
    planes = torch.randn(1, 3, config.out_channels, 8, 8)
    points = torch.rand(40, 3) - 0.5
    field = TriplaneField(
        planes[0], network.decoder, radius=config.radius, density_bias=config.density_bias
    )
    raw, color = network.query(planes, points[None])
    torch.testing.assert_close(field.raw_density(points), raw[0])
    torch.testing.assert_close(field.color(points), color[0])
    both = field.query(points)
    torch.testing.assert_close(both, (raw[0], color[0]))


def test_density_is_activated_raw_density() -> None:
    field, points = make_field(), torch.rand(10, 3) - 0.5
    torch.testing.assert_close(field.density(points), torch.exp(field.raw_density(points) - 1))


def test_no_gradients_are_recorded() -> None:
    assert not make_field().raw_density(torch.zeros(2, 3)).requires_grad


def test_copy_and_pickle_give_the_same_field() -> None:
    field, points = make_field(), torch.rand(10, 3)
    copied = field.to("cpu")
    assert copied.decoder is not field.decoder
    pickled = pickle.loads(pickle.dumps(field))  # noqa: S301 - bytes of our own
    for other in (copied, pickled):
        assert torch.equal(other.color(points), field.color(points))


def test_batched_code_is_refused() -> None:
    with pytest.raises(ShapeError, match=r"not \(3, C, H, W\)"):
        TriplaneField(torch.zeros(1, 3, 6, 8, 8), NeRFMLP(18, 16, 2), radius=1, density_bias=0)
