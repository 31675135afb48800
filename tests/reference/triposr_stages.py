"""Map each stage of the TripoSR cases to our modules, built from the case's own config."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from PIL import Image

from dream_cad.images.crop import composite_on_grey, crop_to_foreground, prepare_foreground
from dream_cad.mesh.bake import bake_texture, rasterize_positions
from dream_cad.mesh.unwrap import unwrap_uv
from dream_cad.models.triposr.config import TripoSRConfig
from dream_cad.models.triposr.field import TriplaneField
from dream_cad.models.triposr.frame import rotate
from dream_cad.models.triposr.network import (
    ImageTokenizer,
    NeRFMLP,
    Transformer1D,
    TriplaneTokenizer,
    TriplaneUpsampler,
    TripoSRNetwork,
)
from dream_cad.models.triposr.pipeline import TripoSRPipeline, quantize
from dream_cad.models.triposr.preprocess import image_to_tensor
from dream_cad.models.triposr.render import intersect_box, orbit_rays, render_rays
from dream_cad.nn.attention import Attention, FeedForward, TransformerBlock
from dream_cad.nn.embeddings import interpolate_position_embeddings
from dream_cad.nn.vit import ViTConfig
from dream_cad.surface.extract import extract_surface
from tests.reference.cases import Case

Outputs = dict[str, Any]


def vit_config(data: dict[str, Any], mode: str) -> ViTConfig:
    """The ViT of a case, through the product's own reader of config.yaml."""
    config = TripoSRConfig.from_mapping(
        {
            "cond_image_size": data["patch_size"],
            "image_tokenizer": {"vit": _vit_keys(data), "position_interpolation": mode},
        }
    )
    return config.vit


def _vit_keys(data: dict[str, Any]) -> dict[str, Any]:
    # Keys of the transformers file that are no sizes: how weights were initialised, class names.
    ignored = ("initializer_range", "model_type", "architectures")
    return {key: value for key, value in data.items() if key not in ignored}


def preprocess(case: Case) -> Outputs:
    if case.has("rgba"):
        image = Image.fromarray(case.input("rgba"))
        padded = crop_to_foreground(image, case.config["foreground_ratio"])
        return {"padded_rgba": padded, "composite": composite_on_grey(padded)}
    tensor = image_to_tensor(case.input("rgb"), case.config["cond_image_size"])
    return dict.fromkeys(("resized", "resized_sub"), tensor.permute(0, 2, 3, 1))


def image_tokenizer(case: Case) -> Outputs:
    outputs: Outputs = {}
    for mode in ("scale", "size"):
        if case.has("position_embeddings"):
            grid = case.config["input"] // case.config["patch_size"]
            embeddings = case.tensor("position_embeddings")
            outputs[f"pos_{mode}"] = interpolate_position_embeddings(embeddings, grid, grid, mode)
        else:
            config = case.config
            tokenizer = ImageTokenizer(vit_config(config.pop("vit") | config, mode))
            case.fill(tokenizer)
            tokens = tokenizer(case.tensor("images")[:, 0]).transpose(1, 2)[:, None]
            outputs |= dict.fromkeys((f"tokens_{mode}", f"tokens_{mode}_sub"), tokens)
    return outputs


def triplane_tokenizer(case: Case) -> Outputs:
    tokenizer = TriplaneTokenizer(**case.config)
    if case.has("tokens"):
        planes = tokenizer.detokenize(case.tensor("tokens"))
        return dict.fromkeys(("planes", "planes_sub"), planes)
    case.fill(tokenizer)
    tokens = tokenizer(case.input("batch_size"))
    return dict.fromkeys(("tokens", "tokens_sub"), tokens)


def backbone(case: Case) -> Outputs:
    config = case.config
    part = case.prefix.rstrip(".").rpartition(".")[2]
    module: torch.nn.Module
    if part == "backbone":
        module = Transformer1D(**config)
    elif part == "ff":
        module = FeedForward(**config)
    else:
        context_dim = config.pop("cross_attention_dim", None)
        kind = Attention if part in ("attn1", "attn2") else TransformerBlock
        module = kind(**config, context_dim=context_dim)
    case.fill(module)
    names = [name for name in ("hidden_states", "encoder_hidden_states") if case.has(name)]
    out = module(*(case.tensor(name) for name in names))
    return {"out": out} | {
        f"out{i}{suffix}": row for i, row in enumerate(out) for suffix in ("", "_sub")
    }


def upsampler(case: Case) -> Outputs:
    module = TriplaneUpsampler(**case.config)
    case.fill(module)
    return {"out": module(case.tensor("triplanes"))}


def make_decoder(case: Case, config: dict[str, Any]) -> NeRFMLP:
    if config.pop("activation") != "silu":
        raise ValueError(f"case {case.name}: only SiLU decoders exist")
    decoder = NeRFMLP(**config)
    case.fill(decoder)
    return decoder


def decoder(case: Case) -> Outputs:
    raw = make_decoder(case, case.config)(case.tensor("x"))
    return {"density": raw[:, :1], "features": raw[:, 1:]}


