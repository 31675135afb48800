from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml

from dream_cad.exceptions import CheckpointError
from dream_cad.models.stable_fast_3d.config import StableFast3DConfig
from dream_cad.models.stable_fast_3d.config_file import read_config, write_config
from dream_cad.models.stable_fast_3d.config_mapping import to_mapping


@pytest.mark.parametrize("size", ["published", "nano", "tiny"])
def test_what_is_written_is_read(tmp_path: Path, size: str) -> None:
    config: StableFast3DConfig = getattr(StableFast3DConfig, size)()
    write_config(config, tmp_path / "config.yaml")
    assert read_config(tmp_path / "config.yaml") == config


def change(path: str, value: Any) -> Callable[[dict[str, Any]], None]:
    def apply(tree: dict[str, Any]) -> None:
        *parents, last = path.split("/")
        for parent in parents:
            tree = tree.setdefault(parent, {})
        tree[last] = value

    return apply


@pytest.mark.parametrize(
    ("path", "value", "text"),
    [
        ("colour", 1, "unknown colour"),
        ("backbone/depth", 4, "unknown depth"),
        ("backbone/norm_x_input", True, "norm_x_input is True; False"),
        ("backbone/num_blocks", 0, "num_blocks is 0"),
        ("backbone/cross_attention_dim", 7, "cross_attention_dim is 7"),
        ("backbone/raw_image_channels", 31, "raw_image_channels is 31"),
        ("decoder/activation", "relu", "'silu' was expected"),
        ("decoder/in_channels", 25, "in_channels is 25; 24"),
        ("decoder/heads", [{"name": "density"}], "incomplete"),
        ("decoder/heads", [{"name": "x", "out_channels": 1, "n_hidden_layers": 1}], "heads"),
        ("isosurface_resolution", 18, "a multiple of 4"),
        ("isosurface_threshold", float("nan"), "isosurface_threshold"),
        ("radius", "large", "radius is 'large'"),
        ("background_color", [0.5, 2, 0], "background_color"),
        ("decoder_cls", "other.Class", "decoder_cls"),
        ("image_tokenizer/width", 32, "width is 32"),
        ("clip/vision_cfg/head_width", 7, "head_width is 7"),
        ("image_estimator/heads", [{"name": "roughness", "out_channels": 2}], "out_channels is 2"),
        ("tokenizer", 3, "a section was expected"),
    ],
)
def test_what_does_not_fit_is_named(path: str, value: Any, text: str) -> None:
    tree = to_mapping(StableFast3DConfig.tiny())
    change(path, value)(tree)
    with pytest.raises(CheckpointError, match=text):
        StableFast3DConfig.from_mapping(tree)


def test_files_that_are_no_configuration_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "config.yaml"
    with pytest.raises(CheckpointError, match="cannot be read"):
        read_config(path)
    path.write_text(yaml.safe_dump([1, 2]))
    with pytest.raises(CheckpointError, match="no mapping"):
        read_config(path)
