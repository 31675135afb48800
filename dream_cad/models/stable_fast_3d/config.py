"""Hyper-parameters of Stable Fast 3D and the published ``config.yaml`` layout."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import Any, Literal, Self

from dream_cad.nn.clip import ClipConfig
from dream_cad.nn.dinov2 import Dinov2Config

HeadActivation = Literal["none", "trunc_exp", "sigmoid", "normalize_channel_last"]


@dataclass(frozen=True)
class BackboneConfig:
    """The two-stream transformer.

    Attributes:
        num_attention_heads: heads of every attention.
        attention_head_dim: channels of a head; latents have heads times this many channels.
        raw_triplane_channels: channels of the triplane tokens that come in and go out.
        triplane_channels: channels of the triplane stream inside.
        raw_image_channels: channels of the image tokens.
        num_latents: learned latents beside the image tokens.
        num_blocks: two-stream blocks.
        num_basic_blocks: basic blocks in each of them.
        norm_num_groups: groups of the triplane tokens' norm.
    """

    num_attention_heads: int = 16
    attention_head_dim: int = 64
    raw_triplane_channels: int = 1024
    triplane_channels: int = 1024
    raw_image_channels: int = 1024
    num_latents: int = 1792
    num_blocks: int = 4
    num_basic_blocks: int = 3
    norm_num_groups: int = 32

    @property
    def latent_channels(self) -> int:
        """Channels of a latent."""
        return self.num_attention_heads * self.attention_head_dim


@dataclass(frozen=True)
class PostProcessorConfig:
    """The convolutions that upsample the planes.

    Attributes:
        in_channels: channels of the token planes.
        out_channels: channels of the scene code.
        scale_factor: of the pixel shuffle.
        conv_layers: convolutions, the last one to ``out_channels * scale_factor ** 2``.
        conv_kernel_size: their kernel.
    """

    in_channels: int = 1024
    out_channels: int = 40
    scale_factor: int = 4
    conv_layers: int = 4
    conv_kernel_size: int = 3


@dataclass(frozen=True)
class HeadConfig:
    """One head of the decoder.

    Attributes:
        name: its key in the checkpoint.
        out_channels: numbers a point.
        n_hidden_layers: hidden layers.
        out_bias: added after the last layer.
        output_activation: applied last.
    """

    name: str
    out_channels: int
    n_hidden_layers: int
    out_bias: float = 0.0
    output_activation: HeadActivation = "none"


PUBLISHED_HEADS = (
    HeadConfig("density", 1, 2, -1.0, "trunc_exp"),
    HeadConfig("features", 3, 3, 0.0, "sigmoid"),
    HeadConfig("perturb_normal", 3, 3, 0.0, "normalize_channel_last"),
    HeadConfig("vertex_offset", 3, 2),
)


@dataclass(frozen=True)
class DecoderConfig:
    """The MLPs that read the planes.

    Attributes:
        in_channels: three times the channels of the scene code.
        n_neurons: width of the hidden layers.
        heads: density, features (albedo), perturb_normal and vertex_offset.
    """

    in_channels: int = 120
    n_neurons: int = 64
    heads: tuple[HeadConfig, ...] = PUBLISHED_HEADS


@dataclass(frozen=True)
class EstimatorConfig:
    """Roughness and metallic from CLIP's features, and illumination from the planes.

    Attributes:
        clip: the image encoder.
        hidden_features: width of the material heads.
        material_heads: names of the material heads.
        illumination_features: width of the illumination estimator.
        illumination_layers: its strided convolutions.
        amplitudes: spherical gaussians that it weighs; 0 leaves the estimator out.
    """

    clip: ClipConfig = field(default_factory=ClipConfig)
    hidden_features: int = 512
    material_heads: tuple[str, ...] = ("roughness", "metallic")
    illumination_features: int = 512
    illumination_layers: int = 2
    amplitudes: int = 24


_DINOV2_LARGE = Dinov2Config(1024, 24, 16, use_swiglu_ffn=False)


@dataclass(frozen=True)
class StableFast3DConfig:
    """Sizes and constants of one checkpoint; the defaults are the published ones.

    Attributes:
        cond_image_size: side of the square input picture in pixels.
        isosurface_resolution: tetrahedral cells a side, a multiple of four.
        isosurface_threshold: density of the surface.
        radius: half side of the box that the field covers, in model units.
        background_color: what the object is put on, sRGB in [0, 1].
        default_fovy_deg: vertical field of view of the assumed camera.
        default_distance: of the camera from the object's centre.
        camera_channels: width of the embedded camera, which the image tokenizer is told.
        plane_size: side of the token planes.
        dinov2: the image tokenizer.
        backbone: the transformer.
        post_processor: the upsampler.
        decoder: the field's MLPs.
        estimators: material and illumination.
    """

    cond_image_size: int = 512
    isosurface_resolution: int = 160
    isosurface_threshold: float = 10.0
    radius: float = 0.87
    background_color: tuple[float, float, float] = (0.5, 0.5, 0.5)
    default_fovy_deg: float = 40.0
    default_distance: float = 1.6
    camera_channels: int = 768
    plane_size: int = 96
    dinov2: Dinov2Config = _DINOV2_LARGE
    backbone: BackboneConfig = field(default_factory=BackboneConfig)
    post_processor: PostProcessorConfig = field(default_factory=PostProcessorConfig)
    decoder: DecoderConfig = field(default_factory=DecoderConfig)
    estimators: EstimatorConfig = field(default_factory=EstimatorConfig)

    @property
    def density_bias(self) -> float:
        """What is added to the density head's last layer before ``exp``."""
        return next(head.out_bias for head in self.decoder.heads if head.name == "density")

    @property
    def threshold_logit(self) -> float:
        """Output of the density head's last layer that lies on the surface."""
        return math.log(self.isosurface_threshold) - self.density_bias

    @classmethod
    def published(cls) -> Self:
        """Sizes of ``stabilityai/stable-fast-3d``."""
        return cls()

    @classmethod
    def nano(cls) -> Self:
        """Sizes of the small checkpoint that jobs/train_nano.py makes."""
        return cls(
            cond_image_size=128,
            isosurface_resolution=64,
            radius=0.6,
            camera_channels=8,
            plane_size=8,
            dinov2=Dinov2Config(192, 4, 3, image_size=128, patch_size=16, use_swiglu_ffn=False),
            backbone=BackboneConfig(3, 28, 48, 72, 192, 32, 2, 2, norm_num_groups=8),
            post_processor=PostProcessorConfig(48, 16, conv_layers=2),
            decoder=DecoderConfig(48, 48),
            estimators=EstimatorConfig(
                ClipConfig(32, image_size=64, width=32, layers=2, heads=2, patch_size=8),
                hidden_features=32,
                amplitudes=0,
            ),
        )

    @classmethod
    def tiny(cls) -> Self:
        """Smallest sizes that exercise every layer; for tests."""
        return cls(
            cond_image_size=64,
            isosurface_resolution=16,
            camera_channels=24,
            plane_size=8,
            dinov2=Dinov2Config(32, 2, 2, image_size=42, use_swiglu_ffn=False),
            backbone=BackboneConfig(2, 16, 32, 48, 32, 10, 2, 2, norm_num_groups=8),
            post_processor=PostProcessorConfig(32, 8),
            decoder=DecoderConfig(24, 16),
            estimators=EstimatorConfig(
                ClipConfig(16, image_size=64, width=32, layers=2, heads=2),
                hidden_features=16,
                illumination_features=24,
            ),
        )

    @classmethod
    def from_mapping(cls, data: dict[str, Any]) -> Self:
        """Build from the published layout; see ``config_file.parse``."""
        from dream_cad.models.stable_fast_3d.config_file import parse

        return cls(**parse(data))
