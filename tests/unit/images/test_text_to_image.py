from __future__ import annotations

import json
import shutil
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest

from dream_cad.exceptions import (
    CheckpointError,
    GenerationCancelledError,
    GenerationError,
    InvalidConfigError,
)
from dream_cad.images import text_to_image as stage
from dream_cad.images.pipeline_loading import choose_device, choose_precision, needs_offload
from dream_cad.images.text_to_image import TextToImage


@pytest.fixture(scope="module")
def drawer(tiny_text_to_image_folder: Path) -> TextToImage:
    return TextToImage(tiny_text_to_image_folder, device="cpu")


@pytest.fixture
def folder_copy(tiny_text_to_image_folder: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(tiny_text_to_image_folder, tmp_path / "pipeline"))


def _edit_json(path: Path, **changes: object) -> None:
    path.write_text(json.dumps(json.loads(path.read_text()) | changes))


def test_picture_and_its_receipt(drawer: TextToImage) -> None:
    result = drawer.generate("A  red\tchair", seed=3)

    assert (result.image.mode, result.image.size) == ("RGB", (32, 32))
    assert np.asarray(result.image).std() > 0
    assert result.prompt == "A red chair"
    assert (result.seed, result.num_inference_steps, result.guidance_scale) == (3, 2, 2.0)
    assert result.license == "Apache-2.0"
    assert result.source == drawer.source
    assert result.unknown_words == []
    assert not result.truncated


def test_same_seed_same_picture_other_seed_other_picture(drawer: TextToImage) -> None:
    first, again, other = (
        np.asarray(drawer.generate("a red chair", seed=seed).image) for seed in (1, 1, 2)
    )
    np.testing.assert_array_equal(first, again)
    assert (first != other).any()


def test_prompt_steps_guidance_and_negative_prompt_all_count(drawer: TextToImage) -> None:
    pictures = [
        np.asarray(drawer.generate(prompt, seed=1, **options).image).tobytes()
        for prompt, options in [
            ("a red chair", {}),
            ("a blue table", {"guidance_scale": 50.0}),
            ("a red chair", {"guidance_scale": 50.0}),
            ("a red chair", {"num_inference_steps": 5}),
            ("a red chair", {"guidance_scale": 50.0, "negative_prompt": "blue vase"}),
        ]
    ]
    assert len(set(pictures)) == len(pictures)


def test_threads_share_one_pipeline_and_get_their_own_pictures(drawer: TextToImage) -> None:
    alone = [np.asarray(drawer.generate("a chair", seed=seed).image) for seed in range(4)]
    with ThreadPoolExecutor(4) as pool:
        together = list(pool.map(lambda seed: drawer.generate("a chair", seed=seed), range(4)))
    for picture, result in zip(alone, together, strict=True):
        np.testing.assert_array_equal(np.asarray(result.image), picture)


def test_drawn_seed_is_told_and_repeats_the_picture(drawer: TextToImage) -> None:
    drawn = drawer.generate("a red chair")
    again = drawer.generate("a red chair", seed=drawn.seed)
    np.testing.assert_array_equal(np.asarray(drawn.image), np.asarray(again.image))


def test_unknown_and_cut_off_words_are_told(drawer: TextToImage) -> None:
    assert drawer.generate("a Baroque red chair", seed=0).unknown_words == ["baroque"]
    assert drawer.generate("a red chair " * 10, seed=0).truncated


def test_progress_rises_to_one_and_counts_the_steps(drawer: TextToImage) -> None:
    seen: list[float] = []
    drawer.generate("a chair", seed=0, num_inference_steps=4, progress=lambda f, s: seen.append(f))
    assert seen[0] == 0.0
    assert seen[-1] == 1.0
    assert seen == sorted(seen)
    assert len(seen) == 6


def test_cancelling_in_mid_way_stops_the_steps_and_leaves_it_usable(drawer: TextToImage) -> None:
    fractions: list[float] = []

    def cancel(fraction: float, name: str) -> None:
        assert name == stage.STAGE
        fractions.append(fraction)
        if fraction > 0:
            raise GenerationCancelledError("Cancelled by the user.")

    with pytest.raises(GenerationCancelledError):
        drawer.generate("a chair", seed=0, num_inference_steps=50, progress=cancel)

    assert len(fractions) == 2
    assert drawer.generate("a chair", seed=0).image.size == (32, 32)


@pytest.mark.parametrize(
    ("options", "reason"),
    [
        ({"num_inference_steps": 0}, "num_inference_steps is 0"),
        ({"num_inference_steps": 201}, "1 to 200"),
        ({"num_inference_steps": 2.5}, "2.5"),
        ({"num_inference_steps": True}, "True"),
        ({"guidance_scale": float("nan")}, "guidance_scale is nan"),
        ({"guidance_scale": float("inf")}, "inf"),
        ({"guidance_scale": -1}, "-1"),
        ({"guidance_scale": "7"}, "'7'"),
        ({"seed": -1}, "seed is -1"),
        ({"seed": 2**63}, "seed is 9223372036854775808"),
        ({"seed": 1.0}, "seed is 1.0"),
        ({"guidance_scale": 1.0, "negative_prompt": "blue"}, "no effect"),
        ({"negative_prompt": "bl\x00ue"}, "control character"),
        ({"negative_prompt": 7}, "int"),
    ],
)
def test_bad_options_are_refused_before_loading(
    options: dict[str, object], reason: str, tiny_text_to_image_folder: Path
) -> None:
    fresh = TextToImage(tiny_text_to_image_folder, device="cpu")
    with pytest.raises(InvalidConfigError, match=reason):
        fresh.generate("a chair", **options)  # type: ignore[arg-type]
    assert not fresh.is_loaded


