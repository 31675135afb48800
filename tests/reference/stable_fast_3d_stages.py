"""The stages of the Stable Fast 3D cases, built from each case's own configuration."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import nn

from dream_cad.models.stable_fast_3d.backbone import (
    Attention,
    Backbone,
    BasicBlock,
    FuseBlock,
    TwoStreamBlock,
)
from dream_cad.models.stable_fast_3d.camera import (
    CameraEmbedder,
    camera_pose,
    camera_vector,
    intrinsics,
    normalised_intrinsics,
)
from dream_cad.models.stable_fast_3d.config import EstimatorConfig, PostProcessorConfig
from dream_cad.models.stable_fast_3d.config_file import (
    parse_backbone,
    parse_decoder,
    parse_estimators,
    parse_section,
)
from dream_cad.models.stable_fast_3d.decoder import MaterialMLP, PostProcessor
from dream_cad.models.stable_fast_3d.estimators import (
    GlobalEstimator,
    ImageEstimator,
    beta_mode,
)
from dream_cad.models.stable_fast_3d.image_tokenizer import (
    ImageTokenizer,
    ModulatedLayer,
    Modulation,
)
from dream_cad.models.stable_fast_3d.network import TriplaneTokenizer
from dream_cad.models.stable_fast_3d.preprocess import condition_image, crop_foreground, to_batch
from dream_cad.nn.attention import FeedForward
from dream_cad.nn.clip import ClipBlock
from dream_cad.nn.dinov2 import Dinov2Config
from dream_cad.nn.embeddings import interpolate_position_embeddings
from dream_cad.nn.triplane import sample_triplane
from dream_cad.surface.marching_tets import march_tets
from dream_cad.surface.tet_grid import tet_grid
from tests.reference import stable_fast_3d_mesh_stages as mesh_stages
from tests.reference.cases import Case
from tests.reference.stable_fast_3d_end_to_end import end_to_end

Outputs = dict[str, Any]


def filled(case: Case, module: nn.Module) -> Any:
    """The module with the case's weights."""
    case.fill(module)
    return module


def preprocess(case: Case) -> Outputs:
    config = case.config
    if case.has("image"):
        out = to_batch(list(case.input("image")), config["size"])
        return {"out": out.permute(0, 2, 3, 1)}
    picture = Image.fromarray(case.input("rgba"), "RGBA")
    if "ratio" in config:
        crop = crop_foreground(picture, config["ratio"])
        small = crop.resize((config["out_size"],) * 2)
        return {"crop": np.asarray(crop), "crop_resized": np.asarray(small)}
    made = condition_image(picture, config["cond_image_size"], tuple(config["background_color"]))
    return {"mask_cond": made.mask, "rgb_cond": made.rgb}


def camera(case: Case) -> Outputs:
    config = case.config
    matrix = intrinsics(config["fov_deg"], config["size"])
    numbers = camera_vector(config["fov_deg"], config["distance"], config["size"])
    embedder = filled(case, CameraEmbedder(config["camera_embedder"]["out_channels"]))
    return {
        "c2w": camera_pose(config["distance"]),
        "intrinsic": matrix,
        "intrinsic_normed": normalised_intrinsics(matrix, config["size"]),
        "cond25": numbers,
        "embedding": embedder(numbers)[None, None],
    }


def dinov2(section: Mapping[str, Any]) -> Dinov2Config:
    params = {key: value for key, value in section.items() if key != "modulation_cond_dim"}
    return parse_section(Dinov2Config, "dinov2", params)


def image_tokenizer(case: Case) -> Outputs:
    config = case.config
    if case.has("position_embeddings"):
        side = config["image_px"] // config["patch"]
        table = case.tensor("position_embeddings")
        return {"pos": interpolate_position_embeddings(table, side, side, "scale")}
    if "embedding_dim" in config:
        module = Modulation(config["embedding_dim"], config["condition_dim"])
        return {"out": filled(case, module)(case.tensor("x"), case.tensor("condition"))}
    condition = case.tensor("modulation_cond")
    if case.has("hidden_states"):
        layer = filled(case, ModulatedLayer(dinov2(config), config["modulation_cond_dim"]))
        return {"out": layer.modulate(case.tensor("hidden_states"), condition)}
    tokenizer = ImageTokenizer(dinov2(config["dinov2"]), config["modulation_cond_dim"])
    images = case.tensor("images")
    seen: list[torch.Tensor] = []
    model = filled(case, tokenizer).model
    first = model.encoder.layer[0]
    modulate = first.modulate

    def spy(x: torch.Tensor, given: torch.Tensor) -> torch.Tensor:
        seen.extend((x, modulate(x, given)))
        return seen[-1]

    first.modulate = spy
    tokens = tokenizer(images.flatten(0, 1), condition.flatten(0, 1))
    grouped = tokens.transpose(1, 2).unflatten(0, images.shape[:2])
    return {"embeddings": seen[0], "layer0": seen[1], "tokens": grouped}


def triplane_tokenizer(case: Case) -> Outputs:
    config = case.config
    module = filled(case, TriplaneTokenizer(config["plane_size"], config["num_channels"]))
    return {"tokens": module(2), "planes": module.detokenize(module(1))}


