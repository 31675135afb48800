from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
import trimesh
from PIL import Image
from torch import nn

from dream_cad import ModelFactory
from dream_cad.exceptions import (
    CheckpointError,
    GenerationCancelledError,
    GenerationError,
    InvalidConfigError,
)
from dream_cad.models.base import GenerationResult
from dream_cad.models.hunyuan3d_mini import Hunyuan3DMini
from dream_cad.models.hunyuan3d_mini import pipeline as pipeline_module
from dream_cad.models.hunyuan3d_mini.config import Hunyuan3DConfig, Variant
from dream_cad.models.hunyuan3d_mini.options import Hunyuan3DOptions
from dream_cad.models.hunyuan3d_mini.pipeline import Hunyuan3DPipeline, finish
from dream_cad.models.hunyuan3d_mini.schedule import GuidedVelocity, ScheduleConfig, sample
from dream_cad.surface.marching import SurfaceMesh
from dream_cad.surface.volume import adaptive_volume
from tests.tiny_hunyuan3d import tiny_network, write_checkpoint
from tests.tiny_pipeline import save_tiny_pipeline
from tests.tiny_triposr import picture

OPTIONS = {"seed": 3, "octree_resolution": 32}


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("hunyuan3d")
    for variant in ("standard", "fast", "turbo"):
        write_checkpoint(root, variant)
    return root


@pytest.fixture(scope="module")
def model(folder: Path) -> Hunyuan3DMini:
    return Hunyuan3DMini(checkpoint=folder, device="cpu")


@pytest.fixture(scope="module")
def result(model: Hunyuan3DMini) -> GenerationResult:
    return model.generate_from_image(picture(), **OPTIONS)


def test_factory_creates_it(folder: Path) -> None:
    made = ModelFactory.create_model("hunyuan3d-mini", checkpoint=folder, device="cpu")
    assert isinstance(made, Hunyuan3DMini)
    assert made.capabilities.license_type == "Tencent Hunyuan 3D 2.0 Community License"


def test_result_is_a_centred_unit_mesh(result: GenerationResult) -> None:
    assert len(result.faces) > 100
    assert result.vertices.dtype == np.float32
    low, high = result.vertices.min(axis=0), result.vertices.max(axis=0)
    np.testing.assert_allclose(low + high, 0, atol=1e-5)
    assert (high - low).max() == pytest.approx(1.0, abs=1e-5)


@pytest.mark.parametrize(("edges", "filled"), [(32, 1), (2, 0), (0, 0)])
def test_small_holes_are_closed_and_told(edges: int, filled: int) -> None:
    ball = trimesh.creation.icosphere(2)
    surface = SurfaceMesh(ball.vertices.astype(np.float32), ball.faces[1:].astype(np.int32))
    made = finish(surface, Hunyuan3DOptions.parse({"fill_holes": edges}))
    assert (made.holes_filled, made.is_closed) == (filled, filled == 1)
    assert len(made.mesh.faces) == len(ball.faces) - 1 + filled


def test_receipt_says_how_it_was_made(result: GenerationResult) -> None:
    metadata = json.loads(json.dumps(result.metadata))
    assert metadata["model"] == "hunyuan3d-mini"
    assert metadata["variant"] == "standard"
    assert metadata["seed"] == 3
    assert metadata["options"]["num_latents"] == 24
    assert metadata["options"]["num_inference_steps"] == 50
    assert metadata["checkpoint"]["kind"] == "folder"
    closed = trimesh.Trimesh(result.vertices, result.faces, process=False).is_watertight
    assert metadata["closed"] == closed
    assert metadata["matting"] == {"front": {"method": "alpha", "model": None}}


def test_the_seed_decides(model: Hunyuan3DMini, result: GenerationResult) -> None:
    again = model.generate_from_image(picture(), **OPTIONS)
    np.testing.assert_array_equal(again.vertices, result.vertices)
    other = model.generate_from_image(picture(), **OPTIONS | {"seed": 4})
    assert other.vertices.shape != result.vertices.shape


