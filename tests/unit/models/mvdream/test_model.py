from __future__ import annotations

import io
import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor

from dream_cad import ModelFactory
from dream_cad.exceptions import (
    CheckpointError,
    GenerationCancelledError,
    GenerationError,
    InvalidConfigError,
)
from dream_cad.models.base import GenerationResult, ignore_progress
from dream_cad.models.mvdream import MVDream
from dream_cad.models.mvdream.config import MVDreamConfig, UNetConfig, read_section
from dream_cad.models.mvdream.lgm_input import lgm_input, recenter
from dream_cad.models.mvdream.options import MVDreamOptions
from dream_cad.models.mvdream.pipeline import mesh_of_cloud, prepare_views
from dream_cad.models.mvdream.sampler import Guidance, NoisePredictor
from dream_cad.models.mvdream.weights import ORIGINAL_FILE, UNET_FILE, load_networks
from dream_cad.splats.cloud import GaussianCloud
from dream_cad.splats.ply import parse_ply
from tests.tiny_mvdream import PROMPT, original_state, write_checkpoint

OPTIONS = {
    "seed": 3,
    "num_inference_steps": 3,
    "resolution": 32,
    "density_threshold": 0.5,
    "remove_background": False,
}


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_checkpoint(tmp_path_factory.mktemp("mvdream"))


@pytest.fixture(scope="module")
def model(folder: Path) -> MVDream:
    return MVDream(checkpoint=folder, device="cpu")


@pytest.fixture(scope="module")
def result(model: MVDream) -> GenerationResult:
    return model.generate_from_text(PROMPT, **OPTIONS)


def test_factory_creates_it(folder: Path) -> None:
    made = ModelFactory.create_model("mvdream", checkpoint=folder, device="cpu")
    assert isinstance(made, MVDream)
    assert not made.text_through_image
    assert not made.capabilities.supports_image_to_3d


def test_result_is_a_centred_coloured_unit_mesh(result: GenerationResult) -> None:
    assert len(result.faces) > 100
    low, high = result.vertices.min(axis=0), result.vertices.max(axis=0)
    np.testing.assert_allclose(low + high, 0, atol=1e-5)
    assert (high - low).max() == pytest.approx(1.0, abs=1e-5)
    assert result.vertex_colors is not None
    assert result.vertex_colors.std() > 1


def test_views_and_splats_come_with_it(result: GenerationResult) -> None:
    sheet = Image.open(io.BytesIO(result.files["views.png"]))
    assert sheet.size == (4 * 32, 32)
    assert len(parse_ply(result.files["splats.ply"])) == 4 * 16 * 16


def test_receipt_says_how_it_was_made(result: GenerationResult) -> None:
    metadata = json.loads(json.dumps(result.metadata))
    assert metadata["seed"] == 3
    assert metadata["options"]["guidance_scale"] == 7.5
    assert metadata["options"]["prompt_suffix"] is True
    assert metadata["options"]["negative_prompt"].startswith("ugly, blurry")
    assert metadata["options"]["closing"] == 1
    assert metadata["checkpoint"]["kind"] == "folder"


@pytest.mark.parametrize("name", ["mesh.glb", "mesh.obj", "mesh.ply", "mesh.stl"])
def test_every_format_is_written(result: GenerationResult, tmp_path: Path, name: str) -> None:
    assert Path(result.save(tmp_path / name)).stat().st_size > 1_000


def test_the_seed_decides(model: MVDream, result: GenerationResult) -> None:
    again = model.generate_from_text(PROMPT, **OPTIONS)
    np.testing.assert_array_equal(again.vertices, result.vertices)
    assert again.files == result.files
    other = model.generate_from_text(PROMPT, **OPTIONS | {"seed": 4})
    assert other.files["views.png"] != result.files["views.png"]


def test_views_alone_equal_those_of_the_mesh(model: MVDream, result: GenerationResult) -> None:
    sheets = model.generate_views(PROMPT, samples=2, seed=3, num_inference_steps=3)
    assert len(sheets) == 2
    of_mesh = np.asarray(Image.open(io.BytesIO(result.files["views.png"]))).astype(int)
    assert np.abs(np.asarray(sheets[0]).astype(int) - of_mesh).max() <= 1  # batched: rounding
    assert np.abs(np.asarray(sheets[1]).astype(int) - of_mesh).max() > 5


def drawn(model: MVDream, scheduler: str, steps: int) -> NDArray[np.float64]:
    (sheet,) = model.generate_views(
        PROMPT, seed=1, num_inference_steps=steps, scheduler=scheduler, guidance_scale=2.0
    )
    return np.asarray(sheet).astype(np.float64)


@pytest.fixture(scope="module")
def limit(model: MVDream) -> NDArray[np.float64]:
    """What all schedulers approach: they solve the same equation from the same noise."""
    return drawn(model, "ddim", 200)


@pytest.mark.parametrize("scheduler", ["ddim", "dpm++", "unipc", "euler"])
def test_schedulers_approach_the_same_views(
    model: MVDream, limit: NDArray[np.float64], scheduler: str
) -> None:
    errors = [np.abs(drawn(model, scheduler, steps) - limit).mean() for steps in (5, 20)]
    assert errors[1] < 0.5 * errors[0]
    assert errors[1] < 0.1 * limit.std()


