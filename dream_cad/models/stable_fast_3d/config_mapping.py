"""A configuration as the published layout spells it."""

from __future__ import annotations

from dataclasses import asdict
from typing import Any

from dream_cad.models.stable_fast_3d.config import StableFast3DConfig

_CONDITIONS = ["c2w_cond", "intrinsic_normed_cond"]


def to_mapping(config: StableFast3DConfig) -> dict[str, Any]:
    """Return the sections of ``config.yaml``; ``config_file.parse`` reads them back."""
    clip, estimators = config.estimators.clip, config.estimators
    tree: dict[str, Any] = {
        "cond_image_size": config.cond_image_size,
        "isosurface_resolution": config.isosurface_resolution,
        "isosurface_threshold": config.isosurface_threshold,
        "radius": config.radius,
        "background_color": list(config.background_color),
        "default_fovy_deg": config.default_fovy_deg,
        "default_distance": config.default_distance,
        "camera_embedder": {"out_channels": config.camera_channels, "conditions": _CONDITIONS},
        "image_tokenizer": {
            "width": config.cond_image_size,
            "height": config.cond_image_size,
            "modulation_cond_dim": config.camera_channels,
        },
        "dinov2": asdict(config.dinov2),
        "tokenizer": {
            "plane_size": config.plane_size,
            "num_channels": config.backbone.raw_triplane_channels,
        },
        "backbone": asdict(config.backbone),
        "post_processor": asdict(config.post_processor),
        "decoder": asdict(config.decoder)
        | {"heads": [asdict(head) for head in config.decoder.heads]},
        "image_estimator": {
            "hidden_features": estimators.hidden_features,
            "heads": [{"name": name} for name in estimators.material_heads],
        },
        "clip": {
            "embed_dim": clip.embed_dim,
            "vision_cfg": {
                "image_size": clip.image_size,
                "layers": clip.layers,
                "width": clip.width,
                "patch_size": clip.patch_size,
                "head_width": clip.width // clip.heads,
            },
            "text_cfg": asdict(clip.text),
        },
    }
    if estimators.amplitudes:
        tree["global_estimator"] = {
            "triplane_features": config.backbone.raw_triplane_channels,
            "n_layers": estimators.illumination_layers,
            "hidden_features": estimators.illumination_features,
            "heads": [{"name": "sg_amplitudes", "out_channels": estimators.amplitudes}],
        }
    return tree
