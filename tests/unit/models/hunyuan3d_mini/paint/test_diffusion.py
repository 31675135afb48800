from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from dream_cad.exceptions import (
    CheckpointError,
    GenerationCancelledError,
    GenerationError,
    InvalidConfigError,
    ShapeError,
)
from dream_cad.models.hunyuan3d_mini.paint.diffusion import PaintDiffusion
from dream_cad.models.hunyuan3d_mini.paint.samplers import SeededNoise
from dream_cad.models.hunyuan3d_mini.paint.weights import PaintVariant
from tests.tiny_hunyuan3d_paint import PAINT_SCHEDULER, UNET, VAE, tiny_diffusion

LABELS = [21, 12]
Picture = NDArray[np.uint8]


def pictures(count: int, seed: int, channels: int = 3) -> Picture:
    shape = (count, 32, 32, channels)
    return np.random.default_rng(seed).integers(0, 256, shape, dtype=np.uint8)


def inputs(**changes: Any) -> dict[str, Any]:
    return {
        "reference": [pictures(1, 0)[0]],
        "normals": pictures(2, 1),
        "positions": pictures(2, 2),
        "camera_labels": LABELS,
        "num_inference_steps": 2,
    } | changes


@pytest.fixture(scope="module")
def turbo() -> PaintDiffusion:
    return tiny_diffusion("turbo")


@pytest.mark.parametrize("variant", ["standard", "turbo"])
def test_a_seed_gives_the_same_views_and_another_seed_others(variant: PaintVariant) -> None:
    diffusion = tiny_diffusion(variant)
    views = diffusion.views(**inputs(), seed=3)
    assert views.shape == (2, 32, 32, 3)
    assert views.dtype == np.uint8
    np.testing.assert_array_equal(diffusion.views(**inputs(), seed=3), views)
    assert (diffusion.views(**inputs(), seed=4) != views).any()


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
@pytest.mark.parametrize("variant", ["standard", "turbo"])
def test_half_precision_is_near(variant: PaintVariant, dtype: torch.dtype) -> None:
    diffusion = tiny_diffusion(variant)
    views = diffusion.views(**inputs(), seed=3).astype(int)
    diffusion.unet.to(dtype)
    diffusion.codec.vae.to(dtype)
    near = diffusion.views(**inputs(), seed=3).astype(int)
    assert np.abs(near - views).mean() < 3


def test_the_reference_is_looked_at(turbo: PaintDiffusion) -> None:
    views = turbo.views(**inputs())
    other = turbo.views(**inputs(reference=[pictures(1, 9)[0]]))
    two = turbo.views(**inputs(reference=list(pictures(2, 0))))
    assert (views != other).any()
    assert (views != two).any()


def test_a_reference_with_alpha_is_put_on_grey(turbo: PaintDiffusion) -> None:
    clear = pictures(1, 0, channels=4)[0]
    clear[..., 3] = 0
    grey = np.full((32, 32, 3), 127, dtype=np.uint8)
    np.testing.assert_array_equal(
        turbo.views(**inputs(reference=[clear])), turbo.views(**inputs(reference=[grey]))
    )


@pytest.mark.parametrize("variant", ["standard", "turbo"])
def test_the_reference_is_read_once(variant: PaintVariant, monkeypatch: pytest.MonkeyPatch) -> None:
    diffusion, calls = tiny_diffusion(variant), []
    read = diffusion.unet.read_reference
    monkeypatch.setattr(
        diffusion.unet,
        "read_reference",
        lambda latents: calls.append(latents.shape) or read(latents),
    )
    diffusion.views(**inputs())
    assert calls == [(1, 1, 4, 4, 4)]


def test_progress_is_told_and_can_cancel(turbo: PaintDiffusion) -> None:
    told: list[tuple[float, str]] = []

    def progress(fraction: float, stage: str) -> None:
        told.append((fraction, stage))

    turbo.views(**inputs(), progress=progress)
    assert [stage for _, stage in told] == ["encode", "paint 1/2", "paint 2/2", "decode"]
    assert [fraction for fraction, _ in told] == sorted(fraction for fraction, _ in told)

    def cancel(_: float, stage: str) -> None:
        if stage == "paint 1/2":
            raise GenerationCancelledError("Cancelled.")

    with pytest.raises(GenerationCancelledError):
        turbo.views(**inputs(), progress=cancel)


def test_nan_names_the_step() -> None:
    diffusion = tiny_diffusion("turbo")
    diffusion.unet.unet.conv_out.bias[0] = float("nan")
    with pytest.raises(GenerationError, match="step 1 of 2 of paint"):
        diffusion.views(**inputs())


@pytest.mark.parametrize("part", ["encoder", "decoder"])
def test_nan_of_the_autoencoder_names_its_half(part: str) -> None:
    diffusion = tiny_diffusion("turbo")
    getattr(diffusion.codec.vae, part).conv_out.bias[0] = float("nan")
    with pytest.raises(GenerationError, match=part.removesuffix("r")):
        diffusion.views(**inputs())


@pytest.mark.parametrize(
    ("changes", "error", "text"),
    [
        ({"reference": []}, InvalidConfigError, "0 reference pictures"),
        ({"reference": list(pictures(6, 0))}, InvalidConfigError, "6 reference pictures"),
        (
            {"reference": [pictures(1, 0)[0], np.zeros((16, 16, 3), np.uint8)]},
            ShapeError,
            "different sizes",
        ),
        ({"reference": [np.zeros((32, 30, 3), np.uint8)]}, ShapeError, "multiples of 16"),
        ({"reference": [np.zeros((32, 32, 3))]}, ShapeError, "float64"),
        ({"normals": pictures(3, 0)}, ShapeError, "not of the same views"),
        ({"positions": pictures(2, 0)[:, :16]}, ShapeError, "not of the same views"),
        ({"normals": pictures(2, 0)[:0]}, ShapeError, "uint8 pictures"),
        ({"normals": pictures(2, 0)[..., 0]}, ShapeError, "uint8 pictures"),
        ({"camera_labels": [21]}, ShapeError, "1 camera labels"),
        ({"camera_labels": [21, 44]}, InvalidConfigError, "0 to 43"),
        ({"num_inference_steps": 0}, InvalidConfigError, "1 to 30"),
        ({"num_inference_steps": 31}, InvalidConfigError, "1 to 30"),
    ],
)
def test_bad_input_is_refused(
    turbo: PaintDiffusion, changes: dict[str, Any], error: type[Exception], text: str
) -> None:
    with pytest.raises(error, match=text):
        turbo.views(**inputs(**changes))


def test_a_network_that_predicts_something_else_is_refused() -> None:
    scheduler = PAINT_SCHEDULER | {"prediction_type": "epsilon"}
    with pytest.raises(CheckpointError, match="v_prediction"):
        PaintDiffusion.from_config(UNET, VAE, scheduler)


@pytest.mark.parametrize("changes", [{"upcast_attention": True}, {"use_linear_projection": False}])
def test_a_unet_that_we_do_not_have_is_refused(changes: dict[str, Any]) -> None:
    with pytest.raises(CheckpointError, match=next(iter(changes))):
        PaintDiffusion.from_config(UNET | changes, VAE, PAINT_SCHEDULER)


def test_noise_is_the_same_in_every_precision() -> None:
    exact, half = SeededNoise(5)((2, 3)), SeededNoise(5, dtype=torch.float16)((2, 3))
    assert torch.equal(exact.half(), half)
    source = SeededNoise(5)
    assert torch.equal(source((2, 3)), exact)
    assert not torch.equal(source((2, 3)), exact)
