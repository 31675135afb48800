"""TRELLIS from a picture, a text, a shape or a stored latent to its representations."""

from __future__ import annotations

import secrets
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch

from dream_cad.mesh.data import MeshData
from dream_cad.models.base import ProgressCallback
from dream_cad.models.profile import StageClock, part_of
from dream_cad.models.trellis.conditioning import Guide, encode
from dream_cad.models.trellis.decoding import decode, representation_files
from dream_cad.models.trellis.finish import finish
from dream_cad.models.trellis.network import Residence, TrellisNetworks
from dream_cad.models.trellis.options import TrellisOptions
from dream_cad.models.trellis.sampler import SamplerConfig
from dream_cad.models.trellis.sampling import (
    checked_voxels,
    latent_noise,
    sample_latent,
    sample_structure,
    structure_noise,
)
from dream_cad.models.trellis.source import Source, StoredLatent, VariantOf
from dream_cad.models.trellis.voxelize import voxelize
from dream_cad.nn.sparse.tensor import SparseTensor, VoxelSet


@dataclass(frozen=True)
class TrellisPipeline:
    """The networks, and where they run."""

    networks: TrellisNetworks
    home: Residence

    @property
    def resolution(self) -> int:
        """Voxels along an axis of the structured latent."""
        return self.networks.decoders.mesh.config.resolution

    @property
    def channels(self) -> int:
        """Channels of the structured latent."""
        return self.networks.decoders.mesh.config.latent_channels


@dataclass(frozen=True)
class GeneratedAssets:
    """What a generation made.

    Attributes:
        mesh: glTF frame, centred unit cube.
        files: the other representations, by file name.
        facts: for the receipt.
    """

    mesh: MeshData
    files: Mapping[str, bytes]
    facts: Mapping[str, Any]


@dataclass(frozen=True)
class SampledLatent:
    """A structured latent and how it came about."""

    slat: SparseTensor
    facts: dict[str, Any] = field(default_factory=dict)


def run(
    pipeline: TrellisPipeline,
    source: Source,
    options: TrellisOptions,
    clock: StageClock,
    progress: ProgressCallback,
) -> GeneratedAssets:
    """Run every stage that a source needs; see the stages for their errors."""
    sampled = sample(pipeline, source, options, clock, part_of(progress, 0.0, 0.6))
    progress(0.6, "decode")
    with clock.stage("decode"):
        decoded = decode(pipeline.networks.decoders, sampled.slat, options, pipeline.home)
    with clock.stage("files"):
        files = representation_files(decoded, options, part_of(progress, 0.65, 0.75))
    with clock.stage("finish"):
        mesh = finish(decoded, options, part_of(progress, 0.75, 1.0))
    facts = sampled.facts | {"voxels": len(sampled.slat.voxels), "files": sorted(files)}
    return GeneratedAssets(mesh, files, facts)


def sample(
    pipeline: TrellisPipeline,
    source: Source,
    options: TrellisOptions,
    clock: StageClock,
    progress: ProgressCallback,
) -> SampledLatent:
    """Return the structured latent of a source; one that is stored already is only brought in."""
    if isinstance(source, StoredLatent):
        coords = torch.from_numpy(source.coords).to(pipeline.home.device)
        feats = torch.from_numpy(source.feats).to(pipeline.home.device)
        return SampledLatent(SparseTensor(checked_voxels(coords), feats))
    guided_by = source.guide if isinstance(source, VariantOf) else source
    progress(0.0, "encode")
    with clock.stage("encode"):
        guide = encode(pipeline.networks, guided_by, options, pipeline.home)
    stages = resolve_samplers(guide, options)
    seed = options.seed if options.seed is not None else secrets.randbits(32)
    generator = torch.Generator().manual_seed(seed)
    with clock.stage("structure"):
        voxels = _structure(
            pipeline, source, guide, stages[0], generator, part_of(progress, 0.1, 0.5)
        )
    with clock.stage("latent"):
        slat = sample_latent(
            guide.flows,
            pipeline.networks.decoders,
            guide.condition,
            voxels,
            latent_noise(guide.flows.latent, voxels, generator),
            stages[1],
            pipeline.home,
            part_of(progress, 0.5, 1.0),
        )
    return SampledLatent(slat, guide.facts | {"seed": seed, "options": _used(stages)})


def _structure(
    pipeline: TrellisPipeline,
    source: Source,
    guide: Guide,
    config: SamplerConfig,
    generator: torch.Generator,
    progress: ProgressCallback,
) -> VoxelSet:
    """Sample the occupied voxels, or take those of a given shape."""
    if isinstance(source, VariantOf):
        progress(0.0, "voxelize")
        places = voxelize(source.vertices, source.faces, pipeline.resolution)
        coords = np.concatenate((np.zeros_like(places[:, :1]), places), axis=1)
        return checked_voxels(pipeline.home.bring(torch.from_numpy(coords)))
    return sample_structure(
        guide.flows,
        pipeline.networks.decoders,
        guide.condition,
        structure_noise(guide.flows.structure, generator),
        config,
        pipeline.home,
        progress,
    )


def resolve_samplers(guide: Guide, options: TrellisOptions) -> tuple[SamplerConfig, SamplerConfig]:
    """Return the samplers of both stages: the options over the checkpoint's defaults."""
    own = (
        (options.structure_steps, options.structure_guidance, options.structure_interval),
        (options.latent_steps, options.latent_guidance, options.latent_interval),
    )
    defaults = (guide.flows.structure_sampler, guide.flows.latent_sampler)
    both: tuple[Any, Any] = (options.num_inference_steps, options.guidance_scale)
    resolved = [
        SamplerConfig(
            steps=_first(steps, both[0], default.steps),
            cfg_strength=_first(strength, both[1], default.cfg_strength),
            cfg_interval=_first(interval, default.cfg_interval),
            rescale_t=_first(options.rescale_t, default.rescale_t),
        )
        for (steps, strength, interval), default in zip(own, defaults, strict=True)
    ]
    return resolved[0], resolved[1]


def _first(*values: Any) -> Any:
    return next(value for value in values if value is not None)


def _used(stages: tuple[SamplerConfig, SamplerConfig]) -> dict[str, Any]:
    """The samplers' settings under the options' names."""
    return {
        f"{name}_{what}": value
        for name, config in zip(("structure", "latent"), stages, strict=True)
        for what, value in (
            ("steps", config.steps),
            ("guidance", config.cfg_strength),
            ("interval", list(config.cfg_interval)),
        )
    } | {"rescale_t": stages[0].rescale_t}
