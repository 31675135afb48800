from __future__ import annotations

import cv2
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from PIL import Image

from dream_cad.exceptions import InvalidConfigError
from dream_cad.images import matting
from dream_cad.images.backdrop import fit_backdrop
from dream_cad.images.grabcut import cut_out
from dream_cad.images.matting import matte, remove_background

SIZE = 160
OVERSAMPLING = 4
BACKDROPS = ["grey", "white", "blue", "gradient", "vignette", "noisy", "noisy gradient"]


@pytest.fixture(autouse=True)
def _no_network_at_hand(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(matting, "find_matting_model", lambda: None)


def _coverage(shape: str, size: int = SIZE) -> NDArray[np.float32]:
    """Anti-aliased coverage (size, size) of a shape with thin parts or holes."""
    canvas = np.zeros((size * OVERSAMPLING,) * 2, np.uint8)
    unit = size * OVERSAMPLING / 100

    def box(x0: float, y0: float, x1: float, y1: float, value: int = 255) -> None:
        corners = [tuple(round(v * unit) for v in corner) for corner in ((x0, y0), (x1, y1))]
        cv2.rectangle(canvas, *corners, value, -1)

    if shape == "disc":
        cv2.circle(canvas, (round(50 * unit),) * 2, round(30 * unit), 255, -1)
    elif shape == "ring":
        cv2.circle(canvas, (round(50 * unit),) * 2, round(30 * unit), 255, round(10 * unit))
    else:  # a chair: back with a hole, seat, two legs
        box(30, 15, 66, 50)
        box(38, 22, 58, 42, 0)
        box(25, 50, 75, 58)
        box(28, 58, 32, 85)
        box(68, 58, 72, 85)
    return cv2.resize(canvas, (size, size), interpolation=cv2.INTER_AREA) / np.float32(255)


def _backdrop(name: str, size: int = SIZE) -> NDArray[np.float32]:
    y, x = np.mgrid[0:size, 0:size].astype(np.float32) / (size - 1)
    ramp = np.stack((90 + 80 * y + 30 * x, 100 + 60 * y, 150 + 40 * y - 30 * x), axis=-1)
    radius = ((x - 0.5) ** 2 + (y - 0.5) ** 2)[..., None]
    return {
        "grey": np.full((size, size, 3), 127, np.float32),
        "white": np.full((size, size, 3), 250, np.float32),
        "blue": np.full((size, size, 3), (60, 90, 170), np.float32),
        "gradient": ramp,
        "vignette": np.array((190, 180, 170), np.float32) * (1 - 0.8 * radius),
        "noisy": np.full((size, size, 3), 127, np.float32),
        "noisy gradient": ramp,
    }[name]


def _scene(
    backdrop: str, shape: str = "chair", size: int = SIZE, color: tuple[int, ...] = (190, 60, 40)
) -> tuple[NDArray[np.uint8], NDArray[np.float32]]:
    """A shaded object before a backdrop, and its coverage."""
    coverage = _coverage(shape, size)
    shading = np.linspace(1.15, 0.7, size, dtype=np.float32)[None, :, None]
    paint = np.array(color, np.float32) * shading
    mixed = paint * coverage[..., None] + _backdrop(backdrop, size) * (1 - coverage[..., None])
    if "noisy" in backdrop:
        mixed = mixed + np.random.default_rng(0).normal(0, 5, mixed.shape)
    return np.clip(np.rint(mixed), 0, 255).astype(np.uint8), coverage


def _iou(alpha: NDArray[np.uint8], coverage: NDArray[np.float32]) -> float:
    found, truth = alpha > 127, coverage > 0.5
    return float((found & truth).sum() / (found | truth).sum())


@pytest.mark.parametrize("shape", ["chair", "disc", "ring"])
@pytest.mark.parametrize("backdrop", BACKDROPS)
def test_objects_are_cut_out_of_plain_graded_and_noisy_backdrops(backdrop: str, shape: str) -> None:
    picture, coverage = _scene(backdrop, shape)
    assert _iou(cut_out(picture)[..., 3], coverage) >= 0.97


@pytest.mark.parametrize("color", [(20, 20, 20), (240, 240, 240), (30, 120, 40), (150, 110, 70)])
def test_objects_of_many_colours_are_cut_out_of_grey(color: tuple[int, ...]) -> None:
    picture, coverage = _scene("grey", color=color)
    assert _iou(cut_out(picture)[..., 3], coverage) >= 0.95


def test_edges_are_soft_and_freed_of_the_backdrop() -> None:
    picture, coverage = _scene("white", "disc", color=(40, 40, 160))
    cut = cut_out(picture)
    alpha = cut[..., 3].astype(np.float32) / 255

    assert np.abs(alpha - coverage).mean() < 0.01
    edge = (alpha > 0.3) & (alpha < 0.95)
    assert edge.sum() > 50
    assert np.median(cut[edge, 0]) < 90, "a white fringe would make red as high as the backdrop's"


def test_cutting_on_grey_and_compositing_on_grey_gives_the_picture_back() -> None:
    from dream_cad.images.crop import composite_on_grey

    picture, _ = _scene("grey")
    back = np.asarray(composite_on_grey(Image.fromarray(cut_out(picture))))
    difference = np.abs(back.astype(int) - picture.astype(int)).max(axis=-1)
    assert np.quantile(difference, 0.99) <= 3


def test_object_that_leaves_the_picture_is_kept() -> None:
    picture, coverage = _scene("grey", "disc")
    picture, coverage = picture[60:], coverage[60:]
    assert _iou(cut_out(picture)[..., 3], coverage) >= 0.97


@pytest.mark.parametrize("size", [32, 500, 2100])
def test_small_and_large_pictures_keep_their_size(size: int) -> None:
    picture, coverage = _scene("grey", "disc", size)
    cut = cut_out(picture)
    assert cut.shape == (size, size, 4)
    assert _iou(cut[..., 3], coverage) >= 0.97


def test_same_picture_same_matte() -> None:
    picture, _ = _scene("noisy gradient")
    np.testing.assert_array_equal(cut_out(picture), cut_out(picture))


def test_backdrop_fit_recovers_the_gradient_behind_the_object() -> None:
    picture, _ = _scene("gradient", "disc")
    empty = np.rint(_backdrop("gradient")).astype(np.uint8)
    difference = fit_backdrop(picture).lab - fit_backdrop(empty).lab
    assert np.abs(difference).max() < 3


@pytest.mark.parametrize(
    "pixels",
    [
        np.full((64, 64, 3), 127, np.uint8),
        np.clip(np.random.default_rng(0).normal(127, 8, (64, 64, 3)), 0, 255).astype(np.uint8),
        np.rint(_backdrop("gradient")).astype(np.uint8),
        np.random.default_rng(0).integers(0, 256, (64, 64, 3), np.uint8),
    ],
    ids=["flat", "noise", "gradient", "static"],
)
def test_pictures_without_an_object_are_refused(pixels: NDArray[np.uint8]) -> None:
    with pytest.raises(InvalidConfigError, match=r"No object stands out|cannot be told"):
        remove_background(Image.fromarray(pixels), "grabcut")


def test_alpha_is_taken_as_it_is_and_comes_first() -> None:
    pixels = np.full((20, 20, 4), 90, np.uint8)
    pixels[5:15, 5:15, 3] = 255

    result = matte(Image.fromarray(pixels))

    assert result.method == "alpha"
    assert result.model is None
    np.testing.assert_array_equal(np.asarray(result.image), pixels)
    assert result.coverage == pytest.approx((100 + 300 * 90 / 255) / 400)


def test_opaque_alpha_channel_counts_as_none() -> None:
    picture, coverage = _scene("grey")
    rgba = Image.fromarray(picture).convert("RGBA")

    result = matte(rgba)

    assert result.method == "grabcut"
    assert _iou(np.asarray(result.image)[..., 3], coverage) >= 0.97
    assert result.coverage == pytest.approx(coverage.mean(), abs=0.01)
    with pytest.raises(InvalidConfigError, match="no transparency"):
        matte(rgba, "alpha")


def test_fully_transparent_picture_is_refused() -> None:
    with pytest.raises(InvalidConfigError, match="fully transparent"):
        matte(Image.new("RGBA", (20, 20), (200, 10, 10, 0)))


@pytest.mark.parametrize("method", ["", "rembg", "Auto", None])
def test_unknown_methods_are_refused_with_the_legal_ones(method: str) -> None:
    with pytest.raises(InvalidConfigError, match="auto, alpha, model, grabcut"):
        matte(Image.new("RGB", (20, 20)), method)  # type: ignore[arg-type]


def test_other_modes_are_refused() -> None:
    with pytest.raises(InvalidConfigError, match="mode L"):
        matte(Image.new("L", (20, 20)))


@settings(max_examples=40, deadline=None)
@given(
    height=st.integers(8, 40),
    width=st.integers(8, 40),
    seed=st.integers(0, 2**16),
    levels=st.sampled_from([1, 2, 4, 256]),
)
def test_any_picture_gives_a_matte_of_its_size(
    height: int, width: int, seed: int, levels: int
) -> None:
    values = np.random.default_rng(seed).integers(0, levels, (height, width, 3))
    picture = (values * (255 // max(1, levels - 1))).astype(np.uint8)
    assert cut_out(picture).shape == (height, width, 4)
