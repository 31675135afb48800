from __future__ import annotations

import json
import logging
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file

from dream_cad.exceptions import CheckpointError, InvalidConfigError
from dream_cad.models.hunyuan3d_mini.paint.delight import Delight
from dream_cad.models.hunyuan3d_mini.paint.diffusion import PaintDiffusion
from dream_cad.models.hunyuan3d_mini.paint.weights import (
    DELIGHT_FOLDER,
    NAME,
    NETWORK_FILES,
    PAINT_FOLDERS,
    PaintVariant,
)
from dream_cad.models.weights import PUBLISHED, find_published
from dream_cad.settings import get_settings
from tests.tiny_hunyuan3d_paint import tiny_diffusion, write_delight, write_paint

SAFETENSORS, BIN = NETWORK_FILES


def unet_file(root: Path, variant: PaintVariant) -> Path:
    return root / PAINT_FOLDERS[variant] / "unet" / SAFETENSORS


def as_bin(path: Path) -> Path:
    """Replace a safetensors file by a torch zip."""
    made = path.with_name(BIN)
    torch.save(load_file(path), made)
    path.unlink()
    return made


@pytest.mark.parametrize("variant", ["standard", "turbo"])
def test_what_is_loaded_is_what_was_written(tmp_path: Path, variant: PaintVariant) -> None:
    root, made = write_paint(tmp_path, variant), tiny_diffusion(variant)
    loaded = PaintDiffusion.load(root, variant=variant)
    assert not loaded.unet.training
    for key, value in made.unet.state_dict().items():
        torch.testing.assert_close(loaded.unet.state_dict()[key], value.half().float())
    alone = PaintDiffusion.load(root / PAINT_FOLDERS[variant], variant=variant)
    assert alone.variant == variant


def test_half_precision_is_kept(tmp_path: Path) -> None:
    loaded = PaintDiffusion.load(write_paint(tmp_path), dtype=torch.bfloat16)
    assert loaded.unet.dtype == torch.bfloat16
    assert {value.dtype for value in loaded.codec.vae.state_dict().values()} == {torch.bfloat16}


def test_torch_files_are_read_with_weights_only(tmp_path: Path) -> None:
    path = as_bin(unet_file(write_paint(tmp_path), "turbo"))
    PaintDiffusion.load(tmp_path)
    torch.save({"a": Path("code")}, path)
    with pytest.raises(CheckpointError, match="damaged or no weights file"):
        PaintDiffusion.load(tmp_path)