def test_a_seed_is_drawn_and_kept(model: Hunyuan3DMini) -> None:
    made = model.generate_from_image(picture(), octree_resolution=32, num_inference_steps=2)
    assert 0 <= made.metadata["seed"] < 2**32


@pytest.mark.parametrize(("variant", "steps"), [("fast", 50), ("turbo", 5)])
def test_variants(folder: Path, variant: Variant, steps: int) -> None:
    made = Hunyuan3DMini(variant=variant, checkpoint=folder, device="cpu")
    result = made.generate_from_image(picture(), **OPTIONS)
    assert result.metadata["variant"] == variant
    assert result.metadata["options"]["num_inference_steps"] == steps


def test_one_variants_folder_is_enough(folder: Path) -> None:
    made = Hunyuan3DMini(checkpoint=folder / "hunyuan3d-dit-v2-mini", device="cpu")
    made.load_model()
    assert made.is_loaded


@pytest.mark.parametrize(("variant", "rows"), [("standard", 2), ("fast", 1), ("turbo", 1)])
def test_the_condition_is_computed_once(
    folder: Path, monkeypatch: pytest.MonkeyPatch, variant: Variant, rows: int
) -> None:
    model = Hunyuan3DMini(checkpoint=folder, device="cpu", variant=variant)
    model.load_model()
    network = model._require_loaded().pipeline.network
    calls: dict[str, list[int]] = {}

    def count(module: nn.Module, name: str) -> None:
        calls[name] = []
        module.register_forward_pre_hook(lambda _, given: calls[name].append(len(given[0])))

    count(network.conditioner, "conditioner")
    count(network.model.cond_in, "cond_in")
    count(network.model.latent_in, "steps")
    remember, remembered = network.vae.geo_decoder.remember, []
    monkeypatch.setattr(
        network.vae.geo_decoder,
        "remember",
        lambda latents: (remembered.append(len(latents)), remember(latents))[1],
    )
    model.generate_from_image(picture(), num_inference_steps=4, **OPTIONS)
    assert calls["conditioner"] == [1]
    assert calls["cond_in"] == [rows]
    assert len(calls["steps"]) in (3, 4)  # a step of length zero asks nothing
    assert set(calls["steps"]) == {rows}  # guidance is a batch of two, not two passes
    assert remembered == [1]  # keys and values of the latents, for all points of the volume


def test_seeds_mean_the_same_in_every_precision(model: Hunyuan3DMini, folder: Path) -> None:
    half = Hunyuan3DMini(checkpoint=folder, device="cpu", precision="bf16")
    drawn = []
    for one in (model, half):
        one.load_model()
        pipeline = one._require_loaded().pipeline
        condition = torch.zeros(
            1, 4, pipeline.config.dit.context_in_dim, dtype=pipeline.network.dtype
        )
        options = Hunyuan3DOptions(num_inference_steps=1)
        drawn.append(pipeline.denoise(condition, options, 5, lambda *_: None).float())
    torch.testing.assert_close(drawn[0], drawn[1], atol=0.1, rtol=0.1)


def test_text_goes_through_a_picture(folder: Path, tmp_path: Path) -> None:
    drawer = save_tiny_pipeline(tmp_path / "pipeline")
    model = Hunyuan3DMini(checkpoint=folder, device="cpu", text_to_image=drawer)
    prompt = {"prompt": "a red chair", "remove_background": False}
    first, again = (model.generate_from_text(**prompt, **OPTIONS) for _ in range(2))
    assert first.metadata["input"]["prompt"] == "a red chair"
    assert first.metadata["text_to_image"]["seed"] == 3
    np.testing.assert_array_equal(first.vertices, again.vertices)
    assert first.metadata["seed"] == first.metadata["text_to_image"]["seed"] == 3
    drawn = model.generate_from_text(**prompt, octree_resolution=32)
    seed = drawn.metadata["seed"]
    assert drawn.metadata["text_to_image"]["seed"] == seed
    again = model.generate_from_text(**prompt, octree_resolution=32, seed=seed)
    np.testing.assert_array_equal(drawn.vertices, again.vertices)
    other = model.generate_from_text("a blue vase", remove_background=False, **OPTIONS)
    assert other.vertices.shape != first.vertices.shape or (other.vertices != first.vertices).any()


