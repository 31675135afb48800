"""Capabilities of the five built-in models, and where the code of each is imported from."""

from __future__ import annotations

from dream_cad.models.base import ModelCapabilities

# In the order of the API reference. GPU memory is what the published checkpoint needs; the
# licences are those of the weights, which users download themselves.
BUILT_IN_CAPABILITIES: dict[str, ModelCapabilities] = {
    "mvdream": ModelCapabilities(
        min_vram_gb=16.0,
        recommended_vram_gb=20.0,
        supports_image_to_3d=False,
        has_uv_unwrapping=True,
        typical_generation_time="10-60 s",
        max_resolution=256,
        license_type="CreativeML Open RAIL-M",
    ),
    "triposr": ModelCapabilities(
        min_vram_gb=6.0,
        recommended_vram_gb=8.0,
        has_uv_unwrapping=True,
        typical_generation_time="1-5 s",
        max_resolution=512,
        license_type="MIT",
    ),
    "stable-fast-3d": ModelCapabilities(
        min_vram_gb=6.0,
        recommended_vram_gb=8.0,
        has_pbr_materials=True,
        has_uv_unwrapping=True,
        typical_generation_time="1-5 s",
        max_resolution=1024,
        license_type="Stability AI Community License",
    ),
    "trellis": ModelCapabilities(
        min_vram_gb=16.0,
        recommended_vram_gb=24.0,
        supports_multi_view=True,
        has_uv_unwrapping=True,
        typical_generation_time="10-60 s",
        max_resolution=256,
        license_type="MIT",
    ),
    "hunyuan3d-mini": ModelCapabilities(
        min_vram_gb=12.0,
        recommended_vram_gb=16.0,
        supports_multi_view=True,
        has_uv_unwrapping=True,
        typical_generation_time="5-30 s",
        max_resolution=512,
        license_type="Tencent Hunyuan 3D 2.0 Community License",
    ),
}

# Imported when a model is created, so that naming the models costs nothing.
BUILT_IN_IMPLEMENTATIONS: dict[str, str] = {
    "mvdream": "dream_cad.models.mvdream:MVDream",
    "triposr": "dream_cad.models.triposr:TripoSR",
    "stable-fast-3d": "dream_cad.models.stable_fast_3d:StableFast3D",
    "trellis": "dream_cad.models.trellis:Trellis",
    "hunyuan3d-mini": "dream_cad.models.hunyuan3d_mini:Hunyuan3DMini",
}
