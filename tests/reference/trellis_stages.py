"""Map each stage of the TRELLIS cases to our modules, built from the case's config."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from dream_cad.models.trellis.blocks import FlowBlock, position_embedding, time_frequencies
from dream_cad.models.trellis.config import (
    LatentDecoderConfig,
    LatentFlowConfig,
    LatentNormalization,
    StructureDecoderConfig,
    StructureFlowConfig,
    parse_args,
)
from dream_cad.models.trellis.decoders import (
    GaussianDecoder,
    LatentEncoder,
    LatentTorso,
    MeshDecoder,
    RadianceFieldDecoder,
    SubdivideBlock,
    WindowBlock,
)
from dream_cad.models.trellis.image_encoder import (
    ImageEncoder,
    ImageEncoderBlock,
    ImageEncoderConfig,
)
from dream_cad.models.trellis.latent_flow import SparseResBlock, StructuredLatentFlow
from dream_cad.models.trellis.mesh_extraction import ExtractedMesh, extract_mesh
from dream_cad.models.trellis.representations import SH_0, GaussianSettings, offset_perturbation
from dream_cad.models.trellis.sampler import SamplerConfig, SamplerStep, sample
from dream_cad.models.trellis.structure import (
    ResBlock,
    SparseStructureDecoder,
    SparseStructureEncoder,
    SparseStructureFlow,
    UpsampleBlock,
    occupied_coords,
)
from dream_cad.nn.sparse.conv import SparseConv3d, SparseGroupNorm
from dream_cad.nn.sparse.groups import grouped_attention
from dream_cad.nn.sparse.resample import Halving, subdivide
from dream_cad.nn.sparse.tensor import SparseTensor, VoxelSet
from tests.reference import formula_weights, trellis_mesh_stages
from tests.reference.cases import Case
from tests.reference.trellis_end_to_end import end_to_end
from tests.reference.trellis_inputs import preprocess, text_encoder

Outputs = dict[str, Any]


def filled(module: nn.Module, prefix: str = "") -> Any:
    formula_weights.fill(module, prefix)
    return module.eval()


def sparse_input(case: Case, name: str = "feats") -> SparseTensor:
    return SparseTensor(VoxelSet(case.tensor("coords").long()), case.tensor(name))


def image_encoder(case: Case) -> Outputs:
    config = case.config
    if "tokens" in config:
        block = filled(ImageEncoderBlock(config["dim"], config["heads"]), case.prefix)
        return {"y": block(case.tensor("x"))}
    sizes = ImageEncoderConfig(
        img_size=config["img_size"],
        embed_dim=config["dim"],
        depth=config["depth"],
        num_heads=config["heads"],
    )
    module = filled(ImageEncoder(sizes), case.prefix)
    image = case.tensor("image")
    return {"cond": module(image), "x_prenorm": module.tokens(image)}


def embeddings(case: Case) -> Outputs:
    coords = case.tensor("coords")
    outputs: Outputs = {"t_freq": time_frequencies(case.tensor("t"))}
    for name in case.expected():
        if name.startswith("ape_"):
            outputs[name] = position_embedding(coords, int(name[4:]))
        elif name.startswith("pos_emb_res"):
            side, channels = (int(part) for part in name[len("pos_emb_res") :].split("_ch"))
            axis = torch.arange(side)
            outputs[name] = position_embedding(torch.cartesian_prod(axis, axis, axis), channels)
    return outputs


def structure_flow(case: Case) -> Outputs:
    if case.has("coords"):
        return embeddings(case)
    config = case.config
    if "args" in config:
        flow = filled(SparseStructureFlow(parse_args(StructureFlowConfig, config["args"])))
        return {"v": flow(case.tensor("x"), case.tensor("t"), case.tensor("cond"))}
    block = FlowBlock(
        config["ch"], config["ctx"], config["heads"], 4, qk_norm=True, qk_norm_cross=config["cross"]
    )
    inputs = (case.tensor(name) for name in ("x", "t_emb", "context"))
    return {"y": filled(block, case.prefix)(*inputs)}


def schedule(case: Case) -> Outputs:
    outputs: Outputs = {}
    for steps, rescale in case.config["pairs"]:
        times = SamplerConfig(steps=steps, rescale_t=rescale).times()
        outputs[f"t_{steps}_{rescale}"] = np.array(times)
        for low, high in case.config["intervals"]:
            config = SamplerConfig(steps, 1.0, (low, high), rescale)
            flags = [config.is_guided(t) for t, _ in times]
            outputs[f"guided_{steps}_{rescale}_{low}_{high}"] = np.array(flags)
    return outputs


def sampler_config(data: Mapping[str, Any]) -> SamplerConfig:
    return SamplerConfig(**data | {"cfg_interval": tuple(data["cfg_interval"])})


def latent_velocity(flow: StructuredLatentFlow, voxels: VoxelSet) -> Callable[..., Tensor]:
    halving = Halving.of(voxels)
    return lambda x, t, cond: flow(SparseTensor(voxels, x), t, cond, halving).feats


def sampler(case: Case) -> Outputs:
    config = case.config
    if "pairs" in config:
        return schedule(case)
    noise, cond = case.tensor("noise"), case.tensor("cond")
    mode = config.get("mode")
    if case.has("coords"):
        flow = filled(StructuredLatentFlow(parse_args(LatentFlowConfig, config["args"])))
        voxels = VoxelSet(case.tensor("coords").long())
        velocity = latent_velocity(flow, voxels)
    else:
        velocity = filled(SparseStructureFlow(parse_args(StructureFlowConfig, config["args"])))
        if mode is None:
            cond = cond.expand(len(noise), -1, -1)
    zeros = torch.zeros_like(cond[:1] if mode else cond)
    negative = zeros if "zeros" in case.data["inputs"]["neg_cond"] else case.tensor("neg_cond")
    steps: list[SamplerStep] = []
    result = sample(
        velocity,
        noise,
        cond,
        negative,
        sampler_config(config["params"]),
        mode=mode,
        on_step=lambda _, step: steps.append(step),
    )
    return {
        "x_t": torch.stack([step.x_t for step in steps]),
        "x_0": torch.stack([step.x_0 for step in steps]),
        "samples": result,
    } | ({"slat": LatentNormalization().restore(result)} if case.has("coords") else {})


def structure_encoder(case: Case) -> Outputs:
    args = dict(case.config["args"])
    width = args.pop("in_channels")
    sizes = parse_args(StructureDecoderConfig, args)
    uniform, threshold = case.data["inputs"]["occupancy"].strip("(").split(")>")
    occupancy = torch.from_numpy(case.array(uniform) > float(threshold)).float()
    mean, logvar = filled(SparseStructureEncoder(sizes, width))(occupancy)
    return {"mean": mean, "logvar": logvar}


def structure_decoder(case: Case) -> Outputs:
    if "mean" in case.expected():
        return structure_encoder(case)
    if "args" in (config := case.config):
        decoder = filled(SparseStructureDecoder(parse_args(StructureDecoderConfig, config["args"])))
        logits = decoder(case.tensor("z"))
        return {"logits": logits, "coords": occupied_coords(logits)}
    first, second = case.prefix.split(" / ")
    x = case.tensor("x")
    h = filled(ResBlock(config["ch"]), first)(x)
    return {
        "resblock_out_ch0_16": h[:, :16],
        "up": filled(UpsampleBlock(config["ch"], config["out"]), second)(h)[:, :32],
    }


def sparse_ops(case: Case) -> Outputs:
    return SPARSE[next(name for name in SPARSE if name in case.expected())](case)


def downsample(case: Case) -> Outputs:
    x = sparse_input(case)
    halving = Halving.of(x.voxels)
    down = halving.down(x)
    up = halving.up(down)
    return {
        "down_coords": down.voxels.coords,
        "down_feats": down.feats,
        "up_coords": up.voxels.coords,
        "up_feats": up.feats,
    }


def subdivision(case: Case) -> Outputs:
    x = subdivide(sparse_input(case))
    return {"coords_out": x.voxels.coords, "feats_out": x.feats}


def convolutions(case: Case) -> Outputs:
    x, sizes = sparse_input(case), (case.config["cin"], case.config["cout"])
    third, first = case.prefix.split(" / ")
    return {
        "y_k3": filled(SparseConv3d(*sizes), third)(x).feats,
        "y_k1": filled(SparseConv3d(*sizes, 1), first)(x).feats,
    }


def relative_labels(labels: Tensor, wanted: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
    """Our labels renamed to the case's, so that only the partition is compared."""
    pairs = np.unique(np.stack((labels.numpy(), wanted)), axis=1)
    same = len(np.unique(pairs[0])) == len(np.unique(pairs[1])) == pairs.shape[1]
    return wanted if same else np.full_like(wanted, -1)


