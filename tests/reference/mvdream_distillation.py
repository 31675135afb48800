"""Stages of the MVDream cases of score distillation: cameras, loss, field, rendering, surface."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from scipy.spatial import cKDTree
from torch import Tensor, nn

from dream_cad.models.mvdream.cameras import normalize_cameras
from dream_cad.models.mvdream.config import MVDreamConfig, TextConfig, VAEConfig
from dream_cad.models.mvdream.network import MVDreamNetwork
from dream_cad.models.mvdream.sds_cameras import (
    CameraRanges,
    Draws,
    camera_rays,
    place_cameras,
    scheduled,
)
from dream_cad.models.mvdream.sds_field import (
    Background,
    FieldConfig,
    HashGridConfig,
    RadianceField,
)
from dream_cad.models.mvdream.sds_guidance import SDSLoss, distillation_loss, encode_views
from dream_cad.models.mvdream.sds_mesh import field_colors, field_mesh
from dream_cad.models.mvdream.sds_render import composite
from dream_cad.models.mvdream.unet import MultiViewUNet
from tests.reference import formula_weights
from tests.reference.cases import Case, load_cases
from tests.reference.mvdream_meshes import stats
from tests.reference.mvdream_networks import Outputs, filled, original_vae, unet_config


def sds(case: Case) -> Outputs:
    if case.has("steps"):
        return schedules(case)
    if case.has("u_azimuth"):
        return cameras(case)
    with torch.enable_grad():
        return from_rgb(case) if case.has("rgb") else from_latents(case)


def schedules(case: Case) -> Outputs:
    steps = [int(step) for step in case.input("steps")]
    values = {name: [scheduled(tuple(v), s) for s in steps] for name, v in case.config.items()}
    outputs: Outputs = {f"{name}_f64": np.array(found) for name, found in values.items()}
    for name in ("min_step", "max_step"):
        outputs[name] = np.array([int(1000 * share) for share in values[f"{name}_percent"]])
    return outputs


def cameras(case: Case) -> Outputs:
    config = case.config
    names = ("elevation", "azimuth", "fovy", "distance")
    draws = Draws(*(case.tensor(f"u_{name}").float() for name in names))
    ranges = CameraRanges(
        tuple(config["elevation_range"]),
        tuple(config["azimuth_range"]),
        tuple(config["fovy_range"]),
        tuple(config["camera_distance_range"]),
    )
    placed = place_cameras(draws, ranges, on_sphere=config["branch"] == "uniform_sphere")
    origins, directions = camera_rays(placed, config["size"])
    return {
        "c2w": placed.c2w,
        "elevation": placed.elevation,
        "azimuth": placed.azimuth,
        "camera_distances": placed.distance,
        "fovy": placed.fovy,
        "rays_d_view0": directions[0],
        "rays_o_view0": origins[0, 0, 0],
        "camera_condition": normalize_cameras(placed.c2w),
    }


def loss_settings(config: dict[str, Any]) -> SDSLoss:
    return SDSLoss(
        config["guidance_scale"], config.get("recon_loss", True), config["recon_std_rescale"]
    )


def from_latents(case: Case) -> Outputs:
    config = case.config
    unet = filled(case, MultiViewUNet(unet_config(config["unet"])))
    latents = case.tensor("latents").requires_grad_(True)
    loss = distillation_loss(
        unet,
        latents,
        case.tensor("noise"),
        config["timestep"],
        case.tensor("text_embeddings"),
        case.tensor("c2w"),
        loss_settings(config),
    )
    loss.backward()
    return {"loss": loss, "grad": latents.grad}


def from_rgb(case: Case) -> Outputs:
    config = case.config
    keys = config["vae_original_keys"]
    widths = [keys["ch"] * factor for factor in keys["ch_mult"]]
    data = {"block_out_channels": widths, "layers_per_block": keys["num_res_blocks"]}
    sizes = MVDreamConfig(
        unet_config(config["unet"]),
        TextConfig(10, 48, 48, 1, 4),
        VAEConfig(block_out_channels=tuple(widths), layers_per_block=keys["num_res_blocks"]),
    )
    network = MVDreamNetwork(sizes).eval()
    formula_weights.fill(network.unet, "model.diffusion_model.")
    network.vae = original_vae(case, data, "first_stage_model.")
    views = case.tensor("rgb").requires_grad_(True)
    latents = encode_views(network, views, config["image_size"], case.tensor("posterior_noise"))
    loss = distillation_loss(
        network.unet,
        latents,
        case.tensor("noise"),
        config["timestep"],
        case.tensor("text_embeddings"),
        case.tensor("c2w"),
        loss_settings(config),
    )
    loss.backward()
    return {"loss": loss, "grad": views.grad}


def make_field(case: Case) -> RadianceField:
    config = case.config
    names = ("n_levels", "n_features_per_level", "log2_hashmap_size", "base_resolution")
    grid = HashGridConfig(*(config[name] for name in names), config["per_level_scale"])
    field = RadianceField(
        FieldConfig(grid, blob_scale=config["blob_scale"], blob_std=config["blob_std"])
    )
    load_by_formula(field, case, {"encoding.params": config["params_key"]})
    with torch.no_grad():
        field.encoding.params *= config["params_scale_after_fill"]
    return field.eval()


def load_by_formula(module: nn.Module, case: Case, renamed: dict[str, str]) -> None:
    with torch.no_grad():
        for key, tensor in module.state_dict().items():
            value = formula_weights.parameter(
                case.prefix + renamed.get(key, key), tuple(tensor.shape)
            )
            tensor.copy_(torch.from_numpy(value))


def analytic_normals(field: RadianceField, points: Tensor) -> Tensor:
    with torch.enable_grad():
        at = points.clone().requires_grad_(True)
        (slope,) = torch.autograd.grad(field.density(at).sum(), at)
    return -F.normalize(slope, dim=1)


def finite_normals(field: RadianceField, points: Tensor, step: float = 0.01) -> Tensor:
    """Forward differences; as published they point towards rising density."""
    moved = (points[:, None] + step * torch.eye(3)).clamp(-1, 1).reshape(-1, 3)
    return F.normalize(field.density(moved).view(-1, 3) - field.density(points), dim=1)


def nerf(case: Case) -> Outputs:
    if case.has("points"):
        field, points = make_field(case), case.tensor("points")
        return {
            "encoding": field.encode(points),
            "density": field.density(points),
            "features": field.features(points),
            # all but the first three points, where the gradient vanishes or leaves the box
            "normal_analytic": analytic_normals(field, points[3:]),
            "normal_fd": finite_normals(field, points[2:50]),
        }
    if case.has("dirs"):
        background = Background()
        load_by_formula(background, case, {})
        return {"rgb": background(case.tensor("dirs"))}
    if case.has("sigma"):
        names = ("t_edges", "sigma", "rgb", "bg")
        seen = composite(*(case.tensor(name) for name in names))
        return {
            "weights": seen.weights,
            "opacity": seen.opacity,
            "depth": seen.depth,
            "comp_rgb": seen.color,
            "z_variance": seen.z_variance,
        }
    return isosurface(case)


def isosurface(case: Case) -> Outputs:
    field = make_field({c.name: c for c in load_cases("mvdream")}["nerf_field"])
    mesh = field_mesh(field, case.config["resolution"], case.config["threshold"])
    nearest = cKDTree(mesh.vertices).query(case.expected()["vertices"])[1]
    found = stats(mesh)
    found[3] = np.copysign(found[3], case.expected()["stats"][3])
    assert len(mesh.faces) == len(case.expected()["faces"])
    return {
        "stats": found,
        "vertices": mesh.vertices[nearest],
        "faces": case.expected()["faces"],  # marching cubes number vertices in other orders
        "colours": field_colors(field, mesh.vertices)[nearest],
    }