def test_adaptive_volume_gives_the_dense_surface(
    model: Hunyuan3DMini, result: GenerationResult
) -> None:
    # 32 cells become 31, so that the coarse points divide by four: the same grid.
    options = OPTIONS | {"octree_resolution": 31, "volume": "dense"}
    dense = model.generate_from_image(picture(), **options)
    np.testing.assert_array_equal(dense.faces, result.faces)


def test_flash_volume_is_near(model: Hunyuan3DMini, result: GenerationResult) -> None:
    flash = model.generate_from_image(picture(), volume="flash", **OPTIONS)
    assert len(flash.faces) == pytest.approx(len(result.faces), rel=0.3)


def test_views_are_one_shape(model: Hunyuan3DMini) -> None:
    views = {"back": picture(), "front": picture()}
    made = model.generate_from_views(views, num_inference_steps=2, **OPTIONS)
    assert set(made.metadata["input"]["sha256"]) == {"front", "back"}
    assert set(made.metadata["matting"]) == {"front", "back"}
    with pytest.raises(InvalidConfigError, match="front, left, back, right"):
        model.generate_from_views({"top": picture()}, **OPTIONS)


def test_progress_rises_and_cancels(model: Hunyuan3DMini) -> None:
    seen: list[float] = []

    def watch(fraction: float, stage: str) -> None:
        seen.append(fraction)
        if stage == "denoise 2/4":
            raise GenerationCancelledError("stop")

    with pytest.raises(GenerationCancelledError):
        model.generate_from_image(picture(), num_inference_steps=4, progress=watch, **OPTIONS)
    assert seen == sorted(seen)
    assert seen[-1] < 0.4


def test_target_faces(model: Hunyuan3DMini) -> None:
    made = model.generate_from_image(picture(), target_faces=200, **OPTIONS)
    assert len(made.faces) <= 240


def test_empty_surface_says_what_would_cross() -> None:
    grid = torch.linspace(-3.0, -1.0, 27).view(3, 3, 3)
    with pytest.raises(GenerationError, match="logits are from -3 to -1") as caught:
        pipeline_module.extract(grid, Hunyuan3DOptions())
    assert str(caught.value.hint).startswith("mc_level -2 would cross")


@pytest.mark.parametrize("resolution", [32, 64, 128])
def test_the_default_volume_tells_its_logits_where_nothing_crosses(resolution: int) -> None:
    class Outside:
        def coarse(self, points: torch.Tensor) -> torch.Tensor:
            return points[..., 0] - 3.0

        def fine(self, points: torch.Tensor) -> torch.Tensor:
            return self.coarse(points)

    grid = adaptive_volume(Outside(), resolution, bounds=1.01, min_resolution=31)
    with pytest.raises(GenerationError, match=r"logits are from -4\.01 to -1\.99") as caught:
        pipeline_module.extract(grid, Hunyuan3DOptions())
    assert str(caught.value.hint).startswith("mc_level -3 would cross")


def test_a_volume_of_nan_is_told() -> None:
    grid = torch.full((3, 3, 3), torch.nan)
    with pytest.raises(GenerationError, match="No logit of the volume is a finite number"):
        pipeline_module.extract(grid, Hunyuan3DOptions())


def test_latents_that_overflow_name_the_step() -> None:
    network = tiny_network()
    with torch.no_grad():
        network.model.final_layer.linear.bias.fill_(torch.inf)
    condition = torch.zeros(1, 3, 32)
    velocity = GuidedVelocity(network.model, condition, 5.0)
    states = sample(velocity, torch.zeros(1, 24, 8), ScheduleConfig(), 3)
    with pytest.raises(GenerationError, match="step 1 of 3"):
        next(states)