def window_sizes(labels: Tensor, wanted: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
    """Sizes of our windows in the order of the case's labels."""
    _, inverse, counts = np.unique(labels.numpy(), return_inverse=True, return_counts=True)
    first = np.unique(wanted, return_index=True)[1]
    return counts[inverse[first]]


def windows(case: Case) -> Outputs:
    voxels = VoxelSet(case.tensor("coords").long())
    q, k, v = case.tensor("qkv").unbind(1)
    outputs: Outputs = {}
    for shift in (0, case.config["ws"] // 2):
        labels = voxels.window_labels(case.config["ws"], shift)
        wanted = case.expected()[f"window_label_shift{shift}"]
        buckets = voxels.buckets(case.config["ws"], shift)
        outputs[f"window_label_shift{shift}"] = relative_labels(labels, wanted)
        outputs[f"seq_lens_shift{shift}"] = window_sizes(labels, wanted)
        outputs[f"out_shift{shift}"] = grouped_attention(q, k, v, buckets)
    return outputs


def group_norm(case: Case) -> Outputs:
    module = filled(SparseGroupNorm(32, case.config["C"]), case.prefix)
    return {"y": module(sparse_input(case)).feats}


SPARSE: dict[str, Callable[[Case], Outputs]] = {
    "down_coords": downsample,
    "coords_out": subdivision,
    "y_k3": convolutions,
    "out_shift0": windows,
    "y": group_norm,
}


def latent_flow(case: Case) -> Outputs:
    config, x = case.config, sparse_input(case)
    if "args" in config:
        flow = filled(StructuredLatentFlow(parse_args(LatentFlowConfig, config["args"])))
        return {"v": flow(x, case.tensor("t"), case.tensor("cond")).feats}
    if case.has("emb"):
        return residual_blocks(case, x)
    block = FlowBlock(config["ch"], config["ctx"], config["heads"], 4, qk_norm=True)
    module = filled(block, case.prefix)
    return {"y": module.sparse(x.feats, x.voxels, case.tensor("t_emb"), case.tensor("context"))}


def residual_blocks(case: Case, x: SparseTensor) -> Outputs:
    width, model, emb = case.config["ch"], case.config["mc"], case.tensor("emb")
    sizes = ((width, width, model), (width, model, model), (2 * model, width, model))
    prefixes = case.prefix.split(" / ")
    plain, down, up = (
        filled(SparseResBlock(*size), prefix) for size, prefix in zip(sizes, prefixes, strict=True)
    )
    halving = Halving.of(x.voxels)
    first = plain(x, emb)
    second = down(halving.down(first), emb)
    joined = second.with_feats(torch.cat((second.feats, second.feats), dim=1))
    return {
        "plain": first.feats,
        "down": second.feats,
        "down_coords": second.voxels.coords,
        "up_of_cat_down_down": up(halving.up(joined), emb).feats,
    }


def latent_decoder(case: Case) -> Outputs:
    config, x = case.config, sparse_input(case)
    if "args" not in config:
        block = WindowBlock(config["ch"], config["heads"], 4, 8, 4)
        return {"y": filled(block, case.prefix)(x).feats}
    args = dict(config["args"])
    width = args.pop("in_channels")
    sizes = parse_args(LatentDecoderConfig, args)
    if "mean" not in case.expected():
        return {"h": filled(LatentTorso(sizes, width)).transform(x).feats}
    mean, logvar = filled(LatentEncoder(sizes, width))(x).feats.chunk(2, dim=-1)
    return {"mean": mean, "logvar": logvar}


def gaussian(case: Case) -> Outputs:
    if case.has("camera"):
        return trellis_mesh_stages.gaussian_render(case)
    sizes = parse_args(LatentDecoderConfig, case.config["args"])
    settings = GaussianSettings.from_mapping(case.config["rep"])
    computed = offset_perturbation(settings.num_gaussians, settings.voxel_size)
    decoder: GaussianDecoder = filled(GaussianDecoder(sizes, settings))
    if case.config.get("keep_buffer"):
        decoder.offset_perturbation.copy_(computed)
    outputs: Outputs = {"offset_perturbation_computed": computed}
    upper = torch.triu_indices(3, 3)
    for index, splats in enumerate(decoder.decode(sparse_input(case, "slat"))):
        outputs["table"] = splats.ply_table()
        outputs["sh0_rgb"] = 0.5 + SH_0 * splats.features_dc[:, 0]  # stored before the clamp
        values = {
            "xyz": splats.xyz,
            "features_dc": splats.features_dc,
            "scaling": splats.raw_scaling,
            "rotation": splats.raw_rotation,
            "opacity": splats.raw_opacity,
            "act_xyz": splats.positions,
            "act_scaling": splats.scales,
            "act_rotation": splats.rotations,
            "act_opacity": splats.opacities,
            "act_covariance6": splats.covariances()[:, upper[0], upper[1]],
        }
        outputs |= {f"b{index}_{name}": value for name, value in values.items()}
    return outputs


def radiance_field(case: Case) -> Outputs:
    if case.has("jitter"):
        return trellis_mesh_stages.field_render(case)
    sizes = parse_args(LatentDecoderConfig, case.config["args"])
    decoder = filled(RadianceFieldDecoder(sizes, **case.config["rep"]))
    names = ("trivec", "density", "features_dc", "position", "depth")
    return {
        f"b{index}_{name}": getattr(field, name)
        for index, field in enumerate(decoder.decode(sparse_input(case, "slat")))
        for name in names
    }


def mesh_facts(found: ExtractedMesh) -> Outputs:
    corners = found.vertices[found.faces].astype(np.float64)
    normals = np.cross(corners[:, 1] - corners[:, 0], corners[:, 2] - corners[:, 0])
    lengths = np.linalg.norm(normals, axis=1, keepdims=True)
    return {
        "vertices": found.vertices,
        "faces": found.faces,
        "vertex_attrs": found.attributes,
        "vertex_attrs_every5": found.attributes[::5],
        "face_normal": normals / lengths.clip(1e-20),
        "n_vertices": np.array(len(found.vertices)),
        "n_faces": np.array(len(found.faces)),
        "bbox": np.stack((found.vertices.min(axis=0), found.vertices.max(axis=0))),
        "area": np.array(lengths.sum() / 2),
        "volume": np.array((np.cross(corners[:, 0], corners[:, 1]) * corners[:, 2]).sum() / 6),
    }


def mesh(case: Case) -> Outputs:
    config = case.config
    if "R" in config:
        coords = case.input("coords")[:, -3:]
        return mesh_facts(extract_mesh(coords, case.input("feats"), config["R"]))
    if "args" in config:
        sizes = parse_args(LatentDecoderConfig, config["args"])
        x = filled(MeshDecoder(sizes))(sparse_input(case, "slat"))
        coords, feats = x.voxels.coords, x.feats
        found = extract_mesh(coords[:, 1:].numpy(), feats.numpy(), 4 * sizes.resolution)
        return mesh_facts(found) | {"head_coords": coords, "head_feats_every7": feats[::7]}
    block = filled(SubdivideBlock(config["ch"], config["ch"] // 4), case.prefix)
    x = block(sparse_input(case))
    return {"coords_out": x.voxels.coords, "feats_out": x.feats}


STAGES: dict[str, Callable[[Case], Outputs]] = {
    "preprocess": preprocess,
    "text_encoder": text_encoder,
    "e2e": end_to_end,
    "image_encoder": image_encoder,
    "ss_flow": structure_flow,
    "sampler": sampler,
    "ss_decoder": structure_decoder,
    "sparse_ops": sparse_ops,
    "slat_flow": latent_flow,
    "slat_decoder": latent_decoder,
    "gaussian": gaussian,
    "radiance_field": radiance_field,
    "mesh": mesh,
} | trellis_mesh_stages.STAGES
