"""Stages of the Hunyuan3D-Paint cases that are networks, samplers and what is around them."""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from diffusers import UNet2DConditionModel
from numpy.typing import NDArray
from PIL import Image

from dream_cad.models.hunyuan3d_mini.paint.block import MultiviewBlock, ViewContext
from dream_cad.models.hunyuan3d_mini.paint.delight import Delight, delight_with, match_colours
from dream_cad.models.hunyuan3d_mini.paint.diffusion import PaintDiffusion
from dream_cad.models.hunyuan3d_mini.paint.samplers import (
    EulerAncestral,
    LatentConsistency,
    NoiseSource,
    Sampler,
)
from dream_cad.models.hunyuan3d_mini.paint.unet import PaintUNet
from dream_cad.models.hunyuan3d_mini.paint.vae import LatentCodec, create_vae, to_uint8
from dream_cad.models.hunyuan3d_mini.paint.voxels import neighbour_mask, voxel_indices
from dream_cad.models.hunyuan3d_mini.paint.weights import PaintVariant
from tests.reference import formula_weights
from tests.reference.cases import Case

Outputs = dict[str, Any]


def named_noise(name: str, count: int = 0) -> NoiseSource:
    """Draws normal(name.k) in the order of the calls, from number ``count`` on."""
    numbers = iter(range(count, 1000))

    def draw(shape: tuple[int, ...]) -> torch.Tensor:
        return torch.from_numpy(formula_weights.normal(f"{name}.{next(numbers)}", shape))

    return draw


def paint_unet(case: Case, prefix: str = "paint_unet.") -> PaintUNet:
    network = PaintUNet(case.config["unet"])
    formula_weights.fill(network, prefix)
    return network.eval()


def filled_vae(case: Case) -> Any:
    vae = create_vae(case.config["vae"])
    formula_weights.fill(vae, "paint_vae.")
    return vae.eval()


def stated(case: Case, name: str, default: str | None = None) -> str:
    """A number, or a list in brackets, that a case states in words only."""
    found = re.search(rf"{name} (\[[\d., ]+\]|[\d.]*\d)", case.data["what"])
    if found is None and default is not None:
        return default
    assert found is not None, f"{case.name} states no {name}"
    return found[1]


def block(case: Case) -> Outputs:
    config = case.config
    rows, views = config["batch"], config["views"]
    module = MultiviewBlock("b", config["dim"], config["heads"], config["cross_attention_dim"])
    assert config["dim"] == config["heads"] * config["head_dim"]
    case.fill(module)
    x, text, tokens = case.tensor("x"), case.tensor("context"), case.tensor("ref_tokens")
    memory = {"b": module.attn_refview.remember(tokens)}
    scales = tuple(map(float, stated(case, "ref_scale")[1:-1].split(",")))
    readers = [row for row, scale in enumerate(scales) if scale]
    some = {"b": module.attn_refview.remember(tokens[readers])}
    mva_scale = float(stated(case, "mva_scale"))
    written: dict[str, torch.Tensor] = {}

    def call(context: ViewContext, count: int = len(x)) -> torch.Tensor:
        out: torch.Tensor = module(x[:count], text[:count], {"context": context})
        return out

    ones = (1.0,) * rows
    return {
        "read": call(ViewContext(views, ones, memory)),
        "read_scaled": call(ViewContext(views, scales, some, mva_scale=mva_scale)),
        "write": call(ViewContext(views, written=written)),
        "written": written["b"],
        "one_view": call(ViewContext(1, ones, memory), rows),
    }


def unet(case: Case) -> Outputs:
    network = paint_unet(case)
    tokens = network.read_reference(case.tensor("ref_latents"))
    if not case.has("latents"):
        return dict(tokens)
    parts = [case.tensor(f"{name}latents") for name in ("", "normal_", "position_")]
    latents, labels = torch.cat(parts, dim=2), torch.tensor(case.config["camera"])
    memory, text = network.remember(tokens), network.text
    scales: tuple[float, ...] = (float(stated(case, "ref_scale", "1")),)
    mva_scale = float(stated(case, "mva_scale", "1"))
    if "item 0 = zero text" in case.data["what"]:
        text = torch.cat([torch.zeros_like(text), text])
        latents, labels = latents.expand(2, *latents.shape[1:]), labels.expand(2, -1)
        scales = (0.0, 1.0)
    time = case.config["t"]
    views = {"ref_scale": scales, "memory": memory, "mva_scale": mva_scale}
    return {"out": network(latents, time, text, labels, **views)}