@pytest.mark.parametrize("scheduler", ["dpm++", "unipc"])
def test_solvers_of_higher_order_are_closer_in_few_steps(
    model: MVDream, limit: NDArray[np.float64], scheduler: str
) -> None:
    fast, plain = (np.abs(drawn(model, name, 5) - limit).mean() for name in (scheduler, "ddim"))
    assert fast < 0.9 * plain


def test_views_are_decoded_one_by_one(model: MVDream, monkeypatch: pytest.MonkeyPatch) -> None:
    vae = model._require_loaded().pipeline.network.vae
    decode, batches = vae.decode, []

    def noted(latents: Tensor) -> Any:
        batches.append(len(latents))
        return decode(latents)

    monkeypatch.setattr(vae, "decode", noted)
    model.generate_views(PROMPT, samples=3, seed=1, num_inference_steps=1)
    assert batches == [1] * 12


def test_prompts_negative_prompt_and_suffix_matter(model: MVDream) -> None:
    def views(prompt: str = PROMPT, **options: object) -> NDArray[np.uint8]:
        sheets = model.generate_views(prompt, seed=1, num_inference_steps=2, **options)
        return np.asarray(sheets[0])

    plain = views()
    assert (views("a blue vase") != plain).any()
    assert (views(negative_prompt="") != plain).any()
    assert (views(prompt_suffix=False) != plain).any()
    assert (views(elevation_deg=20.0) != plain).any()


def test_guidance_of_one_leaves_the_negative_prompt_out(model: MVDream) -> None:
    first, second = (
        model.generate_views(
            PROMPT, seed=1, num_inference_steps=2, guidance_scale=1.0, negative_prompt=text
        )[0]
        for text in ("", "ugly")
    )
    np.testing.assert_array_equal(np.asarray(first), np.asarray(second))


@torch.no_grad()
def test_one_guided_batch_equals_two_runs(folder: Path) -> None:
    network = load_networks(folder).network
    random = torch.Generator().manual_seed(0)
    cond, uncond = torch.randn(2, 77, 48, generator=random)
    cameras = torch.randn(4, 16, generator=random)
    latents = torch.randn(8, 4, 8, 8, generator=random)
    both = NoisePredictor(network.unet, Guidance(cond, uncond, cameras, 5.0), 2)(latents, 500)
    alone = [
        NoisePredictor(network.unet, Guidance(text, text, cameras, 0.0), 2)(latents, 500)
        for text in (uncond, cond)
    ]
    torch.testing.assert_close(both, alone[0] + 5 * (alone[1] - alone[0]), rtol=1e-3, atol=1e-4)


def test_texture_and_target_faces(model: MVDream) -> None:
    options = OPTIONS | {"texture": True, "texture_size": 256, "target_faces": 300}
    made = model.generate_from_text(PROMPT, **options)
    assert made.texture is not None
    assert made.texture.shape == (256, 256, 3)
    assert made.vertex_colors is None
    assert len(made.faces) <= 330


def test_the_original_layout_gives_the_same_views(
    folder: Path, tmp_path: Path, model: MVDream
) -> None:
    torch.save(original_state(folder), tmp_path / ORIGINAL_FILE)
    parts = {"unet": "unet", "vae": "vae", "text_encoder": "text_encoder"}
    sections = {
        name: json.loads((folder / part / "config.json").read_text())
        for name, part in parts.items()
    }
    (tmp_path / "config.json").write_text(json.dumps(sections))
    original = MVDream(checkpoint=tmp_path, device="cpu")
    options = {"seed": 3, "num_inference_steps": 2}
    got, want = (np.asarray(m.generate_views(PROMPT, **options)[0]) for m in (original, model))
    np.testing.assert_array_equal(got, want)
    with pytest.raises(InvalidConfigError, match="no weights of LGM"):
        original.generate_from_text(PROMPT, **OPTIONS)


def test_progress_rises_and_cancels(model: MVDream) -> None:
    seen: list[float] = []

    def watch(fraction: float, stage: str) -> None:
        seen.append(fraction)
        if stage == "denoise 2/3":
            raise GenerationCancelledError("stop")

    with pytest.raises(GenerationCancelledError):
        model.generate_from_text(PROMPT, progress=watch, **OPTIONS)
    assert seen == sorted(seen)
    assert seen[-1] < 0.6


def test_half_precision_runs(folder: Path) -> None:
    made = MVDream(checkpoint=folder, device="cpu", precision="bf16")
    result = made.generate_from_text(PROMPT, **OPTIONS)
    assert result.metadata["precision"] == "bf16"


def test_a_prompt_beyond_the_window_is_told(model: MVDream) -> None:
    with pytest.raises(InvalidConfigError, match="prompt has 84 tokens") as caught:
        model.generate_from_text("word " * 80, **OPTIONS)
    assert caught.value.details == {"tokens": 84, "limit": 75}
    with pytest.raises(InvalidConfigError, match="negative prompt has 80 tokens"):
        model.generate_from_text(PROMPT, negative_prompt="ugly " * 80, **OPTIONS)


