"""Stages of the MVDream cases up to LGM's Gaussians."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
from diffusers import AutoencoderKL
from diffusers.models.resnet import ResnetBlock2D
from torch import Tensor, nn

from dream_cad.models.mvdream.cameras import (
    normalize_cameras,
    orbit,
    plucker_rays,
    view_cameras,
)
from dream_cad.models.mvdream.config import (
    LGMConfig,
    TextConfig,
    UNetConfig,
    VAEConfig,
    parse_section,
)
from dream_cad.models.mvdream.key_maps import map_text, map_vae
from dream_cad.models.mvdream.lgm import LGM, ResNet, ViewAttention, activate_gaussians
from dream_cad.models.mvdream.lgm_input import lgm_input, on_white, recenter
from dream_cad.models.mvdream.network import make_vae
from dream_cad.models.mvdream.sampler import (
    Guidance,
    NoisePredictor,
    create_scheduler,
    sample_latents,
)
from dream_cad.models.mvdream.unet import ImagePrompt, MultiViewUNet
from dream_cad.models.mvdream.unet_blocks import (
    Downsample,
    MultiViewBlock,
    ResBlock,
    SpatialTransformer3D,
    Upsample,
    timestep_embedding,
)
from dream_cad.nn.clip_text import EncoderLayer, TextEncoder
from dream_cad.nn.clip_tokenizer import ClipTokenizer
from tests.reference import formula_weights
from tests.reference.cases import Case

Outputs = dict[str, Any]


def filled(case: Case, module: nn.Module, prefix: str | None = None) -> Any:
    formula_weights.fill(module, case.prefix if prefix is None else prefix)
    return module.eval()


def unet_config(data: Mapping[str, Any]) -> UNetConfig:
    return parse_section(UNetConfig, data, "unet")


def vae_config(data: Mapping[str, Any]) -> VAEConfig:
    return parse_section(VAEConfig, data, "vae")


def lgm_config(data: Mapping[str, Any]) -> LGMConfig:
    return parse_section(LGMConfig, data, "lgm")


def formula_state(shapes: Mapping[str, tuple[int, ...]], prefix: str) -> dict[str, Tensor]:
    return {
        key: torch.from_numpy(formula_weights.parameter(prefix + key, shape))
        for key, shape in shapes.items()
    }


def camera(case: Case) -> Outputs:
    names = ("num_frames", "elevation", "azimuth_start", "azimuth_span")
    frames, elevation, start, span = (case.config[name] for name in names)
    plain = orbit(frames, elevation, start, span)
    moved = plain.clone()
    moved[:, :3, 3] *= 2.5
    blender = view_cameras(frames, elevation, start, span)
    scaled = blender.reshape(-1, 4, 4).clone()
    scaled[:, :3, 3] *= 2.5
    return {
        "blender": blender,
        "extra_view": view_cameras(frames, elevation, start, span, extra_view=True),
        "lgm_fork": view_cameras(frames, -elevation, start, span),
        "opengl": plain.reshape(frames, 16),
        "normalized": normalize_cameras(scaled),
    }


def tokenizer(case: Case) -> Outputs:
    tokens = ClipTokenizer.bundled()
    assert tokens.length == case.config["context_length"]
    return {"ids": tokens(case.data["inputs"]["prompts"])}


def openclip_shapes(
    width: int, layers: int, vocab: int, context: int
) -> dict[str, tuple[int, ...]]:
    block: dict[str, tuple[int, ...]] = {
        "ln_1.weight": (width,),
        "ln_1.bias": (width,),
        "attn.in_proj_weight": (3 * width, width),
        "attn.in_proj_bias": (3 * width,),
        "attn.out_proj.weight": (width, width),
        "attn.out_proj.bias": (width,),
        "ln_2.weight": (width,),
        "ln_2.bias": (width,),
        "mlp.c_fc.weight": (4 * width, width),
        "mlp.c_fc.bias": (4 * width,),
        "mlp.c_proj.weight": (width, 4 * width),
        "mlp.c_proj.bias": (width,),
    }
    shapes: dict[str, tuple[int, ...]] = {
        "positional_embedding": (context, width),
        "text_projection": (width, width),
        "token_embedding.weight": (vocab, width),
        "ln_final.weight": (width,),
        "ln_final.bias": (width,),
    }
    for index in range(layers):
        for key, shape in block.items():
            shapes[f"transformer.resblocks.{index}.{key}"] = shape
    return shapes


def text_encoder(case: Case) -> Outputs:
    config = case.config
    if case.has("x"):
        layer = EncoderLayer(config["hidden_size"], config["heads"], config["intermediate"])
        return {"y": filled(case, layer)(case.tensor("x"))}
    tokens = case.tensor("tokens").long()
    if "layers_in_file" not in config:
        module = filled(case, TextEncoder(parse_section(TextConfig, config, "text")))
        return {"hidden": module(tokens)}
    width, layers = config["width"], config["layers_in_file"]
    shapes = openclip_shapes(width, layers, config["vocab"], tokens.shape[1])
    state = map_text(formula_state(shapes, case.prefix))
    sizes = TextConfig(
        config["vocab"], width, 4 * width, config["layers_run"], config["heads"], tokens.shape[1]
    )
    encoder = TextEncoder(sizes).eval()
    encoder.load_state_dict(state)
    return {"hidden": encoder(tokens)}


def unet(case: Case) -> Outputs:
    config = case.config
    if "dim" in config and "n_heads" not in config:
        return {"emb": timestep_embedding(case.tensor("t"), config["dim"])}
    x = case.tensor("x")
    if "emb_channels" in config:
        block = ResBlock(config["channels"], config["emb_channels"], config["out_channels"])
        return {"y": filled(case, block)(x, case.tensor("emb"))}
    if "model_channels" in config:
        return whole_unet(case, filled(case, MultiViewUNet(unet_config(config))))
    if "n_heads" not in config:
        kind = {"downsample": Downsample, "upsample": Upsample}[case.name]
        return {"y": filled(case, kind(config["channels"]))(x)}
    sizes = (config["n_heads"], config["d_head"], config["context_dim"])
    spatial = "in_channels" in config
    module = (
        SpatialTransformer3D(config["in_channels"], *sizes)
        if spatial
        else MultiViewBlock(config["dim"], *sizes)
    )
    y = filled(case, module)(x, case.tensor("context"), config["num_frames"])
    return {"y": y, "y_minus_x": y - x}


def whole_unet(case: Case, module: MultiViewUNet) -> Outputs:
    x, context = case.tensor("x"), case.tensor("context")
    times, cameras = case.tensor("timesteps"), case.tensor("camera")
    frames = case.input("num_frames")
    if case.has("ip"):
        prompt = ImagePrompt(case.tensor("ip"), case.tensor("ip_img"))
        y = module(x, times, context, cameras, frames, prompt)
        return {"resampler": module.image_embed(prompt.features), "y": y}
    flat = module(x[:4], times[:4], context[:4])
    return {
        "y": module(x, times, context, cameras, frames),
        "y_no_camera": module(x, times, context, None, frames),
        "y_2d_first4": flat,
    }


def original_vae(case: Case, data: Mapping[str, Any], prefix: str) -> AutoencoderKL:
    """An autoencoder whose weights are the formula's under the original file's keys."""
    module = make_vae(vae_config(data))
    shapes = {key: tuple(t.shape) for key, t in module.state_dict().items()}
    state = map_vae(
        formula_state(original_vae_shapes(shapes, len(data["block_out_channels"])), prefix)
    )
    module.load_state_dict(state)
    return module.eval()


def original_vae_shapes(
    shapes: Mapping[str, tuple[int, ...]], levels: int
) -> dict[str, tuple[int, ...]]:
    """The original keys of a diffusers autoencoder, by inverting the published table by hand."""
    renamed: dict[str, tuple[int, ...]] = {}
    for key, size in shapes.items():
        name, shape = key, size
        for level in range(levels):
            name = name.replace(f"decoder.up_blocks.{level}.", f"decoder.up.{levels - 1 - level}.")
        for new, old in (
            ("encoder.down_blocks.", "encoder.down."),
            ("downsamplers.0.", "downsample."),
            ("upsamplers.0.", "upsample."),
            ("mid_block.resnets.0.", "mid.block_1."),
            ("mid_block.resnets.1.", "mid.block_2."),
            ("mid_block.attentions.0.group_norm.", "mid.attn_1.norm."),
            ("mid_block.attentions.0.to_out.0.", "mid.attn_1.proj_out."),
            ("mid_block.attentions.0.to_", "mid.attn_1."),
            ("resnets.", "block."),
            ("conv_shortcut.", "nin_shortcut."),
            ("conv_norm_out.", "norm_out."),
        ):
            name = name.replace(new, old)
        if ".attn_1." in name and len(shape) == 2:
            shape = (*shape, 1, 1)
        renamed[name] = shape
    return renamed


def vae(case: Case) -> Outputs:
    config = case.config
    if case.has("x"):
        block = ResnetBlock2D(
            in_channels=config["in_channels"],
            out_channels=config["out_channels"],
            temb_channels=None,
            eps=1e-6,
        )
        return {"y": filled(case, block)(case.tensor("x"), None)}
    module = (
        original_vae(case, config["diffusers"], case.prefix)
        if "diffusers" in config
        else filled(case, make_vae(vae_config(config)))
    )
    moments = module.encode(2 * case.tensor("im") - 1).latent_dist.parameters
    return {"decoded": module.decode(case.tensor("z")).sample, "moments": moments}


def scheduler(case: Case) -> Outputs:
    config = case.config
    steps, scale = config["steps"], config["guidance_scale"]
    made = create_scheduler("ddim")
    outputs: Outputs = {"alphas_cumprod": made.alphas_cumprod}
    for count in (20, 30, 50):
        made.set_timesteps(count)
        outputs[f"timesteps_{count}"] = made.timesteps
        original = np.arange(0, 1000, 1000 // count) + 1
        outputs[f"ldm_timesteps_{count}"] = original[::-1]
    made.set_timesteps(steps)
    latents, states = case.tensor("xT"), []
    for timestep, (uncond, cond) in zip(
        made.timesteps, case.tensor("eps_uncond_cond"), strict=True
    ):
        noise = uncond + scale * (cond - uncond)
        latents = made.step(noise, timestep, latents).prev_sample
        states.append(latents)
    return outputs | {"trajectory": torch.stack(states)}


def run_pipeline(config: Mapping[str, Any], tokens: Tensor, noise: Tensor) -> Outputs:
    text = TextEncoder(parse_section(TextConfig, config["text"], "text"))
    unet_ = MultiViewUNet(unet_config(config["unet"]))
    vae_ = make_vae(vae_config(config["vae"]))
    for module in (text, unet_, vae_):
        formula_weights.fill(module)
        module.eval()
    cond, uncond = text(tokens.long())
    cameras = view_cameras(len(noise), config["elevation"], config["azimuth_start"])
    guidance = Guidance(cond, uncond, cameras, config["guidance_scale"])
    made = create_scheduler("ddim", **config["scheduler"])
    latents = sample_latents(NoisePredictor(unet_, guidance), noise, made, config["steps"])
    decoded = vae_.decode(latents / config["vae"]["scaling_factor"]).sample
    images = (decoded / 2 + 0.5).clamp(0, 1).permute(0, 2, 3, 1)
    return {"latents_out": latents, "images": images}


def pipeline(case: Case) -> Outputs:
    return run_pipeline(case.config, case.tensor("tokens"), case.tensor("latents"))


def lgm_preprocess(case: Case) -> Outputs:
    config = case.config
    if case.has("rgba"):
        rgba, mask = case.input("rgba"), case.input("mask")
        result = recenter(rgba, mask, config["border_ratio"])
        as_bytes = (rgba * 255).astype(np.uint8)
        return {
            "rgba_out": result,
            "white": on_white(result),
            "uint8_out": recenter(as_bytes, mask, config["border_ratio"]),
        }
    sizes = LGMConfig(input_size=config["input_size"])
    if case.has("views"):
        return {"x": lgm_input(case.tensor("views"), sizes, config["elevation"])}
    # the case counts elevations downwards
    cameras = orbit(4, -config["elevation"], radius=config["radius"])
    return {
        "rays": torch.stack([plucker_rays(c, sizes.input_size, config["fovy"]) for c in cameras])
    }


def lgm_unet(case: Case) -> Outputs:
    config, x = case.config, case.tensor("x")
    if "in" in config:
        resample = config.get("resample", "default")
        return {"y": filled(case, ResNet(config["in"], config["out"], resample))(x)}
    if "num_heads" in config:
        module = ViewAttention(config["dim"], config["num_heads"], config.get("num_frames", 4))
        return {"y": filled(case, module)(x)}
    network = filled(case, LGM(lgm_config(config)))
    return {"unet_out": network.unet(x.flatten(0, 1)), "gaussians": network(x)}


def gaussians(case: Case) -> Outputs:
    return {"act": activate_gaussians(case.tensor("raw"))}
