from __future__ import annotations

import gc
import weakref
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
import yaml

from dream_cad.exceptions import CheckpointError
from dream_cad.models.loading import find_weights
from dream_cad.models.triposr.weights import WEIGHTS_FILES, load_network
from tests.tiny_triposr import make_network, write_checkpoint

IMAGES = torch.rand(1, 3, 32, 32, generator=torch.Generator().manual_seed(0))


@torch.no_grad()
def test_published_layout_loads_and_computes_the_same(tmp_path: Path) -> None:
    network = make_network()
    loaded = load_network(write_checkpoint(tmp_path, network=network))
    assert loaded.config == network.config
    assert torch.equal(loaded.scene_codes(IMAGES), network.scene_codes(IMAGES))
    assert not loaded.training


@torch.no_grad()
def test_nano_layout_is_cast_from_half(tmp_path: Path) -> None:
    network = make_network()
    loaded = load_network(write_checkpoint(tmp_path, weights="model.safetensors", network=network))
    assert {tensor.dtype for tensor in loaded.state_dict().values()} == {torch.float32}
    difference = (loaded.scene_codes(IMAGES) - network.scene_codes(IMAGES)).abs().max()
    assert 0 < difference < 1e-2


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_all_but_the_decoder_is_cast(dtype: torch.dtype, tmp_path: Path) -> None:
    loaded = load_network(write_checkpoint(tmp_path), dtype=dtype)
    dtypes = {key: tensor.dtype for key, tensor in loaded.state_dict().items()}
    assert all(
        found == (torch.float32 if key.startswith("decoder.") else dtype)
        for key, found in dtypes.items()
    )
    assert loaded.image_tokenizer.image_mean.dtype == torch.float32


def test_nothing_stays_on_the_meta_device(tmp_path: Path) -> None:
    loaded = load_network(write_checkpoint(tmp_path))
    assert not [name for name, tensor in loaded.named_parameters() if tensor.is_meta]
    assert not [name for name, tensor in loaded.named_buffers() if tensor.is_meta]


def test_dropping_the_network_frees_its_tensors(tmp_path: Path) -> None:
    loaded = load_network(write_checkpoint(tmp_path))
    dead = [weakref.ref(parameter) for parameter in loaded.parameters()]
    assert all(reference() is not None for reference in dead)
    del loaded
    gc.collect()
    assert all(reference() is None for reference in dead)


def test_safetensors_wins_over_ckpt(tmp_path: Path) -> None:
    write_checkpoint(tmp_path)
    write_checkpoint(tmp_path, weights="model.safetensors")
    assert find_weights(tmp_path, WEIGHTS_FILES, model="triposr").name == "model.safetensors"


def test_folder_without_weights(tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match=r"model\.safetensors or model\.ckpt was expected"):
        load_network(tmp_path)


def test_folder_without_config(tmp_path: Path) -> None:
    write_checkpoint(tmp_path)
    (tmp_path / "config.yaml").unlink()
    with pytest.raises(CheckpointError, match=r"config\.yaml"):
        load_network(tmp_path)


def change_state(folder: Path, change: Callable[[dict[str, torch.Tensor]], object]) -> None:
    state = torch.load(folder / "model.ckpt", weights_only=True)
    change(state)
    torch.save(state, folder / "model.ckpt")


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda s: s.pop("tokenizer.embeddings"), "1 missing: tokenizer.embeddings"),
        (lambda s: s.update(a=torch.ones(2)), "1 unexpected: a"),
        (
            lambda s: s.update({"decoder.layers.0.bias": torch.ones(2)}),
            r"decoder.layers.0.bias \(2,\) instead of \(16,\)",
        ),
    ],
)
def test_weights_that_do_not_fit(
    change: Callable[[dict[str, torch.Tensor]], object], message: str, tmp_path: Path
) -> None:
    write_checkpoint(tmp_path)
    change_state(tmp_path, change)
    with pytest.raises(CheckpointError, match=message):
        load_network(tmp_path)


def test_config_of_another_size(tmp_path: Path) -> None:
    write_checkpoint(tmp_path)
    data = yaml.safe_load((tmp_path / "config.yaml").read_text())
    data["backbone"]["num_layers"] = 3
    (tmp_path / "config.yaml").write_text(yaml.safe_dump(data))
    with pytest.raises(CheckpointError, match=r"missing: backbone\.transformer_blocks\.2"):
        load_network(tmp_path)