def make_field(case: Case) -> TriplaneField:
    renderer = case.config["renderer"]
    return TriplaneField(
        case.tensor("triplane"),
        make_decoder(case, dict(case.config["decoder"])),
        radius=renderer["radius"],
        density_bias=renderer["density_bias"],
    )


def field_query(case: Case) -> Outputs:
    field, points = make_field(case), case.tensor("positions")
    raw = field.raw(points)
    return {
        "density": raw[:, :1],
        "features": raw[:, 1:],
        "density_act": field.density(points)[:, None],
        "color": field.color(points),
    }


def renderer(case: Case) -> Outputs:
    if not case.has("rays_o"):
        config = case.config
        config["distance"] = config.pop("camera_distance")
        origins, directions = orbit_rays(**config)
        return {"rays_o": origins, "rays_d": directions}
    settings = case.config["renderer"]
    origins, directions = case.tensor("rays_o"), case.tensor("rays_d")
    colors = render_rays(
        make_field(case).query,
        origins,
        directions,
        radius=settings["radius"],
        density_bias=settings["density_bias"],
        num_samples=settings["num_samples_per_ray"],
    )
    near, far, valid = intersect_box(
        origins.reshape(-1, 3), directions.reshape(-1, 3), settings["radius"]
    )
    return {
        "comp_rgb": colors,
        "t_near": near,
        "t_far": far,
        "valid": valid,
        "comp_rgb_valid": colors.reshape(-1, 3)[valid],
    }


def network_config(case: Case, mode: str) -> TripoSRConfig:
    """The whole network of an end-to-end case."""
    data = dict(case.config["tsr"])
    data["image_tokenizer"] = data["image_tokenizer"] | {"vit": _vit_keys(case.config["vit"])}
    config = TripoSRConfig.from_mapping(data)
    vit = dataclasses.replace(config.vit, position_interpolation=mode)
    return dataclasses.replace(config, vit=vit)


def grid_points(resolution: int, radius: float) -> torch.Tensor:
    """(N^3, 3) grid of the surface extraction, end points included, x slowest."""
    axis = torch.from_numpy(np.linspace(0, 1, resolution, dtype=np.float32)) * 2 * radius - radius
    return torch.cartesian_prod(axis, axis, axis)


def surface(case: Case) -> Outputs:
    if case.has("colors"):
        rgb = quantize(case.input("colors"))
        alpha = np.full((len(rgb), 1), 255, np.uint8)
        return {"rgba_u8": np.concatenate((rgb, alpha), axis=1)}
    return extract(case, make_field(case))


def extract(case: Case, field: TriplaneField) -> Outputs:
    """Density on the grid, our mesh, and colours at the case's own vertices."""
    resolution = case.config["resolution"]
    mesh = extract_surface(field, resolution=resolution, threshold=case.config["threshold"])
    density = field.density(grid_points(resolution, field.radius))
    return {
        "density": density.view(resolution, resolution, resolution),
        "vertices": mesh.vertices,
        "faces": mesh.faces,
        "colors": field.color(torch.from_numpy(case.expected()["vertices"])),
    }


def output_frame(case: Case) -> Outputs:
    matrix = np.array(case.config["matrix"], dtype=np.float32)
    vertices = rotate(case.input("vertices"), matrix)
    return {"vertices": vertices[: len(case.expected()["vertices"])]}


def texture(case: Case) -> Outputs:
    config, stored, field = case.config, case.expected(), make_field(case)
    size, padding = config["texture_resolution"], config["padding"]
    atlas = unwrap_uv(
        case.input("vertices"), case.input("faces"), texture_size=size, padding=padding
    )
    positions, coverage = rasterize_positions(
        case.input("vertices")[stored["vmapping"]],
        stored["indices"].astype(np.int32),
        stored["uvs"],
        texture_size=size,
        padding=padding,
    )
    colors = bake_texture(
        lambda points: field.color(torch.from_numpy(points)).numpy(), positions, coverage
    )
    return {"positions": positions, "coverage": coverage, "colors": colors, "atlas": atlas}


def end_to_end(case: Case) -> Outputs:
    ratio = case.config["foreground_ratio"]
    composite = prepare_foreground(Image.fromarray(case.input("rgba")), ratio)
    outputs: Outputs = {"composite": composite}
    for suffix, mode in (("_size", "size"), ("", "scale")):
        network = TripoSRNetwork(network_config(case, mode))
        case.fill(network)
        images = image_to_tensor(composite, network.config.cond_image_size)
        tokens = network.encode_image(images)
        outputs[f"tokens{suffix}"] = tokens.transpose(1, 2)
        outputs[f"scene_codes{suffix}"] = network.decode_tokens(tokens)
    field = TripoSRPipeline(network).field(outputs["scene_codes"][0])
    return outputs | extract(case, field)


STAGES: dict[str, Callable[[Case], Outputs]] = {
    "preprocess": preprocess,
    "image tokenizer": image_tokenizer,
    "triplane tokenizer": triplane_tokenizer,
    "backbone": backbone,
    "upsampler": upsampler,
    "decoder": decoder,
    "field query": field_query,
    "surface": surface,
    "output frame": output_frame,
    "renderer": renderer,
    "texture": texture,
    "end to end": end_to_end,
}
