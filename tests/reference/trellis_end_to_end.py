"""TRELLIS from condition to mesh and splats at tiny size, through the model's own stages."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch

from dream_cad.models.base import ignore_progress
from dream_cad.models.trellis.config import LatentNormalization
from dream_cad.models.trellis.decoders import GaussianDecoder
from dream_cad.models.trellis.frame import to_gltf
from dream_cad.models.trellis.image_encoder import ImageEncoder, ImageEncoderConfig
from dream_cad.models.trellis.mesh_extraction import extract_mesh
from dream_cad.models.trellis.network import Decoders, Flows, Residence
from dream_cad.models.trellis.pipeline_file import BUILDERS
from dream_cad.models.trellis.representations import offset_perturbation
from dream_cad.models.trellis.sampler import SamplerConfig
from dream_cad.models.trellis.sampling import Condition, sample_latent, sample_structure
from tests.reference import formula_weights
from tests.reference.cases import Case

Outputs = dict[str, Any]

_FIELD = {"representation_config": {"rank": 2, "dim": 4}}


def build(name: str, args: dict[str, Any]) -> Any:
    module = BUILDERS[name](args)
    formula_weights.fill(module, "")
    return module.eval()


def condition_of(case: Case) -> Condition:
    if case.config["cond"] == "tokens":
        return Condition(case.tensor("cond"), case.tensor("neg_cond"))
    sizes = case.config["dino"]
    encoder = ImageEncoder(
        ImageEncoderConfig(
            img_size=sizes["img_size"],
            embed_dim=sizes["dim"],
            depth=sizes["depth"],
            num_heads=sizes["heads"],
        )
    )
    formula_weights.fill(encoder, "")
    tokens = encoder.eval()(case.tensor("image"))
    return Condition(tokens, torch.zeros_like(tokens))


def decoders_of(config: dict[str, Any]) -> Decoders:
    gaussian: GaussianDecoder = build(
        "SLatGaussianDecoder", config["dec"] | {"representation_config": config["gs_rep"]}
    )
    settings = gaussian.settings
    gaussian.offset_perturbation.copy_(
        offset_perturbation(settings.num_gaussians, settings.voxel_size)
    )
    return Decoders(
        build("SparseStructureDecoder", config["ss_dec"]),
        build("SLatMeshDecoder", config["mesh_dec"]),
        gaussian,
        build("SLatRadianceFieldDecoder", config["dec"] | _FIELD),
        LatentNormalization(),
    )


def end_to_end(case: Case) -> Outputs:
    config, home = case.config, Residence("cpu")
    sampler = SamplerConfig(
        **config["params"] | {"cfg_interval": tuple(config["params"]["cfg_interval"])}
    )
    flows = Flows(
        build("SparseStructureFlowModel", config["ss_flow"]),
        build("SLatFlowModel", config["slat_flow"]),
        sampler,
        sampler,
    )
    decoders, condition = decoders_of(config), condition_of(case)
    logits: list[torch.Tensor] = []
    decoders.structure.register_forward_hook(lambda *args: logits.append(args[2]))
    noises = case.tensor("ss_noise"), case.tensor("slat_noise")
    voxels = sample_structure(flows, decoders, condition, noises[0], sampler, home, ignore_progress)
    slat = sample_latent(
        flows, decoders, condition, voxels, noises[1], sampler, home, ignore_progress
    )
    cubes = decoders.mesh(slat)
    side = 4 * decoders.mesh.config.resolution
    found = extract_mesh(cubes.voxels.coords[:, 1:].numpy(), cubes.feats.numpy(), side)
    corners = found.vertices[found.faces].astype(np.float64)
    normals = np.cross(corners[:, 1] - corners[:, 0], corners[:, 2] - corners[:, 0])
    (splats,) = decoders.gaussian.decode(slat)
    return {
        "cond": condition.tokens,
        "ss_logits": logits[0],
        "coords": voxels.coords,
        "slat": slat.feats,
        "vertices": found.vertices,
        "faces": found.faces,
        "vertices_yup_first64": to_gltf(found.vertices)[:64],
        "n_vertices": np.array(len(found.vertices)),
        "n_faces": np.array(len(found.faces)),
        "bbox": np.stack((found.vertices.min(axis=0), found.vertices.max(axis=0))),
        "area": np.array(np.linalg.norm(normals, axis=1).sum() / 2),
        "volume": np.array((np.cross(corners[:, 0], corners[:, 1]) * corners[:, 2]).sum() / 6),
        "gs_xyz_first64": splats.positions[:64],
        "gs_opacity_mean": splats.opacities.mean(),
        "gs_count": np.array(len(splats.xyz)),
    }