def test_an_absurd_volume_is_refused_before_memory_is_spent(
    model: Hunyuan3DMini, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Memory:
        available = 10**8

    monkeypatch.setattr(pipeline_module.psutil, "virtual_memory", Memory)
    seen: list[str] = []
    for volume, low, high in (("adaptive", 180, 185), ("dense", 155, 161)):
        with pytest.raises(InvalidConfigError, match="octree_resolution 512 needs") as caught:
            model.generate_from_image(
                picture(),
                seed=1,
                octree_resolution=512,
                volume=volume,
                progress=lambda _, stage: seen.append(stage),
            )
        assert low < caught.value.details["fits"] < high
    assert not any(stage.startswith("denoise") for stage in seen)


def test_an_empty_picture_is_refused(model: Hunyuan3DMini) -> None:
    with pytest.raises(InvalidConfigError):
        model.generate_from_image(Image.new("RGBA", (40, 40)), **OPTIONS)


@pytest.mark.parametrize(
    "options",
    [
        {"octree_resolution": 1024},
        {"num_inference_steps": 0},
        {"guidance_scale": float("nan")},
        {"texture": "gold"},
        {"picture_steps": 4},
        {"wings": 2},
    ],
)
def test_wrong_options_are_refused(model: Hunyuan3DMini, options: dict[str, object]) -> None:
    with pytest.raises(InvalidConfigError):
        model.generate_from_image(picture(), **options)


def test_wrong_variant_is_refused() -> None:
    with pytest.raises(InvalidConfigError, match="standard, fast, turbo"):
        Hunyuan3DMini(variant="large")  # type: ignore[arg-type]


def test_truncated_weights_are_told(folder: Path, tmp_path: Path) -> None:
    damaged = tmp_path / "damaged"
    shutil.copytree(folder / "hunyuan3d-dit-v2-mini", damaged)
    path = damaged / "model.fp16.safetensors"
    path.write_bytes(path.read_bytes()[:-100])
    with pytest.raises(CheckpointError, match=r"model\.fp16\.safetensors"):
        Hunyuan3DMini(checkpoint=damaged, device="cpu").load_model()


def test_weights_of_another_variant_are_told(folder: Path, tmp_path: Path) -> None:
    mixed = tmp_path / "mixed"
    shutil.copytree(folder / "hunyuan3d-dit-v2-mini", mixed)
    shutil.copy(folder / "hunyuan3d-dit-v2-mini-turbo" / "config.yaml", mixed)
    with pytest.raises(CheckpointError, match="guidance_in"):
        Hunyuan3DMini(checkpoint=mixed, device="cpu").load_model()


@pytest.mark.parametrize("variant", ["standard", "fast", "turbo"])
def test_config_survives_its_file(variant: Variant) -> None:
    config = Hunyuan3DConfig.tiny(variant)
    read = Hunyuan3DConfig.from_mapping(config.to_mapping())
    assert (read.dit, read.vae, read.conditioner, read.schedule) == (
        config.dit,
        config.vae,
        config.conditioner,
        config.schedule,
    )


def test_half_precision_runs(folder: Path) -> None:
    made = Hunyuan3DMini(checkpoint=folder, device="cpu", precision="bf16")
    result = made.generate_from_image(picture(), num_inference_steps=2, **OPTIONS)
    assert result.metadata["precision"] == "bf16"


def test_guidance_below_zero_would_switch_it_off() -> None:
    pipeline = Hunyuan3DPipeline(tiny_network())
    condition = torch.randn(1, 3, 32, generator=torch.Generator().manual_seed(2))
    latents = torch.randn(1, 24, 8, generator=torch.Generator().manual_seed(3))
    free, single = (
        GuidedVelocity(pipeline.network.model, condition, scale)(latents, 0.5)
        for scale in (1.0, -1.0)
    )
    torch.testing.assert_close(free, single, rtol=1e-4, atol=1e-5)
