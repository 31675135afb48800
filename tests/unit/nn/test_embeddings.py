from __future__ import annotations

import pytest
import torch

from dream_cad.exceptions import ShapeError
from dream_cad.nn.embeddings import interpolate_position_embeddings


def test_fitting_grid_is_returned_untouched() -> None:
    embeddings = torch.randn(1, 10, 4)
    assert interpolate_position_embeddings(embeddings, 3, 3, "scale") is embeddings


@pytest.mark.parametrize("mode", ["scale", "size"])
def test_constant_grid_stays_constant_and_cls_is_kept(mode: str) -> None:
    embeddings = torch.cat((torch.full((1, 1, 4), 7.0), torch.full((1, 9, 4), 2.0)), dim=1)
    out = interpolate_position_embeddings(embeddings, 5, 8, mode)
    assert out.shape == (1, 41, 4)
    assert torch.equal(out[:, 0], embeddings[:, 0])
    torch.testing.assert_close(out[:, 1:], torch.full((1, 40, 4), 2.0))


def test_modes_differ() -> None:
    embeddings = torch.randn(1, 1 + 14 * 14, 3)
    scale = interpolate_position_embeddings(embeddings, 32, 32, "scale")
    size = interpolate_position_embeddings(embeddings, 32, 32, "size")
    assert scale.shape == size.shape == (1, 1025, 3)
    assert (scale - size).abs().max() > 1e-3


def test_half_precision_is_resampled_in_float32() -> None:
    embeddings = torch.randn(1, 17, 3, dtype=torch.bfloat16)
    out = interpolate_position_embeddings(embeddings, 7, 7, "scale")
    exact = interpolate_position_embeddings(embeddings.float(), 7, 7, "scale")
    assert out.dtype == torch.bfloat16
    assert torch.equal(out, exact.bfloat16())


@pytest.mark.parametrize("shape", [(1, 9, 4), (9, 4)])
def test_grid_that_is_not_square_is_refused(shape: tuple[int, ...]) -> None:
    with pytest.raises(ShapeError, match="square grid"):
        interpolate_position_embeddings(torch.zeros(shape), 4, 4, "scale")
