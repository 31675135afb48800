from __future__ import annotations

import numpy as np
import pytest
import torch
from PIL import Image

from dream_cad.exceptions import ShapeError
from dream_cad.models.triposr.preprocess import image_to_tensor


def test_constant_picture_stays_constant() -> None:
    tensor = image_to_tensor(Image.new("RGB", (30, 17), (255, 127, 0)), 8)
    assert tensor.shape == (1, 3, 8, 8)
    assert tensor.dtype == torch.float32
    expected = torch.tensor([1.0, 127 / 255, 0.0]).view(1, 3, 1, 1).expand(1, 3, 8, 8)
    torch.testing.assert_close(tensor, expected)


def test_shrinking_is_antialiased() -> None:
    stripes = np.zeros((64, 64, 3), np.uint8)
    stripes[:, ::2] = 255
    tensor = image_to_tensor(stripes, 8)
    assert (tensor - 0.5).abs().max() < 0.1


def test_rows_stay_rows() -> None:
    pixels = np.zeros((16, 16, 3), np.uint8)
    pixels[:8] = 255
    tensor = image_to_tensor(pixels, 16)
    assert tensor[0, 0, 0].min() == 1
    assert tensor[0, 0, -1].max() == 0


@pytest.mark.parametrize("shape", [(8, 8), (8, 8, 4), (1, 8, 8, 3)])
def test_other_shapes_are_refused(shape: tuple[int, ...]) -> None:
    with pytest.raises(ShapeError, match="uint8"):
        image_to_tensor(np.zeros(shape, np.uint8), 8)


def test_float_pixels_are_refused() -> None:
    with pytest.raises(ShapeError, match="float64"):
        image_to_tensor(np.zeros((8, 8, 3)), 8)
