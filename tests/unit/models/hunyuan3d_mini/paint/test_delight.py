from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from dream_cad.exceptions import GenerationCancelledError, GenerationError, InvalidConfigError
from dream_cad.models.hunyuan3d_mini.paint.delight import (
    Delight,
    delight_with,
    match_colours,
    prepare,
)
from tests.tiny_hunyuan3d_paint import write_delight
from tests.tiny_triposr import picture


@pytest.fixture(scope="module")
def delight(tmp_path_factory: pytest.TempPathFactory) -> Delight:
    return Delight.load(write_delight(tmp_path_factory.mktemp("delight")))


@pytest.fixture(scope="module")
def relit(delight: Delight) -> Image.Image:
    return delight(picture(), num_inference_steps=2)


def test_the_object_stays_on_white(relit: Image.Image) -> None:
    assert relit.mode == "RGB"
    assert relit.size == (512, 512)
    _, alpha = prepare(picture())
    pixels = np.asarray(relit)
    assert (pixels[alpha == 0] == 255).all()
    assert (pixels[alpha == 1] != 255).any()


def test_the_seed_decides(delight: Delight, relit: Image.Image) -> None:
    again = delight(picture(), num_inference_steps=2)
    np.testing.assert_array_equal(np.asarray(again), np.asarray(relit))
    pixels = np.asarray(picture().convert("RGB").resize((64, 64)))
    noises = [torch.randn(1, 4, 8, 8) for _ in range(2)]
    one, two = (delight.relight(pixels, lambda _, n=n: n, 1) for n in noises)
    assert not torch.allclose(one, two)


def test_progress_can_cancel(delight: Delight) -> None:
    def cancel(_: float, stage: str) -> None:
        raise GenerationCancelledError(stage)

    with pytest.raises(GenerationCancelledError, match="delight 1/2"):
        delight(picture(), num_inference_steps=2, progress=cancel)


@pytest.mark.parametrize("steps", [0, 1001])
def test_steps_are_checked(delight: Delight, steps: int) -> None:
    with pytest.raises(InvalidConfigError, match="1 to 1000"):
        delight(picture(), num_inference_steps=steps)


def test_nan_names_the_step(tmp_path: Path) -> None:
    network = Delight.load(write_delight(tmp_path))
    network.unet.conv_out.bias[0] = float("nan")
    pixels = np.zeros((64, 64, 3), np.uint8)
    with pytest.raises(GenerationError, match="step 1 of 2 of delight"):
        network.relight(pixels, torch.randn, 2)


@pytest.mark.parametrize("mode", ["L", "RGB", "P", "LA", "RGBA"])
def test_every_mode_is_taken(mode: str) -> None:
    image = Image.new(mode, (20, 30), 1 if mode == "P" else None)
    result = delight_with(lambda pixels: pixels, image)
    assert result.mode == "RGB"
    assert result.size == (512, 512)


def test_colours_are_matched_only_where_that_is_closer() -> None:
    rng = np.random.default_rng(0)
    target, alpha = rng.random((16, 16, 3)), np.ones((16, 16))
    dark = 0.3 * target
    matched = match_colours(dark, target, alpha)
    assert ((matched - target) ** 2).mean() < ((dark - target) ** 2).mean()
    assert match_colours(target, target, alpha) is target


def test_what_cannot_be_measured_is_left() -> None:
    source, target = np.full((4, 4, 3), 0.5), np.random.default_rng(0).random((4, 4, 3))
    assert match_colours(source, target, np.ones((4, 4))) is source
    assert match_colours(target, source, np.zeros((4, 4))) is target


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_precision_is_near(delight: Delight, tmp_path: Path, dtype: torch.dtype) -> None:
    half = Delight.load(write_delight(tmp_path), dtype=dtype)
    pixels, noise = np.asarray(picture().convert("RGB").resize((64, 64))), torch.randn(1, 4, 8, 8)
    near, exact = (one.relight(pixels, lambda _: noise, 2) for one in (half, delight))
    assert near.dtype == torch.float32
    assert (near - exact).abs().mean() < 0.02
