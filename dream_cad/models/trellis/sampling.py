"""From a condition to a structured latent: both stages, told step by step."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from dream_cad.exceptions import GenerationError
from dream_cad.models.base import ProgressCallback
from dream_cad.models.trellis.latent_flow import StructuredLatentFlow
from dream_cad.models.trellis.network import Decoders, Flows, Residence
from dream_cad.models.trellis.sampler import MultiImageMode, SamplerConfig, SamplerStep, sample
from dream_cad.models.trellis.structure import SparseStructureFlow, occupied_coords
from dream_cad.nn.sparse.resample import Halving
from dream_cad.nn.sparse.tensor import SparseTensor, VoxelSet

MAX_VOXELS = 100_000
"""Training had at most 32,768; a structure that fills the grid is no object, and costs memory."""


@dataclass(frozen=True)
class Condition:
    """What the flows are guided by.

    Attributes:
        tokens: (K, M, C) of K pictures of one object, or (1, M, C).
        negative: (1, N, C), of any length N.
        mode: how several pictures are combined; None for one.
    """

    tokens: Tensor
    negative: Tensor
    mode: MultiImageMode | None = None


def structure_noise(flow: SparseStructureFlow, generator: torch.Generator) -> Tensor:
    """Draw the start of stage 1, (1, C, R, R, R), on the CPU: the same for every device."""
    side = flow.config.resolution
    return torch.randn((1, flow.config.in_channels, side, side, side), generator=generator)


def latent_noise(
    flow: StructuredLatentFlow, voxels: VoxelSet, generator: torch.Generator
) -> Tensor:
    """Draw the start of stage 2, (N, C), on the CPU, after that of stage 1."""
    return torch.randn((len(voxels), flow.config.in_channels), generator=generator)


@torch.no_grad()
def sample_structure(
    flows: Flows,
    decoders: Decoders,
    condition: Condition,
    noise: Tensor,
    config: SamplerConfig,
    home: Residence,
    progress: ProgressCallback,
) -> VoxelSet:
    """Sample which voxels are occupied.

    Raises:
        GenerationError: the latent became NaN or infinite (names the step), no voxel is occupied,
            or nearly all are.
    """
    with home.use(flows.structure):
        latent = sample(
            flows.structure,
            home.bring(noise),
            home.bring(condition.tokens),
            home.bring(condition.negative),
            config,
            mode=condition.mode,
            on_step=_watch("structure", config.steps, progress),
        )
    with home.use(decoders.structure):
        coords = occupied_coords(decoders.structure(latent))
    return checked_voxels(coords)


def checked_voxels(coords: Tensor) -> VoxelSet:
    """Refuse a structure (N, 4) that is empty or fills the grid.

    Raises:
        GenerationError: says how many voxels there are.
    """
    if not 0 < len(coords) <= MAX_VOXELS:
        raise GenerationError(
            f"The structure has {len(coords)} occupied voxels; 1 to {MAX_VOXELS} were expected.",
            hint="Another seed or picture may do better; 'bf16' or 'fp32' where fp16 overflowed.",
        )
    return VoxelSet(coords)


@torch.no_grad()
def sample_latent(
    flows: Flows,
    decoders: Decoders,
    condition: Condition,
    voxels: VoxelSet,
    noise: Tensor,
    config: SamplerConfig,
    home: Residence,
    progress: ProgressCallback,
) -> SparseTensor:
    """Sample the features of occupied voxels, (N, 8) as the decoders expect them.

    Raises:
        GenerationError: they became NaN or infinite; names the step.
    """
    flow = flows.latent
    halving = Halving.of(voxels)

    def velocity(x: Tensor, t: Tensor, cond: Tensor) -> Tensor:
        out: SparseTensor = flow(SparseTensor(voxels, x), t, cond, halving)
        return out.feats

    with home.use(flow):
        feats = sample(
            velocity,
            home.bring(noise),
            home.bring(condition.tokens),
            home.bring(condition.negative),
            config,
            mode=condition.mode,
            on_step=_watch("latent", config.steps, progress),
        )
    return SparseTensor(voxels, decoders.normalization.restore(feats))


def _watch(
    stage: str, steps: int, progress: ProgressCallback
) -> Callable[[int, SamplerStep], None]:
    def on_step(index: int, step: SamplerStep) -> None:
        if not bool(torch.isfinite(step.x_t).all()):
            raise GenerationError(
                f"The {stage} latent became NaN or infinite in step {index + 1} of {steps}.",
                hint="Precision 'bf16' or 'fp32' helps where half precision overflowed.",
            )
        progress((index + 1) / steps, f"{stage} {index + 1}/{steps}")

    return on_step
