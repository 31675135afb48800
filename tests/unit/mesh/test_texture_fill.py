from __future__ import annotations

import numpy as np
import pytest

from dream_cad.exceptions import ShapeError
from dream_cad.mesh.texture_fill import dilate, dilation_rounds, to_uint8


def plain_dilation(image: np.ndarray, mask: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """One round, word for word (Stable Fast 3D spec, section 11)."""
    height, width = mask.shape
    around = np.pad(mask, 1)
    wider = np.zeros_like(mask)
    total, count = np.zeros_like(image), np.zeros(mask.shape)
    for row in range(height):
        for column in range(width):
            wider[row, column] = around[row : row + 3, column : column + 3].any()
    for row in range(1, height - 1):
        for column in range(1, width - 1):
            window = np.s_[row - 1 : row + 2, column - 1 : column + 2]
            mean = (image[window] * mask[window][..., None]).sum((0, 1))
            total[window] += mean / max(mask[window].sum(), 1)
    padded = np.pad(wider, 1)
    for row in range(height):
        for column in range(width):
            count[row, column] = padded[row : row + 3, column : column + 3].sum()
    new = total / np.maximum(count, 1)[..., None]
    changed = wider & ~mask
    return np.where(changed[..., None], new, image), wider


def test_dilation_equals_the_rule(rng: np.random.Generator) -> None:
    mask = rng.random((14, 11)) < 0.1
    mask[0, 0] = mask[-1, -1] = True
    image = (rng.random((14, 11, 3)) * mask[..., None]).astype(np.float32)
    wanted, grown = image.astype(np.float64), mask
    for _ in range(3):
        wanted, grown = plain_dilation(wanted, grown)
    assert dilate(image, mask, 3) == pytest.approx(wanted, abs=1e-6)


def test_inside_stays_and_outside_counts_as_nothing(rng: np.random.Generator) -> None:
    mask = np.zeros((12, 12), bool)
    mask[4:8, 4:8] = True
    image = rng.random((12, 12, 3)).astype(np.float32)
    grown = dilate(image, mask, 2)
    assert np.array_equal(grown[mask], image[mask])
    assert np.array_equal(grown, dilate(image * mask[..., None], mask, 2))
    assert (grown[2:10, 2:10] > 0).all()
    assert (grown[:2] == 0).all()
    assert np.array_equal(dilate(image, mask, 0), image * mask[..., None])


def test_nothing_to_grow_from_and_nothing_to_fill() -> None:
    image = np.ones((6, 6, 3), np.float32)
    assert (dilate(image, np.zeros((6, 6), bool), 4) == 0).all()
    assert np.array_equal(dilate(image, np.ones((6, 6), bool), 4), image)


def test_published_number_of_rounds() -> None:
    assert [dilation_rounds(size) for size in (256, 512, 1024, 2048, 4096)] == [1, 3, 6, 13, 27]


def test_bytes_without_dither() -> None:
    image = np.array([[[0.0, 0.5, 1.0], [-0.1, 1.2, 0.999]]], np.float32)
    assert to_uint8(image).tolist() == [[[0, 128, 255], [0, 255, 255]]]


def test_dither_is_one_number_a_texel_and_repeatable() -> None:
    image = np.full((64, 64, 3), 100.5 / 256, np.float32)
    dithered = to_uint8(image, np.random.default_rng(1))
    assert set(np.unique(dithered)) == {100, 101} or set(np.unique(dithered)) == {100}
    assert np.array_equal(dithered, to_uint8(image, np.random.default_rng(1)))
    assert (dithered == dithered[..., :1]).all()
    spread = to_uint8(image + np.float32(0.5 / 256), np.random.default_rng(1))
    assert spread.mean() == pytest.approx(100.5, abs=0.05)
    nowhere = to_uint8(image, np.random.default_rng(1), where=np.zeros((64, 64), bool))
    assert np.array_equal(nowhere, to_uint8(image))


def test_bad_input_is_refused() -> None:
    with pytest.raises(ShapeError, match="NaN"):
        to_uint8(np.full((2, 2, 3), np.nan, np.float32))
    with pytest.raises(ShapeError):
        dilate(np.zeros((4, 4, 3), np.float32), np.zeros((4, 5), bool), 1)
