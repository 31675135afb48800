"""Sizes of the TRELLIS networks with the field names of the published JSON files."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, fields
from typing import Any, TypeVar

from torch import Tensor

from dream_cad.exceptions import InvalidConfigError

_Config = TypeVar("_Config")

# Fields of the published files that carry no choice for us: how upstream ran them.
_IGNORED = frozenset({"use_fp16", "use_checkpoint", "share_mod", "num_head_channels"})


@dataclass(frozen=True)
class StructureFlowConfig:
    """Sizes of the stage-1 flow; the defaults are image-large."""

    resolution: int = 16
    in_channels: int = 8
    out_channels: int = 8
    model_channels: int = 1024
    cond_channels: int = 1024
    num_blocks: int = 24
    num_heads: int = 16
    mlp_ratio: float = 4
    patch_size: int = 1
    pe_mode: str = "ape"
    qk_rms_norm: bool = True
    qk_rms_norm_cross: bool = False


@dataclass(frozen=True)
class LatentFlowConfig:
    """Sizes of the stage-2 flow; the defaults are image-large."""

    resolution: int = 64
    in_channels: int = 8
    out_channels: int = 8
    model_channels: int = 1024
    cond_channels: int = 1024
    num_blocks: int = 24
    num_heads: int = 16
    mlp_ratio: float = 4
    patch_size: int = 2
    num_io_res_blocks: int = 2
    io_block_channels: tuple[int, ...] = (128,)
    pe_mode: str = "ape"
    qk_rms_norm: bool = True
    qk_rms_norm_cross: bool = False


@dataclass(frozen=True)
class StructureDecoderConfig:
    """Sizes of the occupancy decoder."""

    out_channels: int = 1
    latent_channels: int = 8
    num_res_blocks: int = 2
    num_res_blocks_middle: int = 2
    channels: tuple[int, ...] = (512, 128, 32)


@dataclass(frozen=True)
class LatentDecoderConfig:
    """Sizes of the torso that the three decoders of the structured latent share."""

    resolution: int = 64
    model_channels: int = 768
    latent_channels: int = 8
    num_blocks: int = 12
    num_heads: int = 12
    mlp_ratio: float = 4
    attn_mode: str = "swin"
    window_size: int = 8


@dataclass(frozen=True)
class LatentNormalization:
    """Mean and standard deviation of the latent's channels; the defaults are the published ones."""

    mean: tuple[float, ...] = (
        *(-2.1687545776367188, -0.004347046371549368, -0.13352349400520325, -0.08418072760105133),
        *(-0.5271206498146057, 0.7238689064979553, -1.1414450407028198, 1.2039363384246826),
    )
    std: tuple[float, ...] = (
        *(2.377650737762451, 2.386378288269043, 2.124418020248413, 2.1748552322387695),
        *(2.663944721221924, 2.371192216873169, 2.6217446327209473, 2.684523105621338),
    )

    def restore(self, feats: Tensor) -> Tensor:
        """Scale sampled features (N, 8) back to those that the decoders expect."""
        return feats * feats.new_tensor(self.std) + feats.new_tensor(self.mean)


def parse_args(kind: type[_Config], data: Mapping[str, Any]) -> _Config:
    """Build a config from the ``args`` of a published JSON file.

    Raises:
        InvalidConfigError: for a field that the architecture does not have, or another position
            embedding or attention than the published models use.
    """
    known = {field.name for field in fields(kind)}  # type: ignore[arg-type]
    values = {key: value for key, value in data.items() if key not in _IGNORED}
    unknown = sorted(set(values) - known)
    if unknown:
        raise InvalidConfigError(f"{kind.__name__} has no field {', '.join(unknown)}")
    for name, only in (("pe_mode", "ape"), ("attn_mode", "swin")):
        if values.get(name, only) != only:
            raise InvalidConfigError(f"{name} is {values[name]!r}; expected {only!r}")
    lists = {key: tuple(v) if isinstance(v, list) else v for key, v in values.items()}
    return kind(**lists)
