from __future__ import annotations

from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file
from torch import nn

from dream_cad.exceptions import CheckpointError
from dream_cad.models.loading import assign_weights, find_weights, read_weights, verify_weights


def network() -> nn.Module:
    return nn.Sequential(nn.Linear(3, 4), nn.LayerNorm(4), nn.Linear(4, 2))


def meta_network() -> nn.Module:
    with torch.device("meta"):
        return network()


def saved(state: object, path: Path) -> Path:
    if path.suffix == ".safetensors":
        save_file(state, path)
    else:
        torch.save(state, path)
    return path


@pytest.mark.parametrize("name", ["model.ckpt", "model.safetensors"])
def test_weights_arrive_unchanged(name: str, tmp_path: Path) -> None:
    source = network()
    path = saved(source.state_dict(), tmp_path / name)
    loaded = meta_network()
    state = read_weights(path)
    verify_weights(state, loaded, path)
    assign_weights(loaded, state, device=torch.device("cpu"), dtype_of=lambda key: torch.float32)
    x = torch.randn(5, 3)
    assert torch.equal(loaded(x), source(x))
    assert not loaded.training
    assert not any(parameter.requires_grad for parameter in loaded.parameters())


def test_weights_own_their_memory(tmp_path: Path) -> None:
    """A loaded network must not read from the file, which a pull may replace."""
    path = saved(network().state_dict(), tmp_path / "model.ckpt")
    loaded, state = meta_network(), read_weights(path)
    assign_weights(loaded, state, device=torch.device("cpu"), dtype_of=lambda key: torch.float32)
    mapped = {tensor.data_ptr() for tensor in state.values()}
    assert mapped.isdisjoint(tensor.data_ptr() for tensor in loaded.state_dict().values())


def test_dtype_is_chosen_key_by_key(tmp_path: Path) -> None:
    path = saved(network().state_dict(), tmp_path / "model.ckpt")
    loaded = meta_network()
    assign_weights(
        loaded,
        read_weights(path),
        device=torch.device("cpu"),
        dtype_of=lambda key: torch.float32 if key.startswith("2.") else torch.bfloat16,
    )
    assert loaded[0].weight.dtype == torch.bfloat16
    assert loaded[2].weight.dtype == torch.float32


def test_differences_are_named(tmp_path: Path) -> None:
    state = network().state_dict()
    del state["0.bias"]
    state["extra.weight"] = torch.zeros(1)
    state["2.weight"] = torch.zeros(4, 2)
    with pytest.raises(CheckpointError) as caught:
        verify_weights(state, meta_network(), tmp_path / "model.ckpt")
    text = str(caught.value)
    assert "1 missing: 0.bias" in text
    assert "1 unexpected: extra.weight" in text
    assert "2.weight (4, 2) instead of (2, 4)" in text
    assert caught.value.details["missing"] == ["0.bias"]


def test_long_lists_are_cut(tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match=r"6 missing: .* and 1 more"):
        verify_weights({}, meta_network(), tmp_path / "model.ckpt")


@pytest.mark.parametrize("name", ["model.ckpt", "model.safetensors"])
@pytest.mark.parametrize("content", [b"", b"not weights at all", b"PK\x03\x04 broken zip"])
def test_damaged_files_are_refused(name: str, content: bytes, tmp_path: Path) -> None:
    path = tmp_path / name
    path.write_bytes(content)
    with pytest.raises(CheckpointError, match=name):
        read_weights(path)


@pytest.mark.parametrize("name", ["model.ckpt", "model.safetensors"])
def test_truncated_file_is_refused(name: str, tmp_path: Path) -> None:
    path = saved(network().state_dict(), tmp_path / name)
    path.write_bytes(path.read_bytes()[:-40])
    with pytest.raises(CheckpointError, match="damaged"):
        read_weights(path)


def test_missing_file_is_refused(tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match="cannot be read"):
        read_weights(tmp_path / "model.ckpt")


def test_code_in_a_pickle_is_not_run(tmp_path: Path) -> None:
    path = saved({"a": Path("somewhere")}, tmp_path / "model.ckpt")
    with pytest.raises(CheckpointError, match="damaged or no weights file"):
        read_weights(path)


def test_wrapped_state_is_refused(tmp_path: Path) -> None:
    path = saved({"state_dict": {"a": torch.zeros(1)}}, tmp_path / "model.ckpt")
    with pytest.raises(CheckpointError, match="flat dictionary"):
        read_weights(path)


def test_the_first_weights_file_that_is_there_is_found(tmp_path: Path) -> None:
    names = ("model.fp16.safetensors", "model.safetensors", "model.ckpt")
    for name in names[1:]:
        (tmp_path / name).touch()
    assert find_weights(tmp_path, names, model="triposr") == tmp_path / "model.safetensors"


def test_a_folder_without_weights_names_what_was_expected(tmp_path: Path) -> None:
    (tmp_path / "a.safetensors").mkdir()
    with pytest.raises(CheckpointError, match=r"a\.safetensors or b\.ckpt was expected") as caught:
        find_weights(tmp_path, ("a.safetensors", "b.ckpt"), model="triposr")
    assert "dream-cad pull triposr" in str(caught.value.hint)
