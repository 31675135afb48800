from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from dream_cad.exceptions import InvalidConfigError
from dream_cad.images import crop


def _rgba(height: int, width: int, box: tuple[int, int, int, int]) -> Image.Image:
    """White picture whose rows y0..y1 and columns x0..x1 (inclusive) are opaque."""
    pixels = np.full((height, width, 4), (255, 255, 255, 0), np.uint8)
    y0, y1, x0, x1 = box
    pixels[y0 : y1 + 1, x0 : x1 + 1, 3] = 255
    return Image.fromarray(pixels)


def test_crop_drops_the_last_row_and_column_as_the_spec_says() -> None:
    cropped = np.asarray(crop.crop_to_foreground(_rgba(40, 50, (10, 30, 5, 15)), 1.0))

    assert cropped.shape == (20, 20, 4)
    assert (cropped[..., 3] > 0).sum() == 20 * 10
    columns = np.flatnonzero(cropped[..., 3].any(axis=0))
    assert (columns[0], columns[-1]) == (5, 14)


def test_padding_puts_the_smaller_half_before() -> None:
    cropped = np.asarray(crop.crop_to_foreground(_rgba(20, 20, (2, 12, 3, 8)), 1.0))

    columns = np.flatnonzero(cropped[..., 3].any(axis=0))  # 5 wide in 10: 2 before, 3 after
    assert (columns[0], columns[-1]) == (2, 6)


def test_object_of_ten_at_ratio_85_gives_a_canvas_of_eleven() -> None:
    assert crop.crop_to_foreground(_rgba(20, 20, (2, 12, 3, 13))).size == (11, 11)


def test_pure_background_becomes_127_and_opaque_pixels_stay() -> None:
    pixels = np.zeros((1, 3, 4), np.uint8)
    pixels[0, 1] = (10, 200, 255, 255)
    pixels[0, 2] = (255, 0, 100, 128)

    blended = np.asarray(crop.composite_on_grey(Image.fromarray(pixels)))

    assert blended[0, 0].tolist() == [127, 127, 127]
    assert blended[0, 1].tolist() == [10, 200, 255]
    np.testing.assert_allclose(blended[0, 2], [191, 63, 113], atol=1)


def test_composite_does_not_depend_on_row_chunks(monkeypatch: pytest.MonkeyPatch) -> None:
    rgba = Image.fromarray(np.random.default_rng(0).integers(0, 256, (37, 5, 4), np.uint8))
    whole = np.asarray(crop.composite_on_grey(rgba))
    monkeypatch.setattr(crop, "_COMPOSITE_ROWS", 4)
    np.testing.assert_array_equal(np.asarray(crop.composite_on_grey(rgba)), whole)


@pytest.mark.parametrize("ratio", [0.0, -1.0, 1.01, float("nan"), float("inf"), 0.05])
def test_ratio_out_of_range_is_refused(ratio: float) -> None:
    with pytest.raises(InvalidConfigError, match="foreground_ratio"):
        crop.crop_to_foreground(_rgba(20, 20, (2, 12, 3, 13)), ratio)


@pytest.mark.parametrize("box", [(5, 5, 3, 9), (3, 9, 5, 5), (9, 3, 9, 3)])
def test_empty_or_line_thin_object_is_refused(box: tuple[int, int, int, int]) -> None:
    with pytest.raises(InvalidConfigError, match="Nothing is left"):
        crop.crop_to_foreground(_rgba(20, 20, box))


@pytest.mark.parametrize("function", [crop.crop_to_foreground, crop.composite_on_grey])
def test_pictures_without_alpha_are_refused(function) -> None:  # type: ignore[no-untyped-def]
    with pytest.raises(InvalidConfigError, match="mode RGB"):
        function(Image.new("RGB", (20, 20)))


def test_long_picture_does_not_ask_for_gigabytes() -> None:
    canvas = crop.crop_to_foreground(_rgba(16, 12_000, (0, 15, 0, 11_999)), 0.85)

    assert max(canvas.size) <= crop.MAX_CANVAS_SIDE
    alpha = np.asarray(canvas)[..., 3]
    assert np.count_nonzero(alpha.any(axis=0)) == pytest.approx(0.85 * canvas.width, abs=2)


@settings(max_examples=60, deadline=None)
@given(
    height=st.integers(2, 40),
    width=st.integers(2, 40),
    ratio=st.floats(0.5, 1.0),
    seed=st.integers(0, 2**16),
)
def test_crop_is_a_centred_square_that_keeps_every_pixel(
    height: int, width: int, ratio: float, seed: int
) -> None:
    pixels = np.random.default_rng(seed).integers(1, 256, (height, width, 4), np.uint8)

    canvas = np.asarray(crop.crop_to_foreground(Image.fromarray(pixels), ratio))

    assert canvas.shape[0] == canvas.shape[1] == int((max(height, width) - 1) / ratio)
    rows, columns = np.nonzero(canvas[..., 3])
    inner = canvas[rows.min() : rows.max() + 1, columns.min() : columns.max() + 1]
    np.testing.assert_array_equal(inner, pixels[:-1, :-1])
    for indices in (rows, columns):
        assert abs(indices.min() - (len(canvas) - 1 - indices.max())) <= 2


@pytest.mark.parametrize("case", ["foreground_0", "foreground_1"])
def test_reference_cases_are_met_to_the_bit(case: str) -> None:
    folder = Path(os.environ.get("DREAM_CAD_REFERENCE_DIR", "tests/reference/data"))
    with np.load(folder / "triposr" / "image.npz") as arrays:
        rgba = Image.fromarray(arrays[f"{case}/rgba"])
        padded, composite = arrays[f"{case}/padded_rgba"], arrays[f"{case}/composite"]

    np.testing.assert_array_equal(np.asarray(crop.crop_to_foreground(rgba, 0.85)), padded)
    np.testing.assert_array_equal(np.asarray(crop.prepare_foreground(rgba, 0.85)), composite)
