"""What a TRELLIS checkpoint holds: conditioned flows, decoders, and where they live."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from dream_cad.models.trellis.config import LatentNormalization
from dream_cad.models.trellis.decoders import GaussianDecoder, MeshDecoder, RadianceFieldDecoder
from dream_cad.models.trellis.image_encoder import ImageEncoder
from dream_cad.models.trellis.latent_flow import StructuredLatentFlow
from dream_cad.models.trellis.sampler import SamplerConfig
from dream_cad.models.trellis.structure import SparseStructureDecoder, SparseStructureFlow
from dream_cad.nn.clip_text import TextEncoder
from dream_cad.nn.clip_tokenizer import ClipTokenizer
from dream_cad.nn.sparse.conv import SparseKernel
from dream_cad.utils import clear_gpu_cache

TORSO = ("blocks", "middle_block", "input_blocks", "out_blocks", "upsample")
"""Parts whose matrices and kernels run in the chosen precision; all else stays float32."""


@dataclass(frozen=True)
class Flows:
    """Both flows of one kind of condition, and how they are sampled by default."""

    structure: SparseStructureFlow
    latent: StructuredLatentFlow
    structure_sampler: SamplerConfig
    latent_sampler: SamplerConfig


@dataclass(frozen=True)
class Decoders:
    """What the image and text variants share.

    Attributes:
        structure: latent to occupancy.
        mesh: structured latent to FlexiCubes features.
        gaussian: structured latent to splats.
        field: structured latent to a radiance field.
        normalization: of the structured latent's channels.
    """

    structure: SparseStructureDecoder
    mesh: MeshDecoder
    gaussian: GaussianDecoder
    field: RadianceFieldDecoder
    normalization: LatentNormalization


@dataclass(frozen=True)
class ImageBranch:
    """Pictures as the condition."""

    encoder: ImageEncoder
    flows: Flows


@dataclass(frozen=True)
class TextBranch:
    """Text as the condition."""

    encoder: TextEncoder
    tokenizer: ClipTokenizer
    flows: Flows


@dataclass(frozen=True)
class TrellisNetworks:
    """Everything loaded; at least one branch is there."""

    decoders: Decoders
    image: ImageBranch | None = None
    text: TextBranch | None = None


class Residence:
    """Where networks live, and where they run.

    Args:
        device: where they run.
        offload: keep them in main memory and bring each to the device for its stage only.
    """

    def __init__(self, device: torch.device | str, *, offload: bool = False) -> None:
        self.device = torch.device(device)
        self.offload = offload and self.device.type != "cpu"

    @property
    def home(self) -> torch.device:
        """Where networks lie between their stages."""
        return torch.device("cpu") if self.offload else self.device

    @contextmanager
    def use(self, network: nn.Module) -> Iterator[None]:
        """Have a network on the device inside the block; what it left in the cache is freed."""
        if self.offload:
            network.to(self.device)
        try:
            yield
        finally:
            if self.offload:
                network.to(self.home)
            if self.device.type == "cuda":
                clear_gpu_cache()

    def bring(self, x: Tensor) -> Tensor:
        """Return a tensor on the device."""
        return x.to(self.device)


def torso_keys(network: nn.Module) -> set[str]:
    """Return the state-dict keys that the published files hold in half precision."""
    kernels = (nn.Linear, nn.Conv3d, SparseKernel)
    return {
        f"{name}.{key}"
        for name, module in network.named_modules()
        if name.partition(".")[0] in TORSO and isinstance(module, kernels)
        for key, _ in module.named_parameters(recurse=False)
    }