@pytest.mark.parametrize("prompt", ["", "  ", "a\x07", "x" * 100_000])
def test_bad_prompts_are_refused_before_loading(
    prompt: str, tiny_text_to_image_folder: Path
) -> None:
    fresh = TextToImage(tiny_text_to_image_folder, device="cpu")
    with pytest.raises(InvalidConfigError):
        fresh.generate(prompt)
    assert not fresh.is_loaded


def test_unload_frees_the_weights_and_the_next_picture_loads_them_again(
    tiny_text_to_image_folder: Path,
) -> None:
    import weakref

    drawer = TextToImage(tiny_text_to_image_folder, device="cpu")
    before = np.asarray(drawer.generate("a chair", seed=0).image)
    parameter = weakref.ref(next(drawer._pipeline.unet.parameters()))
    drawer.unload()
    assert not drawer.is_loaded
    assert parameter() is None
    drawer.unload()
    np.testing.assert_array_equal(np.asarray(drawer.generate("a chair", seed=0).image), before)


def test_precision_reaches_the_weights(tiny_text_to_image_folder: Path) -> None:
    import torch

    drawer = TextToImage(tiny_text_to_image_folder, device="cpu", precision="bf16")
    result = drawer.generate("a chair", seed=0)
    assert drawer._pipeline.unet.dtype == torch.bfloat16
    assert np.asarray(result.image).std() > 0


def test_nan_weights_give_an_error_not_a_black_picture(folder_copy: Path) -> None:
    from safetensors.torch import load_file, save_file

    path = folder_copy / "vae" / "diffusion_pytorch_model.safetensors"
    weights = load_file(path)
    weights["decoder.conv_out.bias"].fill_(float("nan"))
    save_file(weights, path, metadata={"format": "pt"})

    with pytest.raises(GenerationError, match="NaN"):
        TextToImage(folder_copy, device="cpu").generate("a chair", seed=0)


