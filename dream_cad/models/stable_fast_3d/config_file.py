"""The published ``config.yaml`` of Stable Fast 3D, and the sections that smaller models add.

The published file names DINOv2 and CLIP by repository; checkpoints of other sizes give those in
sections ``dinov2`` and ``clip``.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import fields
from pathlib import Path
from typing import Any, TypeVar, get_args

import yaml

from dream_cad.exceptions import CheckpointError
from dream_cad.models.stable_fast_3d.camera import CAMERA_NUMBERS
from dream_cad.models.stable_fast_3d.config import (
    BackboneConfig,
    DecoderConfig,
    EstimatorConfig,
    HeadActivation,
    HeadConfig,
    PostProcessorConfig,
    StableFast3DConfig,
)
from dream_cad.nn.clip import ClipConfig, ClipTextConfig
from dream_cad.nn.dinov2 import Dinov2Config

SectionType = TypeVar("SectionType")

_CLASSES = {
    "camera_embedder_cls": "sf3d.models.camera.LinearCameraEmbedder",
    "image_tokenizer_cls": "sf3d.models.tokenizers.image.DINOV2SingleImageTokenizer",
    "tokenizer_cls": "sf3d.models.tokenizers.triplane.TriplaneLearnablePositionalEmbedding",
    "backbone_cls": "sf3d.models.transformers.backbone.TwoStreamInterleaveTransformer",
    "post_processor_cls": "sf3d.models.network.PixelShuffleUpsampleNetwork",
    "decoder_cls": "sf3d.models.network.MaterialMLP",
    "image_estimator_cls": "sf3d.models.image_estimator.clip_based_estimator."
    "ClipBasedHeadEstimator",
    "global_estimator_cls": "sf3d.models.global_estimator.multi_head_estimator.MultiHeadEstimator",
}
# Keys whose value selects code: the only value that this implementation has.
_FIXED: dict[str, dict[str, Any]] = {
    "camera_embedder": {
        "in_channels": CAMERA_NUMBERS,
        "conditions": ["c2w_cond", "intrinsic_normed_cond"],
    },
    "backbone": {
        "dropout": 0.0,
        "attention_bias": False,
        "norm_x_input": False,
        "mix_latent": True,
    },
    "decoder": {"activation": "silu"},
    "image_estimator": {"distribution": "beta", "distribution_eval": "mode", "activation": "relu"},
    "global_estimator": {"activation": "relu", "pool": "max"},
    "dinov2": {
        "hidden_act": "gelu",
        "hidden_dropout_prob": 0.0,
        "attention_probs_dropout_prob": 0.0,
        "drop_path_rate": 0.0,
        "num_channels": 3,
    },
}
# Keys that cannot change what is computed.
_UNUSED: dict[str, set[str]] = {
    "backbone": {"latent_init_std"},
    "dinov2": {"layerscale_value", "source"},
    "image_tokenizer": {"pretrained_model_name_or_path"},
    "image_estimator": {"model", "pretrain"},
}
_NUMBERS = (
    "cond_image_size",
    "isosurface_resolution",
    "isosurface_threshold",
    "radius",
    "default_fovy_deg",
    "default_distance",
)


def read_config(path: Path) -> StableFast3DConfig:
    """Read a ``config.yaml``.

    Raises:
        CheckpointError: it is missing, damaged, or asks for what is not implemented.
    """
    try:
        data = yaml.safe_load(path.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
        raise CheckpointError(f"{path} cannot be read: {error}.") from error
    if not isinstance(data, dict):
        raise CheckpointError(f"{path} holds no mapping of sections.")
    return StableFast3DConfig.from_mapping(data)


def parse(data: Mapping[str, Any]) -> dict[str, Any]:
    """Return the arguments of ``StableFast3DConfig`` from the published layout.

    Raises:
        CheckpointError: an unknown key, or a value that is ill-typed, not implemented or
            contradicts another.
    """
    default = StableFast3DConfig()
    values: dict[str, Any] = {
        name: _positive("config", name, data[name], getattr(default, name))
        for name in _NUMBERS
        if name in data
    }
    for key, wanted in _CLASSES.items():
        _require(data.get(key, wanted) == wanted, "config", key, data.get(key), repr(wanted))
    if "background_color" in data:
        values["background_color"] = _color(data["background_color"])
    values["camera_channels"] = _rest(
        data, "camera_embedder", {"out_channels": default.camera_channels}
    )["out_channels"]
    values["dinov2"] = parse_section(Dinov2Config, "dinov2", data.get("dinov2"), default.dinov2)
    backbone = values["backbone"] = parse_backbone(_section(data, "backbone"))
    values["post_processor"] = parse_section(
        PostProcessorConfig, "post_processor", data.get("post_processor")
    )
    values["decoder"] = parse_decoder(_section(data, "decoder"))
    values["estimators"] = parse_estimators(data)
    values["plane_size"] = _rest(
        data,
        "tokenizer",
        {"plane_size": default.plane_size},
        {"num_channels": backbone.raw_triplane_channels},
    )["plane_size"]
    size = values.get("cond_image_size", default.cond_image_size)
    equal = {"width": size, "height": size, "modulation_cond_dim": values["camera_channels"]}
    _rest(data, "image_tokenizer", {}, equal)
    known = {*_NUMBERS, *_CLASSES, "background_color", *_SECTIONS}
    _refuse_unknown("config", data.keys() - known)
    _check(StableFast3DConfig(**values))
    return values


_SECTIONS = (
    "camera_embedder",
    "image_tokenizer",
    "tokenizer",
    "backbone",
    "post_processor",
    "decoder",
    "image_estimator",
    "global_estimator",
    "dinov2",
    "clip",
)


def parse_backbone(section: Mapping[str, Any]) -> BackboneConfig:
    """Read the section ``backbone``.

    Raises:
        CheckpointError: see ``parse``.
    """
    params = dict(section)
    width = params.pop("cross_attention_dim", None)
    config = parse_section(BackboneConfig, "backbone", params)
    _require(
        width in (None, config.raw_image_channels),
        "backbone",
        "cross_attention_dim",
        width,
        f"{config.raw_image_channels} (raw_image_channels)",
    )
    return config


def parse_decoder(section: Mapping[str, Any]) -> DecoderConfig:
    """Read the section ``decoder``.

    Raises:
        CheckpointError: see ``parse``.
    """
    params = dict(section)
    heads = params.pop("heads", None)
    config = parse_section(DecoderConfig, "decoder", params)
    if heads is None:
        return config
    if not isinstance(heads, Sequence):
        raise CheckpointError(f"config.yaml: decoder.heads is {heads!r}; a list was expected.")
    return DecoderConfig(config.in_channels, config.n_neurons, tuple(map(_head, heads)))


def parse_estimators(data: Mapping[str, Any]) -> EstimatorConfig:
    """Read the sections ``image_estimator``, ``global_estimator`` and ``clip``.

    Raises:
        CheckpointError: see ``parse``.
    """
    default = EstimatorConfig()
    material = _rest(
        data, "image_estimator", {"hidden_features": default.hidden_features, "heads": None}
    )
    names = tuple(_material_head(head) for head in material["heads"] or ())
    light: dict[str, Any] = {
        "n_layers": default.illumination_layers,
        "hidden_features": default.illumination_features,
    }
    amplitudes = 0
    if data.get("global_estimator") is not None:
        raw = _section(data, "backbone").get("raw_triplane_channels")
        planes = {} if raw is None else {"triplane_features": raw}
        free = light | {"heads": None} | ({} if planes else {"triplane_features": 1024})
        light = _rest(data, "global_estimator", free, planes)
        amplitudes = _amplitudes(light["heads"] or ())
    return EstimatorConfig(
        clip=parse_clip(_section(data, "clip")),
        hidden_features=material["hidden_features"],
        material_heads=names or default.material_heads,
        illumination_features=light["hidden_features"],
        illumination_layers=light["n_layers"],
        amplitudes=amplitudes,
    )


def parse_clip(section: Mapping[str, Any]) -> ClipConfig:
    """Read open_clip's description of a model: embed_dim, vision_cfg, text_cfg.

    Raises:
        CheckpointError: see ``parse``.
    """
    default = ClipConfig()
    vision, text = _section(section, "vision_cfg"), _section(section, "text_cfg")
    _refuse_unknown("clip", section.keys() - {"embed_dim", "vision_cfg", "text_cfg"})
    names = {"image_size", "layers", "width", "patch_size"}
    _refuse_unknown("clip.vision_cfg", vision.keys() - names - {"head_width"})
    sizes = {
        name: int(_positive("clip.vision_cfg", name, vision[name], getattr(default, name)))
        for name in names & vision.keys()
    }
    width = sizes.get("width", default.width)
    head = int(_positive("clip.vision_cfg", "head_width", vision.get("head_width", 64), 64))
    _require(width % head == 0, "clip.vision_cfg", "head_width", head, f"a divisor of {width}")
    return ClipConfig(
        embed_dim=int(_positive("clip", "embed_dim", section.get("embed_dim", 512), 512)),
        heads=width // head,
        text=parse_section(ClipTextConfig, "clip.text_cfg", text),
        **sizes,
    )


def parse_section(
    kind: type[SectionType],
    name: str,
    section: Mapping[str, Any] | None,
    default: SectionType | None = None,
) -> SectionType:
    """Return the dataclass of a section whose keys are the dataclass's fields.

    Raises:
        CheckpointError: see ``parse``.
    """
    base = kind() if default is None else default
    known = {f.name: getattr(base, f.name) for f in fields(kind)}  # type: ignore[arg-type]
    found = _rest({name: section or {}}, name, known)
    return kind(**found)


def write_config(config: StableFast3DConfig, path: Path) -> None:
    """Write ``config.yaml`` in the published layout, with every size spelled out."""
    from dream_cad.models.stable_fast_3d.config_mapping import to_mapping

    path.write_text(yaml.safe_dump(to_mapping(config), sort_keys=False), encoding="utf-8")


def _section(data: Mapping[str, Any], name: str) -> dict[str, Any]:
    section = data.get(name) or {}
    if not isinstance(section, Mapping):
        raise CheckpointError(f"config.yaml: {name} is {section!r}; a section was expected.")
    return dict(section)


def _rest(
    data: Mapping[str, Any],
    name: str,
    defaults: Mapping[str, Any],
    equal: Mapping[str, Any] | None = None,
) -> dict[str, Any]:
    """Check a section: ``defaults`` may be set, ``equal`` and the fixed keys have one value."""
    section = _section(data, name)
    single = {**_FIXED.get(name, {}), **(equal or {})}
    for key in single.keys() & section.keys():
        _require(section[key] == single[key], name, key, section[key], repr(single[key]))
    _refuse_unknown(
        name, section.keys() - defaults.keys() - single.keys() - _UNUSED.get(name, set())
    )
    values = dict(defaults)
    for key in defaults.keys() & section.keys():
        checks = isinstance(defaults[key], int | float) and not isinstance(defaults[key], bool)
        value = section[key]
        values[key] = _positive(name, key, value, defaults[key]) if checks else value
    return values


def _head(data: Any) -> HeadConfig:
    if not isinstance(data, Mapping):
        raise CheckpointError(f"config.yaml: decoder.heads holds {data!r}; a head was expected.")
    allowed = {f.name for f in fields(HeadConfig)}
    _refuse_unknown("decoder.heads", data.keys() - allowed)
    activation = data.get("output_activation", "none")
    options = get_args(HeadActivation)
    _require(activation in options, "decoder.heads", "output_activation", activation, str(options))
    try:
        return HeadConfig(**data)
    except TypeError as error:
        raise CheckpointError(f"config.yaml: a head of decoder is incomplete: {error}.") from error


def _material_head(data: Any) -> str:
    fixed = {"out_channels": 1, "n_hidden_layers": 3, "output_activation": "linear"}
    fixed |= {"output_bias": 1.0, "add_to_decoder_features": True, "shape": [-1, 1, 1]}
    for key, value in fixed.items():
        given = data.get(key, value)
        _require(given == value, "image_estimator.heads", key, given, repr(value))
    return str(data["name"])


def _amplitudes(heads: Sequence[Any]) -> int:
    fixed = {"name": "sg_amplitudes", "n_hidden_layers": 3, "output_activation": "softplus"}
    fixed |= {"output_bias": 1.0}
    _require(len(heads) == 1, "global_estimator", "heads", heads, "one head, sg_amplitudes")
    for key, value in fixed.items():
        given = heads[0].get(key, value)
        _require(given == value, "global_estimator.heads", key, given, repr(value))
    return int(_positive("global_estimator.heads", "out_channels", heads[0]["out_channels"], 24))


def _positive(section: str, key: str, value: Any, default: float) -> float:
    kind = int if isinstance(default, int) else (int, float)
    _require(
        isinstance(value, kind) and not isinstance(value, bool), section, key, value, "a number"
    )
    _require(math.isfinite(value) and value > 0, section, key, value, "a positive number")
    return value if isinstance(default, int) else float(value)


def _color(value: Any) -> tuple[float, float, float]:
    ok = isinstance(value, list | tuple) and len(value) == 3
    ok = ok and all(isinstance(v, int | float) and 0 <= v <= 1 for v in value)
    _require(ok, "config", "background_color", value, "three numbers from 0 to 1")
    return (float(value[0]), float(value[1]), float(value[2]))


def _check(config: StableFast3DConfig) -> None:
    backbone, post = config.backbone, config.post_processor
    heads = {head.name for head in config.decoder.heads}
    wanted = {"density", "features", "perturb_normal", "vertex_offset"}
    for condition, key, value, text in (
        (wanted <= heads, "decoder.heads", sorted(heads), ", ".join(sorted(wanted))),
        (
            config.decoder.in_channels == 3 * post.out_channels,
            "decoder.in_channels",
            config.decoder.in_channels,
            f"{3 * post.out_channels}",
        ),
        (
            post.in_channels == backbone.raw_triplane_channels,
            "post_processor.in_channels",
            post.in_channels,
            f"{backbone.raw_triplane_channels}",
        ),
        (
            config.dinov2.hidden_size == backbone.raw_image_channels,
            "backbone.raw_image_channels",
            backbone.raw_image_channels,
            f"{config.dinov2.hidden_size} (dinov2.hidden_size)",
        ),
        (
            config.isosurface_resolution % 4 == 0,
            "isosurface_resolution",
            config.isosurface_resolution,
            "a multiple of 4",
        ),
    ):
        _require(condition, "config", key, value, text)


def _refuse_unknown(section: str, unknown: set[str]) -> None:
    if unknown:
        raise CheckpointError(
            f"config.yaml: section {section} holds unknown {', '.join(sorted(unknown))}.",
            hint="The file may belong to another model or a newer version of it.",
        )


def _require(condition: bool, section: str, key: str, value: Any, wanted: str) -> None:
    if not condition:
        raise CheckpointError(f"config.yaml: {section}.{key} is {value!r}; {wanted} was expected.")
