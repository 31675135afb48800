"""Hyper-parameters of MVDream and LGM, and the published config files."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any, Self, TypeVar

from dream_cad.exceptions import CheckpointError
from dream_cad.nn.clip_text import TextConfig

Section = TypeVar("Section")

# diffusers' settings of the published sampler; the other schedulers are made from the same.
SCHEDULER: dict[str, Any] = {
    "num_train_timesteps": 1000,
    "beta_start": 0.00085,
    "beta_end": 0.012,
    "beta_schedule": "scaled_linear",
    "steps_offset": 1,
    "clip_sample": False,
    "set_alpha_to_one": False,
    "prediction_type": "epsilon",
}


@dataclass(frozen=True)
class UNetConfig:
    """Sizes of the multi-view UNet; names are those of the published ``unet/config.json``.

    Attributes:
        image_size: side of a latent view.
        attention_resolutions: downsampling factors at which there is attention.
        channel_mult: width of each level over ``model_channels``.
        ip_dim: tokens of an image prompt (ImageDream); 0 for text alone.
        ip_weight: weight of the image prompt's attention.
    """

    image_size: int = 32
    in_channels: int = 4
    out_channels: int = 4
    model_channels: int = 320
    attention_resolutions: tuple[int, ...] = (4, 2, 1)
    num_res_blocks: int = 2
    channel_mult: tuple[int, ...] = (1, 2, 4, 4)
    num_head_channels: int = 64
    transformer_depth: int = 1
    context_dim: int = 1024
    camera_dim: int = 16
    ip_dim: int = 0
    ip_weight: float = 1.0


@dataclass(frozen=True)
class VAEConfig:
    """Sizes of the autoencoder, a diffusers AutoencoderKL."""

    in_channels: int = 3
    out_channels: int = 3
    latent_channels: int = 4
    block_out_channels: tuple[int, ...] = (128, 256, 512, 512)
    layers_per_block: int = 2
    norm_num_groups: int = 32
    sample_size: int = 256
    scaling_factor: float = 0.18215

    @property
    def downsampling(self) -> int:
        """Pixels a side of a latent pixel."""
        return int(2 ** (len(self.block_out_channels) - 1))


@dataclass(frozen=True)
class LGMConfig:
    """Sizes of the large Gaussian model; the defaults are the published ``big``.

    Attributes:
        input_size: side of an input view in pixels.
        splat_size: side of the output map of a view: its pixels are Gaussians.
        fovy: degrees of the field of view that the input rays assume.
        cam_radius: distance of the input cameras.
    """

    input_size: int = 256
    in_channels: int = 9
    out_channels: int = 14
    down_channels: tuple[int, ...] = (64, 128, 256, 512, 1024, 1024)
    down_attention: tuple[bool, ...] = (False, False, False, True, True, True)
    mid_attention: bool = True
    up_channels: tuple[int, ...] = (1024, 1024, 512, 256, 128)
    up_attention: tuple[bool, ...] = (True, True, True, False, False)
    layers_per_block: int = 2
    attention_heads: int = 16
    splat_size: int = 128
    fovy: float = 49.1
    cam_radius: float = 1.5


@dataclass(frozen=True)
class MVDreamConfig:
    """Everything that generates views from text; the defaults are the published sizes."""

    unet: UNetConfig = field(default_factory=UNetConfig)
    text: TextConfig = field(default_factory=TextConfig)
    vae: VAEConfig = field(default_factory=VAEConfig)

    @classmethod
    def published(cls) -> Self:
        """Sizes of ``ashawkey/mvdream-sd2.1-diffusers`` and ``MVDream/MVDream``."""
        return cls()

    @classmethod
    def tiny(cls) -> Self:
        """Smallest sizes that exercise every layer; for tests."""
        return cls(
            unet=UNetConfig(
                image_size=8,
                model_channels=32,
                attention_resolutions=(2, 1),
                num_res_blocks=1,
                channel_mult=(1, 2, 2),
                num_head_channels=16,
                context_dim=48,
            ),
            text=TextConfig(
                hidden_size=48,
                intermediate_size=192,
                num_hidden_layers=3,
                num_attention_heads=4,
            ),
            vae=VAEConfig(block_out_channels=(32, 32, 64), layers_per_block=1, sample_size=32),
        )


def tiny_lgm() -> LGMConfig:
    """Smallest LGM that exercises every layer; for tests."""
    return LGMConfig(
        input_size=32,
        down_channels=(32, 64, 64),
        down_attention=(False, True, True),
        up_channels=(64, 64),
        up_attention=(True, False),
        splat_size=16,
    )


def parse_section(kind: type[Section], data: Mapping[str, Any], where: str) -> Section:
    """Return the dataclass of a published config section; keys that it has no field for are left.

    Unknown keys are no danger: the weights are compared key by key and shape by shape.

    Raises:
        CheckpointError: a value is of another type than the default's.
    """
    values: dict[str, Any] = {}
    for item in fields(kind):  # type: ignore[arg-type]
        if item.name in data:
            default = getattr(kind, item.name)
            values[item.name] = _converted(data[item.name], default, f"{where}: {item.name}")
    return kind(**values)


def _converted(value: Any, default: Any, where: str) -> Any:
    if isinstance(default, tuple) and isinstance(value, list | tuple):
        return tuple(_converted(item, default[0], where) for item in value)
    if isinstance(default, float) and isinstance(value, int) and not isinstance(value, bool):
        return float(value)
    if type(value) is not type(default):
        raise CheckpointError(
            f"{where} is {value!r}; {type(default).__name__} was expected.",
            hint="Fetch the checkpoint again.",
        )
    return value


def read_section(kind: type[Section], path: Path, section: str | None = None) -> Section:
    """Read a JSON config file, or one section of it; a missing file means the published sizes.

    Raises:
        CheckpointError: the file is no JSON object, or a value does not fit.
    """
    if not path.is_file():
        return kind()
    try:
        data = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise CheckpointError(
            f"{path} cannot be read as JSON: {error}", hint="Fetch the checkpoint again."
        ) from error
    part = data.get(section, {}) if section and isinstance(data, dict) else data
    if not isinstance(part, dict):
        raise CheckpointError(f"{path} holds {type(part).__name__}; an object was expected.")
    return parse_section(kind, part, str(path))