@pytest.mark.parametrize("broken", ["truncated", "missing", "pickled"])
def test_damaged_missing_or_pickled_weights_are_refused(folder_copy: Path, broken: str) -> None:
    path = folder_copy / "unet" / "diffusion_pytorch_model.safetensors"
    content = path.read_bytes()
    path.unlink()
    if broken == "truncated":
        path.write_bytes(content[: len(content) // 2])
    if broken == "pickled":
        path.with_suffix(".bin").write_bytes(b"\x80\x04cos\nsystem\n.")

    with pytest.raises(CheckpointError, match="cannot be loaded"):
        TextToImage(folder_copy, device="cpu").load()


@pytest.mark.parametrize(
    "changes",
    [
        {"_class_name": ["my_pipeline", "MyPipeline"]},
        {"_class_name": "../evil"},
        {"_class_name": None},
        {"unet": ["my_unet", "MyUNet"]},
        {"unet": ["os", "system"]},
        {"unet": ["diffusers"]},
    ],
)
def test_code_that_comes_with_weights_is_never_run(
    folder_copy: Path, changes: dict[str, object]
) -> None:
    marker = folder_copy / "was_run"
    for name in ("my_pipeline.py", "unet/my_unet.py"):
        (folder_copy / name).write_text(f"open({str(marker)!r}, 'w').close()\n")
    _edit_json(folder_copy / "model_index.json", **changes)

    with pytest.raises(CheckpointError, match="code outside diffusers"):
        TextToImage(folder_copy, device="cpu").generate("a chair", seed=0)
    assert not marker.exists()


@pytest.mark.parametrize(
    "content", ["", "[]", "{", '{"num_inference_steps": 0, "guidance_scale": 1}', "{}"]
)
def test_damaged_sidecar_is_named(folder_copy: Path, content: str) -> None:
    (folder_copy / "dream_cad.json").write_text(content)
    with pytest.raises(CheckpointError, match=r"dream_cad\.json"):
        TextToImage(folder_copy).generate("a chair")


def test_pipeline_without_negative_prompt_says_so(drawer: TextToImage) -> None:
    drawer.load()

    class _Plain:
        def __call__(self, prompt: str) -> None: ...

    bare = TextToImage(drawer.source, device="cpu")
    bare._pipeline = _Plain()
    with pytest.raises(InvalidConfigError, match="has no negative prompt"):
        bare.generate("a chair", seed=0, negative_prompt="blue")


def test_template_of_the_settings_is_used_where_the_pipeline_has_none(
    folder_copy: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    _edit_json(folder_copy / "dream_cad.json", prompt_template=None)
    monkeypatch.setenv("DREAM_CAD_PROMPT_TEMPLATE", "{prompt}, blue")
    result = TextToImage(folder_copy, device="cpu").generate("a chair", seed=0)
    assert result.prompt == "a chair, blue"


def test_sources_that_are_not_here_say_what_to_do(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("DREAM_CAD_CACHE_DIR", str(tmp_path))
    monkeypatch.setenv("HF_HUB_CACHE", str(tmp_path))
    with pytest.raises(CheckpointError, match="dream-cad pull text-to-image"):
        TextToImage("nobody/nothing-here").load()
    with pytest.raises(CheckpointError, match=r"holds no model_index\.json"):
        TextToImage(tmp_path).load()
    with pytest.raises(InvalidConfigError, match="neither an existing folder"):
        TextToImage("no/such/folder").load()


@pytest.mark.parametrize(
    ("checkpoint", "nano", "vram_gb", "is_here", "expected"),
    [
        ("published", "nano-folder", 0.0, False, "owner/published"),
        ("nano", "nano-folder", 80.0, True, "nano-folder"),
        ("auto", "nano-folder", 0.0, True, "nano-folder"),
        ("auto", "nano-folder", 80.0, True, "owner/published"),
        ("auto", "nano-folder", 80.0, False, "nano-folder"),
        ("auto", None, 0.0, False, "owner/published"),
    ],
)
def test_default_source_follows_the_checkpoint_choice(
    checkpoint: str,
    nano: str | None,
    vram_gb: float,
    is_here: bool,
    expected: str,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("DREAM_CAD_TEXT_TO_IMAGE", "owner/published")
    monkeypatch.setenv("DREAM_CAD_CHECKPOINT", checkpoint)
    monkeypatch.setattr(stage, "nano_folder", lambda name: nano and Path(nano))
    monkeypatch.setattr(stage, "get_total_vram", lambda: vram_gb)
    here = Path("/here") if is_here else None
    monkeypatch.setattr(stage, "find_repository", lambda source, required: here)
    assert TextToImage().source == expected


def test_bundled_pipeline_is_called_nano_not_by_its_path(
    tiny_text_to_image_folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(stage, "nano_folder", lambda name: tiny_text_to_image_folder)
    bundled = TextToImage(checkpoint="nano", device="cpu")
    assert bundled.is_nano
    assert bundled.generate("a chair", seed=0).source == "nano"


def test_nano_asked_for_but_not_shipped_does_not_fall_back(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(stage, "nano_folder", lambda name: None)
    with pytest.raises(CheckpointError, match="No nano text-to-image"):
        TextToImage(checkpoint="nano")


@pytest.mark.parametrize("device", ["cuda:7", "toaster", ""])
def test_unknown_devices_are_refused(device: str) -> None:
    with pytest.raises(InvalidConfigError):
        choose_device(device)


def test_precision_defaults_follow_device_and_family(monkeypatch: pytest.MonkeyPatch) -> None:
    stable, flux = {"_class_name": "StableDiffusionPipeline"}, {"_class_name": "Flux2KleinPipeline"}
    assert choose_precision(None, stable, "cpu") == "fp32"
    assert choose_precision(None, stable, "cuda:0") == "fp16"
    assert choose_precision(None, flux, "cuda:0") == "bf16"
    assert choose_precision("fp32", flux, "cuda:0") == "fp32"
    monkeypatch.setenv("DREAM_CAD_PRECISION", "bf16")
    stage.get_settings.cache_clear()
    assert choose_precision(None, stable, "cpu") == "bf16"
    with pytest.raises(InvalidConfigError, match="int4"):
        choose_precision("int4", stable, "cpu")  # type: ignore[arg-type]


def test_large_pipelines_are_offloaded_part_by_part() -> None:
    assert needs_offload(16 * 10**9, 16 * 10**9)
    assert not needs_offload(16 * 10**9, 24 * 10**9)


def test_images_package_imports_no_network_library() -> None:
    modules = "text_to_image, matting, matting_model, loading, crop, prompts, hub, pipeline_loading"
    code = (
        f"import sys; from dream_cad.images import {modules}; "
        "sys.exit(any(n in sys.modules for n in ('torch', 'diffusers', 'transformers', "
        "'onnxruntime', 'huggingface_hub')))"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def test_fetch_downloads_only_what_is_not_here(
    tiny_text_to_image_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    fetched: list[str] = []

    def download(source: str, *, patterns: tuple[str, ...]) -> Path:
        assert not any(pattern.endswith((".py", ".bin")) for pattern in patterns)
        fetched.append(source)
        return tiny_text_to_image_folder

    monkeypatch.setenv("DREAM_CAD_CACHE_DIR", str(tmp_path))
    monkeypatch.setenv("HF_HUB_CACHE", str(tmp_path))
    monkeypatch.setattr(stage, "download_repository", download)

    assert TextToImage(tiny_text_to_image_folder).fetch() == tiny_text_to_image_folder
    assert fetched == []
    remote = TextToImage("nobody/nothing-here", device="cpu", allow_download=True)
    assert remote.generate("a chair", seed=0).source == "nobody/nothing-here"
    assert set(fetched) == {"nobody/nothing-here"}