def backbone(case: Case) -> Outputs:
    config = case.config
    if case.has("x_q"):
        assert config["qkv_bias"] is False
        module = Attention(config["dim"], config["kv_dim"], config["num_heads"])
        return {"out": filled(case, module)(case.tensor("x_q"), case.tensor("x_kv"))}
    if "mult" in config:
        feed = filled(case, FeedForward(config["dim"], config["mult"]))
        return {"out": feed(case.tensor("x"))}
    if case.has("hidden_states"):
        whole = filled(case, Backbone(parse_backbone(config)))
        return {"out": whole(case.tensor("hidden_states"), case.tensor("encoder_hidden_states"))}
    assert not config.get("norm_x_input", False)
    heads = config["num_heads"]
    if case.has("latent"):
        block = TwoStreamBlock(
            config["dim_latent"],
            config["dim_input"],
            config["dim_cross"],
            config["num_basic_blocks"],
            heads,
        )
        names = ("latent", "input", "cross_input")
        out0, out1 = filled(case, block)(*(case.tensor(name) for name in names))
        return {"out0": out0, "out1": out1}
    part: nn.Module = (
        FuseBlock(config["dim_z"], config["dim_x"], heads)
        if "dim_z" in config
        else BasicBlock(config["dim"], config["kv_dim"], heads)
    )
    return {"out": filled(case, part)(case.tensor("z"), case.tensor("x"))}


def post_processor(case: Case) -> Outputs:
    config = parse_section(PostProcessorConfig, "post_processor", case.config)
    return {"out": filled(case, PostProcessor(config))(case.tensor("triplanes"))}


def field_query(case: Case) -> Outputs:
    radius = case.config["radius"]

    def sample(planes: torch.Tensor, points: torch.Tensor) -> torch.Tensor:
        return sample_triplane(planes, points / radius, align_corners=True)

    single = sample(case.tensor("triplane")[None], case.tensor("positions")[None])
    batched = sample(case.tensor("triplane_batched"), case.tensor("positions_batched"))
    return {"out": single, "out_batched": batched}


def decoder(case: Case) -> Outputs:
    return dict(filled(case, MaterialMLP(parse_decoder(case.config)))(case.tensor("x")))


def estimator_config(config: Mapping[str, Any]) -> EstimatorConfig:
    section = {key: value for key, value in config.items() if key != "clip"}
    return parse_estimators({"image_estimator": section, "clip": config["clip"]})


def image_estimator(case: Case) -> Outputs:
    config = case.config
    if case.has("alpha"):
        return {"mode": beta_mode(case.tensor("alpha"), case.tensor("beta"))}
    if case.has("x_tokens_first"):
        block = filled(case, ClipBlock(config["width"], config["heads"]))
        return {"out": block(case.tensor("x_tokens_first").transpose(0, 1)).transpose(0, 1)}
    module = filled(case, ImageEstimator(estimator_config(config)))
    features = module.features(case.tensor("cond_image").flatten(0, 1).permute(0, 3, 1, 2))
    outputs: Outputs = {"image_features": features}
    for name, (alpha, beta) in module.distributions(features).items():
        mode = beta_mode(alpha, beta).view(-1, 1, 1)
        outputs |= {f"{name}_alpha": alpha, f"{name}_beta": beta, f"decoder_{name}": mode}
    return outputs


def global_estimator(case: Case) -> Outputs:
    config = parse_estimators({"global_estimator": case.config})
    module = filled(case, GlobalEstimator(config, case.config["triplane_features"]))
    return {"sg_amplitudes": module(case.tensor("triplane"))}


def grid(case: Case) -> Outputs:
    made = tet_grid(case.config["resolution"])
    assert len(made.vertices) == case.data["vertices_count"]
    assert len(made.tets) == case.data["tets_count"]
    return {"vertices": made.vertices, "indices": made.tets}


def isosurface(case: Case) -> Outputs:
    if "stats" in case.data:
        return mesh_stages.real_grid(case)
    assert case.config["points_range"] == [0, 1]
    made, level = tet_grid(case.config["resolution"]), case.input("level").ravel()
    raw = case.input("deformation")
    moved, plain = march_tets(made, level, lambda used: raw[used]), march_tets(made, level)
    return {
        "v_pos": moved.vertices,
        "t_pos_idx": moved.faces,
        "v_pos_nodeform": plain.vertices,
        "t_pos_idx_nodeform": plain.faces,
    }


def mesh(case: Case) -> Outputs:
    if "island_padding" in case.config:
        return mesh_stages.mesh_after_unwrap(case)
    return mesh_stages.vertex_normals(case)


def remesh(case: Case) -> Outputs:
    mesh_stages.check_remesh(case)
    return {"input_vertices": len(case.input("v_pos"))}


STAGES: Mapping[str, Callable[[Case], Outputs]] = {
    "preprocess": preprocess,
    "camera": camera,
    "image_tokenizer": image_tokenizer,
    "triplane_tokenizer": triplane_tokenizer,
    "backbone": backbone,
    "post_processor": post_processor,
    "field_query": field_query,
    "decoder": decoder,
    "image_estimator": image_estimator,
    "global_estimator": global_estimator,
    "tet_grid": grid,
    "isosurface": isosurface,
    "mesh": mesh,
    "uv_unwrap": mesh_stages.uv_unwrap,
    "texture_bake": mesh_stages.texture_bake,
    "material": mesh_stages.dither_uint8,
    "remesh": remesh,
    "end_to_end": end_to_end,
}