def test_surplus_of_turbo_is_named_and_left(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    path = unet_file(write_paint(tmp_path), "turbo")
    save_file(load_file(path) | {"unet.image_tokens.weight": torch.zeros(2)}, path)
    with caplog.at_level(logging.WARNING):
        PaintDiffusion.load(tmp_path)
    assert "1 tensors" in caplog.text
    assert "unet.image_tokens.weight" in caplog.text


@pytest.mark.parametrize("variant", ["standard", "turbo"])
def test_other_surplus_is_refused(tmp_path: Path, variant: PaintVariant) -> None:
    path = unet_file(write_paint(tmp_path, variant), variant)
    save_file(load_file(path) | {"unet.more": torch.zeros(2)}, path)
    if variant == "turbo":
        as_bin(path)
    with pytest.raises(CheckpointError, match=r"1 unexpected: unet\.more"):
        PaintDiffusion.load(tmp_path, variant=variant)


def test_missing_and_misshapen_tensors_are_named(tmp_path: Path) -> None:
    path = unet_file(write_paint(tmp_path), "turbo")
    state = load_file(path)
    del state["unet.class_embedding.weight"]
    state["unet_dual.conv_in.bias"] = torch.zeros(3)
    save_file(state, path)
    with pytest.raises(CheckpointError, match=r"1 missing: unet\.class_embedding\.weight") as error:
        PaintDiffusion.load(tmp_path)
    assert "unet_dual.conv_in.bias (3,) instead of (16,)" in str(error.value)


@pytest.mark.parametrize("part", ["unet", "vae"])
def test_a_truncated_file_is_refused(tmp_path: Path, part: str) -> None:
    path = write_paint(tmp_path) / PAINT_FOLDERS["turbo"] / part / SAFETENSORS
    path.write_bytes(path.read_bytes()[:-100])
    with pytest.raises(CheckpointError, match="damaged"):
        PaintDiffusion.load(tmp_path)


@pytest.mark.parametrize("text", [None, "{", "[1]"])
def test_a_damaged_config_is_refused(tmp_path: Path, text: str | None) -> None:
    config = write_paint(tmp_path) / PAINT_FOLDERS["turbo"] / "scheduler/scheduler_config.json"
    config.unlink() if text is None else config.write_text(text)
    with pytest.raises(CheckpointError, match=r"scheduler_config\.json"):
        PaintDiffusion.load(tmp_path)


@pytest.mark.parametrize(
    ("file", "changes"),
    [
        ("unet/config.json", {"block_out_channels": "wide"}),
        ("unet/config.json", {"down_block_types": ["Other"]}),
        ("vae/config.json", {"block_out_channels": None}),
        ("scheduler/scheduler_config.json", {"beta_start": "low"}),
        ("scheduler/scheduler_config.json", {"beta_schedule": "other"}),
    ],
)
def test_a_config_of_nothing_is_refused(
    tmp_path: Path, file: str, changes: dict[str, object]
) -> None:
    path = write_paint(tmp_path) / PAINT_FOLDERS["turbo"] / file
    path.write_text(json.dumps(json.loads(path.read_text()) | changes))
    with pytest.raises(CheckpointError, match=path.name):
        PaintDiffusion.load(tmp_path)


def test_an_empty_folder_says_what_was_expected(tmp_path: Path) -> None:
    write_paint(tmp_path)
    unet_file(tmp_path, "turbo").unlink()
    with pytest.raises(CheckpointError, match="dream-cad pull hunyuan3d-paint"):
        PaintDiffusion.load(tmp_path)
    with pytest.raises(InvalidConfigError, match="standard, turbo"):
        PaintDiffusion.load(tmp_path, variant="fast")  # type: ignore[arg-type]


def test_old_names_of_the_autoencoder_are_known(tmp_path: Path) -> None:
    path = write_paint(tmp_path) / PAINT_FOLDERS["turbo"] / "vae" / SAFETENSORS
    new = PaintDiffusion.load(tmp_path).codec.vae.state_dict()
    names = {"to_q": "query", "to_k": "key", "to_v": "value", "to_out.0": "proj_attn"}
    old = {}
    for key, value in load_file(path).items():
        part = next((name for name in names if f".{name}." in key), None)
        is_weight = part is not None and value.ndim == 2
        renamed = key.replace(f".{part}.", f".{names[part]}.") if part else key
        old[renamed] = value[..., None, None].contiguous() if is_weight else value
    save_file(old, path)
    loaded = PaintDiffusion.load(tmp_path).codec.vae.state_dict()
    assert old.keys() != new.keys()
    for key, value in new.items():
        assert torch.equal(loaded[key], value)


def test_delight_is_checked_too(tmp_path: Path) -> None:
    folder = write_delight(tmp_path) / DELIGHT_FOLDER
    one, two = Delight.load(tmp_path), Delight.load(folder)
    pixels, noise = np.zeros((64, 64, 3), np.uint8), torch.randn(1, 4, 8, 8)
    assert torch.equal(
        one.relight(pixels, lambda _: noise, 1), two.relight(pixels, lambda _: noise, 1)
    )
    config = folder / "unet" / "config.json"
    config.write_text(json.dumps(json.loads(config.read_text()) | {"in_channels": 4}))
    with pytest.raises(CheckpointError, match=r"conv_in\.weight \(16, 8, 3, 3\)"):
        Delight.load(tmp_path)


def test_all_that_is_read_is_pulled(tmp_path: Path) -> None:
    for variant in PAINT_FOLDERS:
        write_paint(tmp_path, variant)
    write_delight(tmp_path)
    as_bin(tmp_path / PAINT_FOLDERS["turbo"] / "vae" / SAFETENSORS)
    written = {str(file.relative_to(tmp_path)) for file in tmp_path.rglob("*") if file.is_file()}
    assert written == {file.name for file in PUBLISHED[NAME].files}
    for variant in PAINT_FOLDERS:
        PaintDiffusion.load(tmp_path, variant=variant)


def test_it_is_found_where_pull_puts_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DREAM_CAD_MODEL_PATH", str(tmp_path))
    get_settings.cache_clear()
    assert find_published(NAME) is None
    for file in PUBLISHED[NAME].files:
        path = tmp_path / NAME / file.name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch()
    assert find_published(NAME) == tmp_path / NAME
    assert PUBLISHED[NAME].license == PUBLISHED["hunyuan3d-mini"].license
