from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import pytest

from dream_cad.exceptions import CheckpointError
from dream_cad.models.triposr.config import TripoSRConfig

# The published file as it is on the hub: keys that are code defaults are absent.
PUBLISHED_YAML = """
cond_image_size: 512
image_tokenizer_cls: tsr.models.tokenizers.image.DINOSingleImageTokenizer
image_tokenizer: {pretrained_model_name_or_path: "facebook/dino-vitb16"}
tokenizer_cls: tsr.models.tokenizers.triplane.Triplane1DTokenizer
tokenizer: {plane_size: 32, num_channels: 1024}
backbone_cls: tsr.models.transformer.transformer_1d.Transformer1D
backbone:
  in_channels: 1024
  num_attention_heads: 16
  attention_head_dim: 64
  num_layers: 16
  cross_attention_dim: 768
post_processor_cls: tsr.models.network_utils.TriplaneUpsampleNetwork
post_processor: {in_channels: 1024, out_channels: 40}
decoder_cls: tsr.models.network_utils.NeRFMLP
decoder: {in_channels: 120, n_neurons: 64, n_hidden_layers: 9, activation: silu}
renderer_cls: tsr.models.nerf_renderer.TriplaneNeRFRenderer
renderer:
  radius: 0.87
  feature_reduction: concat
  density_activation: exp
  density_bias: -1.0
  num_samples_per_ray: 128
"""


def test_published_file_gives_published_sizes(tmp_path: Path) -> None:
    path = tmp_path / "config.yaml"
    path.write_text(PUBLISHED_YAML)
    assert TripoSRConfig.from_yaml(path) == TripoSRConfig.published()


@pytest.mark.parametrize("name", ["published", "nano", "tiny"])
def test_yaml_round_trip(name: str, tmp_path: Path) -> None:
    config: TripoSRConfig = getattr(TripoSRConfig, name)()
    vit = dataclasses.replace(config.vit, position_interpolation="size")
    config = dataclasses.replace(config, vit=vit, radius=0.5, threshold=10.0)
    config.to_yaml(tmp_path / "config.yaml")
    assert TripoSRConfig.from_yaml(tmp_path / "config.yaml") == config


@pytest.mark.parametrize(
    ("data", "message"),
    [
        ({"tokeniser": {"plane_size": 8}}, "Unknown key 'tokeniser.plane_size'"),
        ({"backbone": {"num_layer": 2}}, "Unknown key 'backbone.num_layer'"),
        ({"decoder": {"activation": "relu"}}, "decoder.activation is 'relu'; 'silu'"),
        ({"image_tokenizer": {"vit": {"qkv_bias": False}}}, "qkv_bias is False; True"),
        ({"tokenizer": {"plane_size": "32"}}, "tokenizer.plane_size is '32'; a number"),
        ({"tokenizer": {"plane_size": 0}}, "tokenizer.plane_size is 0; a positive integer"),
        ({"tokenizer": {"plane_size": True}}, "tokenizer.plane_size is True; a number"),
        ({"tokenizer": {"num_channels": 64}, "backbone": {"in_channels": 32}}, "64 was expected"),
        ({"backbone": {"cross_attention_dim": 48}}, "48; 768 was expected"),
        ({"decoder": {"in_channels": 24}}, "24; 120 was expected"),
        ({"cond_image_size": 100}, "cond_image_size is 100; a multiple of 16"),
        ({"backbone": {"norm_num_groups": 7}}, "a multiple of 7"),
        ({"image_tokenizer": {"position_interpolation": "best"}}, "'scale' or 'size'"),
        ({"renderer": {"radius": float("nan")}}, "renderer.radius is nan; a finite number"),
        ({"renderer": {"radius": -1.0}}, "renderer.radius is -1.0; a positive number"),
    ],
)
def test_what_does_not_fit_is_refused(data: dict[str, Any], message: str) -> None:
    with pytest.raises(CheckpointError, match=message.replace("(", r"\(")):
        TripoSRConfig.from_mapping(data)


@pytest.mark.parametrize("text", ["a: [1", "- 1\n- 2\n", "!!python/object:os.system {}\n"])
def test_damaged_file_is_refused_with_its_path(text: str, tmp_path: Path) -> None:
    path = tmp_path / "config.yaml"
    path.write_text(text)
    with pytest.raises(CheckpointError, match=r"config\.yaml"):
        TripoSRConfig.from_yaml(path)


def test_missing_file_is_refused(tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match="cannot be read"):
        TripoSRConfig.from_yaml(tmp_path / "config.yaml")