def test_latents_that_overflow_name_the_step(folder: Path) -> None:
    made = MVDream(checkpoint=folder, device="cpu")
    made.load_model()
    loaded = made._require_loaded()
    with torch.no_grad():
        loaded.pipeline.network.unet.out[2].bias.fill_(torch.nan)
    with pytest.raises(GenerationError, match="step 1 of 3"):
        made.generate_from_text(PROMPT, **OPTIONS)


def test_transparent_gaussians_are_told() -> None:
    rows = np.zeros((8, 14), np.float32)
    rows[:, 7] = 1
    options = MVDreamOptions(resolution=32)
    with pytest.raises(GenerationError, match="transparent"):
        mesh_of_cloud(GaussianCloud.from_packed(rows), options, ignore_progress)


def drawn_views() -> NDArray[np.uint8]:
    views = np.full((4, 64, 64, 3), 200, np.uint8)
    for index, view in enumerate(views):
        view[10 : 40 + index, 20:50] = (200, 30, 20 * index)
    return views


def test_views_are_cut_out_centred_and_put_on_white() -> None:
    prepared, matting = prepare_views(drawn_views(), MVDreamOptions())
    assert prepared.shape == (4, 64, 64, 3)
    np.testing.assert_array_equal(prepared[:, 0, 0], 1.0)
    np.testing.assert_allclose(prepared[:, 32, 32, 0], 200 / 255, atol=0.05)
    assert [entry and entry["method"] for entry in matting] == ["grabcut"] * 4


def test_a_view_without_an_object_is_named() -> None:
    views = drawn_views()
    views[2] = 200
    with pytest.raises(GenerationError, match="View 3 of 4") as caught:
        prepare_views(views, MVDreamOptions())
    assert "another seed" in str(caught.value.hint)


def test_an_empty_mask_is_refused() -> None:
    with pytest.raises(InvalidConfigError, match="No object"):
        recenter(np.zeros((8, 8, 4), np.float32), np.zeros((8, 8)))


def test_a_picture_is_refused(model: MVDream) -> None:
    with pytest.raises(InvalidConfigError, match="generates from text"):
        model.generate_from_image(Image.new("RGB", (8, 8)))


@pytest.mark.parametrize(
    "options",
    [
        {"resolution": 1024},
        {"num_inference_steps": 0},
        {"guidance_scale": float("nan")},
        {"density_threshold": 0.0},
        {"reconstruction": "magic"},
        {"scheduler": "fast"},
        {"wings": 2},
    ],
)
def test_wrong_options_are_refused(model: MVDream, options: dict[str, object]) -> None:
    with pytest.raises(InvalidConfigError):
        model.generate_from_text(PROMPT, **options)


def test_samples_are_checked(model: MVDream) -> None:
    with pytest.raises(InvalidConfigError, match="samples is 0"):
        model.generate_views(PROMPT, samples=0)


@pytest.mark.parametrize("part", ["unet", "vae", "text_encoder", "lgm"])
def test_truncated_weights_are_told(folder: Path, tmp_path: Path, part: str) -> None:
    damaged = tmp_path / "damaged"
    shutil.copytree(folder, damaged)
    (path,) = (damaged / part).glob("*.safetensors")
    path.write_bytes(path.read_bytes()[:-100])
    with pytest.raises(CheckpointError, match=path.name.replace(".", r"\.")):
        MVDream(checkpoint=damaged, device="cpu").load_model()


def test_other_sizes_are_told(folder: Path, tmp_path: Path) -> None:
    changed = tmp_path / "changed"
    shutil.copytree(folder, changed)
    (changed / "unet" / "config.json").write_text(json.dumps({"model_channels": 64}))
    with pytest.raises(CheckpointError, match="of another shape"):
        MVDream(checkpoint=changed, device="cpu").load_model()


def test_configs_are_checked(tmp_path: Path) -> None:
    path = tmp_path / "config.json"
    assert read_section(UNetConfig, path) == MVDreamConfig.published().unet
    for text, message in (("[1]", "object"), ("{", "JSON"), ('{"in_channels": "4"}', "int")):
        path.write_text(text)
        with pytest.raises(CheckpointError, match=message):
            read_section(UNetConfig, path)


def test_keys_of_another_model_are_told(tmp_path: Path) -> None:
    torch.save({"something.weight": torch.zeros(2)}, tmp_path / ORIGINAL_FILE)
    with pytest.raises(CheckpointError, match=r"something\.weight"):
        MVDream(checkpoint=tmp_path, device="cpu").load_model()


def test_a_folder_without_weights_is_told(tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match=UNET_FILE.replace(".", r"\.")):
        MVDream(checkpoint=tmp_path, device="cpu").load_model()


def test_four_views_are_needed() -> None:
    from dream_cad.exceptions import ShapeError
    from dream_cad.models.mvdream.config import tiny_lgm

    with pytest.raises(ShapeError, match="4, H, W, 3"):
        lgm_input(torch.zeros(3, 8, 8, 3), tiny_lgm())