def scheduler(case: Case) -> Outputs:
    config = case.config
    sampler: Sampler
    if "timesteps" in config:
        sampler = LatentConsistency(config["base"], len(config["timesteps"]))
        extra: Outputs = {"ddim_timesteps": LatentConsistency(config["base"], 30).timesteps.flip(0)}
    else:
        sampler = EulerAncestral(
            config["base"], config["steps"], config["base"]["timestep_spacing"]
        )
        extra = {"sigmas": sampler.sigmas}
    x = case.tensor("x") * sampler.start_scale
    base = case.data["inputs"]["noise_i"].split(":")[1].removesuffix(".<i>")
    noise, outputs = named_noise(base), extra
    for i in range(len(sampler.timesteps)):
        scaled = sampler.scale_input(i, x)
        v = (
            0.5 * torch.from_numpy(case.array(case.data["inputs"]["v_i"].replace("<i>", str(i))))
            + 0.3 * scaled
        )
        x = sampler.step(i, x, v, noise)
        outputs |= {f"x{i}": x, f"in{i}": scaled}
    return outputs | {
        "timesteps": sampler.timesteps,
        "init_noise_sigma": torch.tensor(sampler.start_scale),
    }


def vae(case: Case) -> Outputs:
    module = filled_vae(case)
    posterior = module.encode(case.tensor("x")).latent_dist
    decoded = module.decode(case.tensor("z")).sample
    return {"mean": posterior.mean, "std": posterior.std, "decoded": decoded}


def pipeline(case: Case) -> Outputs:
    config = case.config
    variant: PaintVariant = "turbo" if config["turbo"] else "standard"
    unet, codec = paint_unet(case), LatentCodec(filled_vae(case))
    diffusion = PaintDiffusion(unet, codec, config["base"], variant)
    first = case.data["note"].split("noise in call order: ")[1].split(".0:")[0]
    latents = diffusion.denoise(
        [case.input("image")],
        case.input("normal_u8"),
        case.input("position_u8"),
        config["camera"][0],
        named_noise(first),
        None if config["turbo"] else config["steps"],  # turbo does not look at the steps asked for
    )
    return {"latents": latents, "views": to_uint8(codec.decode(latents))}


def delight(case: Case) -> Outputs:
    if "unet" in case.config:
        return delight_loop(case)
    return delight_wrap(case) if "net" in case.config else recorrect(case)


def delight_wrap(case: Case) -> Outputs:
    seen: list[NDArray[np.uint8]] = []
    factor, offset = re.fullmatch(r"uint8\(([.\d]+)\*x\+([.\d]+)\)", case.config["net"]).groups()

    def network(picture: NDArray[np.uint8]) -> NDArray[np.uint8]:
        seen.append(picture)
        return (float(factor) * picture + float(offset)).astype(np.uint8)

    out = delight_with(network, Image.fromarray(case.input("image")))
    return {"net_in": seen[0], "out": np.asarray(out)}


def recorrect(case: Case) -> Outputs:
    source, target, alpha = (case.input(name) for name in ("src", "target", "alpha"))
    out = match_colours(source, target, alpha[..., 0])
    kept = match_colours(target + 0.01, target, alpha[..., 0])
    return {
        "out": np.concatenate([out, alpha], axis=-1),
        "kept_original": np.concatenate([kept, alpha], axis=-1),
    }


def delight_loop(case: Case) -> Outputs:
    unet = UNet2DConditionModel(**case.config["unet"])
    formula_weights.fill(unet, "delight_unet.")
    codec, text = LatentCodec(filled_vae(case)), case.tensor("text")
    network = Delight(unet.eval(), codec, text, case.config["base"])
    noise = named_noise(case.data["note"].split(".0:")[0])
    return {"image_out": network.relight(case.input("image"), noise, case.config["steps"])}


def voxels(case: Case) -> Outputs:
    positions, outputs = case.tensor("position"), Outputs()
    for grid, resolution in zip(case.config["grid"], case.config["voxels"], strict=True):
        tokens = positions.shape[1] * grid**2
        outputs[f"mask{tokens}"] = np.packbits(neighbour_mask(positions, grid).numpy().ravel())
        outputs[f"vox{tokens}"] = voxel_indices(positions, grid, resolution)
    return outputs


NETWORK_STAGES: dict[str, Callable[[Case], Outputs]] = {
    "unet_block": block,
    "unet": unet,
    "scheduler": scheduler,
    "vae": vae,
    "pipeline": pipeline,
    "delight": delight,
    "unet_position": voxels,
}
