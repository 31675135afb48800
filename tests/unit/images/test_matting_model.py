from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper
from PIL import Image

from dream_cad.exceptions import CheckpointError, GenerationError
from dream_cad.images import matting, matting_model
from dream_cad.images.matting_model import MattingModel, load_matting_model

SIDE = 32


def _write_network(path: Path, *, gain: float, channels: int = 3, sigmoid: bool = False) -> Path:
    """An ONNX network whose mask is ``gain`` times the normalised red channel."""
    weights = np.zeros((1, channels, 1, 1), np.float32)
    weights[0, 0] = gain
    nodes = [helper.make_node("Conv", ["picture", "weights"], ["logits"])]
    nodes += [helper.make_node("Sigmoid", ["logits"], ["mask"])] if sigmoid else []
    name = "mask" if sigmoid else "logits"
    graph = helper.make_graph(
        nodes,
        "red",
        [helper.make_tensor_value_info("picture", TensorProto.FLOAT, [1, channels, SIDE, SIDE])],
        [helper.make_tensor_value_info(name, TensorProto.FLOAT, [1, 1, SIDE, SIDE])],
        [helper.make_tensor("weights", TensorProto.FLOAT, weights.shape, weights.ravel())],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9)
    path.parent.mkdir(parents=True, exist_ok=True)
    onnx.save(model, path)
    return path


@pytest.fixture
def network(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    path = _write_network(tmp_path / "net" / "onnx" / "model.onnx", gain=20.0)
    monkeypatch.setenv("DREAM_CAD_MATTING_MODEL", str(tmp_path / "net"))
    return path


@pytest.fixture
def red_square() -> Image.Image:
    pixels = np.zeros((64, 96, 3), np.uint8)
    pixels[16:48, 24:72, 0] = 255
    return Image.fromarray(pixels)


@pytest.mark.parametrize("sigmoid", [False, True])
def test_logits_and_probabilities_both_become_a_matte(
    tmp_path: Path, red_square: Image.Image, sigmoid: bool
) -> None:
    model = MattingModel(_write_network(tmp_path / "m.onnx", gain=20.0, sigmoid=sigmoid))
    matte = model.predict(np.asarray(red_square))

    assert matte.shape == (64, 96)
    assert matte.dtype == np.float32
    assert matte[32, 48] > 0.99
    assert matte[4, 4] < 0.01


def test_network_at_hand_is_preferred_to_grabcut_and_named(
    network: Path, red_square: Image.Image
) -> None:
    result = matting.matte(red_square)

    assert result.method == "model"
    assert result.model == str(network.parents[1])
    alpha = np.asarray(result.image)[..., 3]
    assert result.image.size == red_square.size
    assert (alpha[20:44, 28:68] > 250).all()
    assert (alpha[:10] == 0).all()


def test_normalisation_comes_from_the_description_beside_the_weights(
    network: Path, red_square: Image.Image
) -> None:
    config = {"image_mean": [1.5, 0, 0], "image_std": [1, 1, 1], "size": {"height": 32}}
    (network.parents[1] / "preprocessor_config.json").write_text(json.dumps(config))
    matte = MattingModel(network).predict(np.asarray(red_square))
    assert matte.max() < 0.01, "red minus 1.5 is negative everywhere"


@pytest.mark.parametrize(
    "content",
    ["{", "[]", '{"image_mean": [1]}', '{"image_std": [0, 1, 1]}', '{"size": 100000}'],
)
def test_damaged_description_is_named(network: Path, content: str) -> None:
    (network.parent / "preprocessor_config.json").write_text(content)
    with pytest.raises(CheckpointError, match="preprocessor_config"):
        MattingModel(network)


def test_model_without_weights_says_what_to_do(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, red_square: Image.Image
) -> None:
    monkeypatch.setenv("DREAM_CAD_CACHE_DIR", str(tmp_path))
    monkeypatch.setenv("DREAM_CAD_MATTING_MODEL", "nobody/nothing-here")
    with pytest.raises(CheckpointError, match="dream-cad pull matting"):
        matting.matte(red_square, "model")
    assert matting.matte(red_square).method == "grabcut"


def test_model_without_onnxruntime_says_what_to_install(
    network: Path, monkeypatch: pytest.MonkeyPatch, red_square: Image.Image
) -> None:
    monkeypatch.setattr(matting_model, "has_onnx_runtime", lambda: False)
    monkeypatch.setattr(matting, "has_onnx_runtime", lambda: False)
    with pytest.raises(CheckpointError, match=r"dream-cad\[matting\]"):
        matting.matte(red_square, "model")
    assert matting.matte(red_square).method == "grabcut"


def test_damaged_weights_do_not_fall_back_to_grabcut(
    network: Path, red_square: Image.Image
) -> None:
    network.write_bytes(network.read_bytes()[:40])
    with pytest.raises(CheckpointError, match="not a matting network"):
        matting.matte(red_square)


def test_named_file_that_is_not_there_is_an_error_even_for_auto(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, red_square: Image.Image
) -> None:
    monkeypatch.setenv("DREAM_CAD_MATTING_MODEL", str(tmp_path / "missing.onnx"))
    with pytest.raises(CheckpointError, match="no matting network at"):
        matting.matte(red_square)


def test_network_for_other_inputs_is_refused(tmp_path: Path) -> None:
    path = _write_network(tmp_path / "m.onnx", gain=1.0, channels=4)
    with pytest.raises(CheckpointError, match="1, 3, H, W"):
        MattingModel(path)


def test_nan_from_the_network_is_an_error(tmp_path: Path, red_square: Image.Image) -> None:
    model = MattingModel(_write_network(tmp_path / "m.onnx", gain=float("nan")))
    with pytest.raises(GenerationError, match="NaN"):
        model.predict(np.asarray(red_square))


def test_network_is_loaded_once_until_replaced_or_dropped(network: Path) -> None:
    first = load_matting_model()
    assert load_matting_model() is first
    matting_model.unload_matting_model()
    assert load_matting_model() is not first


def test_pull_fetches_only_the_network_and_its_description(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[tuple[str, tuple[str, ...]]] = []

    def fetch(source: str, *, patterns: tuple[str, ...]) -> Path:
        asked.append((source, patterns))
        return tmp_path

    monkeypatch.setattr(matting_model, "download_repository", fetch)
    assert matting_model.pull_matting_model("a/b") == tmp_path / "onnx" / "model.onnx"
    assert asked[0][0] == "a/b"
    assert not any(pattern.endswith((".py", ".bin", "*")) for pattern in asked[0][1][:-1])
