"""Hyper-parameters of TripoSR and the published ``config.yaml`` layout."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any, Self, get_args

import yaml

from dream_cad.exceptions import CheckpointError
from dream_cad.nn.embeddings import PositionInterpolation
from dream_cad.nn.vit import ViTConfig

_VIT_KEYS = tuple(f.name for f in fields(ViTConfig) if f.name != "position_interpolation")
_VIT_PREFIX = "image_tokenizer.vit"

# Key of config.yaml -> our field. Several keys may name one field; they must then agree.
_FIELDS: dict[str, str] = {
    "cond_image_size": "cond_image_size",
    "tokenizer.plane_size": "plane_size",
    "tokenizer.num_channels": "num_channels",
    "backbone.in_channels": "num_channels",
    "backbone.num_attention_heads": "num_attention_heads",
    "backbone.attention_head_dim": "attention_head_dim",
    "backbone.num_layers": "num_layers",
    "backbone.norm_num_groups": "norm_num_groups",
    "post_processor.in_channels": "num_channels",
    "post_processor.out_channels": "out_channels",
    "post_processor.scale_factor": "upsample_scale",
    "decoder.n_neurons": "decoder_neurons",
    "decoder.n_hidden_layers": "decoder_hidden_layers",
    "renderer.radius": "radius",
    "renderer.density_bias": "density_bias",
    "renderer.num_samples_per_ray": "num_samples_per_ray",
    "mesh.threshold": "threshold",
    "mesh.default_resolution": "default_resolution",
}

# Keys whose value selects code: the only value that this implementation has.
_FIXED: dict[str, Any] = {
    "image_tokenizer_cls": "tsr.models.tokenizers.image.DINOSingleImageTokenizer",
    "image_tokenizer.pretrained_model_name_or_path": "facebook/dino-vitb16",
    "tokenizer_cls": "tsr.models.tokenizers.triplane.Triplane1DTokenizer",
    "backbone_cls": "tsr.models.transformer.transformer_1d.Transformer1D",
    "backbone.dropout": 0.0,
    "backbone.attention_bias": False,
    "backbone.activation_fn": "geglu",
    "backbone.only_cross_attention": False,
    "backbone.double_self_attention": False,
    "backbone.norm_type": "layer_norm",
    "backbone.norm_elementwise_affine": True,
    "post_processor_cls": "tsr.models.network_utils.TriplaneUpsampleNetwork",
    "decoder_cls": "tsr.models.network_utils.NeRFMLP",
    "decoder.activation": "silu",
    "decoder.bias": True,
    "renderer_cls": "tsr.models.nerf_renderer.TriplaneNeRFRenderer",
    "renderer.feature_reduction": "concat",
    "renderer.density_activation": "exp",
    "renderer.color_activation": "sigmoid",
    "renderer.randomized": False,
}
_KIND_NAMES = {int: "integer", float: "number"}
_FIXED_VIT: dict[str, Any] = {
    "hidden_act": "gelu",
    "hidden_dropout_prob": 0.0,
    "attention_probs_dropout_prob": 0.0,
    "num_channels": 3,
    "qkv_bias": True,
}


@dataclass(frozen=True)
class TripoSRConfig:
    """Sizes and constants of one TripoSR checkpoint; the defaults are the published ones.

    Attributes:
        cond_image_size: side of the square input image in pixels.
        vit: the image encoder; its ``hidden_size`` is the backbone's cross-attention width.
        plane_size: side of the token planes.
        num_channels: channels of a triplane token.
        num_attention_heads: heads of the backbone.
        attention_head_dim: channels of a head.
        num_layers: blocks of the backbone.
        norm_num_groups: groups of the backbone's GroupNorm.
        out_channels: channels of the scene code.
        upsample_scale: kernel and stride of the upsampler; scene codes are ``upsample_scale *
            plane_size`` wide.
        decoder_neurons: width of the decoder.
        decoder_hidden_layers: hidden layers of the decoder.
        radius: half side of the box that the field covers, in model units.
        density_bias: added to the raw density before ``exp``.
        num_samples_per_ray: samples of the volume renderer.
        threshold: activated density of the surface.
        default_resolution: grid points a side of the mesh extraction unless asked otherwise.
    """

    cond_image_size: int = 512
    vit: ViTConfig = field(default_factory=ViTConfig)
    plane_size: int = 32
    num_channels: int = 1024
    num_attention_heads: int = 16
    attention_head_dim: int = 64
    num_layers: int = 16
    norm_num_groups: int = 32
    out_channels: int = 40
    upsample_scale: int = 2
    decoder_neurons: int = 64
    decoder_hidden_layers: int = 9
    radius: float = 0.87
    density_bias: float = -1.0
    num_samples_per_ray: int = 128
    threshold: float = 25.0
    default_resolution: int = 256

    @classmethod
    def published(cls) -> Self:
        """Sizes of ``stabilityai/TripoSR``."""
        return cls()

    @classmethod
    def nano(cls) -> Self:
        """Sizes of the small checkpoint that ships with the package."""
        return cls(
            cond_image_size=128,
            vit=ViTConfig(192, 4, 3, 768, image_size=128, patch_size=16),
            plane_size=6,
            num_channels=192,
            num_attention_heads=3,
            num_layers=6,
            out_channels=20,
            upsample_scale=6,
            decoder_hidden_layers=4,
            radius=0.6,
            default_resolution=96,
        )

    @classmethod
    def tiny(cls) -> Self:
        """Smallest sizes that exercise every layer; for tests."""
        return cls(
            cond_image_size=32,
            vit=ViTConfig(24, 2, 2, 48, image_size=24, patch_size=8),
            plane_size=4,
            num_channels=32,
            num_attention_heads=2,
            attention_head_dim=16,
            num_layers=2,
            norm_num_groups=8,
            out_channels=6,
            decoder_neurons=16,
            decoder_hidden_layers=2,
            default_resolution=32,
        )

    @classmethod
    def from_mapping(cls, data: Mapping[str, Any]) -> Self:
        """Build from the (nested) published layout; absent keys take the published values.

        Raises:
            CheckpointError: a key is unknown, has the wrong type or an unsupported value, or two
                keys contradict each other.
        """
        flat = _flatten(data)
        values: dict[str, Any] = {}
        vit: dict[str, Any] = {}
        for key, value in flat.items():
            _assign(key, value, values, vit)
        config = cls(vit=ViTConfig(**vit), **values)
        _check(config, flat)
        return config

    @classmethod
    def from_yaml(cls, path: Path) -> Self:
        """Read a ``config.yaml``; see ``from_mapping``.

        Raises:
            CheckpointError: the file is missing, is no YAML mapping, or does not fit.
        """
        try:
            data = yaml.safe_load(path.read_text(encoding="utf-8"))
        except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
            raise CheckpointError(
                f"{path} cannot be read as YAML: {error}", hint="Fetch the checkpoint again."
            ) from error
        if not isinstance(data, dict):
            raise CheckpointError(f"{path} holds {type(data).__name__}, a mapping was expected.")
        try:
            return cls.from_mapping(data)
        except CheckpointError as error:
            raise CheckpointError(f"{path}: {error.message}", hint=error.hint) from error

    def to_mapping(self) -> dict[str, Any]:
        """Return the nested published layout, with every field spelled out."""
        tree: dict[str, Any] = {}
        for key, name in _FIELDS.items():
            _put(tree, key, getattr(self, name))
        for key, value in _FIXED.items():
            _put(tree, key, value)
        _put(tree, "backbone.cross_attention_dim", self.vit.hidden_size)
        _put(tree, "decoder.in_channels", 3 * self.out_channels)
        for name in _VIT_KEYS:
            _put(tree, f"{_VIT_PREFIX}.{name}", getattr(self.vit, name))
        _put(tree, "image_tokenizer.position_interpolation", self.vit.position_interpolation)
        return tree

    def to_yaml(self, path: Path) -> None:
        """Write ``config.yaml`` in the published layout."""
        path.write_text(yaml.safe_dump(self.to_mapping(), sort_keys=False), encoding="utf-8")


def _flatten(data: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    flat: dict[str, Any] = {}
    for key, value in data.items():
        name = f"{prefix}{key}"
        if isinstance(value, Mapping):
            flat.update(_flatten(value, f"{name}."))
        else:
            flat[name] = value
    return flat


def _put(tree: dict[str, Any], key: str, value: Any) -> None:
    *parents, last = key.split(".")
    for parent in parents:
        tree = tree.setdefault(parent, {})
    tree[last] = value


def _assign(key: str, value: Any, values: dict[str, Any], vit: dict[str, Any]) -> None:
    """Store one flat key in the constructor arguments, or refuse it."""
    section, _, name = key.rpartition(".")
    fixed = _FIXED_VIT.get(name) if section == _VIT_PREFIX else _FIXED.get(key)
    if key in ("backbone.cross_attention_dim", "decoder.in_channels"):
        return  # derived; compared in _check
    if key == "image_tokenizer.position_interpolation":
        _require(value in get_args(PositionInterpolation), key, value, "'scale' or 'size'")
        vit["position_interpolation"] = value
    elif section == _VIT_PREFIX and name in _VIT_KEYS:
        vit[name] = _number(key, value, getattr(ViTConfig, name))
    elif key in _FIELDS:
        target = _FIELDS[key]
        number = _number(key, value, getattr(TripoSRConfig, target))
        _require(values.setdefault(target, number) == number, key, value, f"{values[target]}")
    elif fixed is not None:
        _require(value == fixed, key, value, f"{fixed!r}")
    else:
        raise CheckpointError(
            f"Unknown key {key!r}.",
            hint="The checkpoint is not TripoSR, or of a version this release does not know.",
        )


def _number(key: str, value: Any, default: float) -> float:
    """Check that ``value`` has the kind of ``default``, and is positive if that is."""
    kind: type | tuple[type, ...] = int if isinstance(default, int) else (int, float)
    _require(isinstance(value, kind) and not isinstance(value, bool), key, value, "a number")
    _require(math.isfinite(value), key, value, "a finite number")
    _require(value > 0 or default < 0, key, value, f"a positive {_KIND_NAMES[type(default)]}")
    return value if isinstance(default, int) else float(value)


def _require(condition: bool, key: str, value: Any, wanted: str) -> None:
    if not condition:
        raise CheckpointError(f"{key} is {value!r}; {wanted} was expected.")


def _check(config: TripoSRConfig, flat: Mapping[str, Any]) -> None:
    """Compare the derived keys of ``flat`` and the divisibility of the sizes."""
    for key, expected in (
        ("backbone.cross_attention_dim", config.vit.hidden_size),
        ("decoder.in_channels", 3 * config.out_channels),
    ):
        _require(flat.get(key, expected) == expected, key, flat.get(key), f"{expected}")
    for name, size, divisor in (
        ("cond_image_size", config.cond_image_size, config.vit.patch_size),
        ("vit.hidden_size", config.vit.hidden_size, config.vit.num_attention_heads),
        ("num_channels", config.num_channels, config.norm_num_groups),
    ):
        _require(size % divisor == 0, name, size, f"a multiple of {divisor}")
