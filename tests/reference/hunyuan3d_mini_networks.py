"""Stages of the Hunyuan3D-2mini cases up to the latents and the decoder's logits."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import nn

from dream_cad.models.hunyuan3d_mini.attention import SelfAttentionBlock
from dream_cad.models.hunyuan3d_mini.conditioner import (
    Conditioner,
    ConditionerConfig,
    unconditional,
    view_embedding,
)
from dream_cad.models.hunyuan3d_mini.config import parse_section
from dream_cad.models.hunyuan3d_mini.dit import (
    DiTConfig,
    DoubleBlock,
    Hunyuan3DDiT,
    SingleBlock,
    timestep_embedding,
)
from dream_cad.models.hunyuan3d_mini.field import (
    grouped_attention,
    topk_attention,
)
from dream_cad.models.hunyuan3d_mini.preprocess import prepare_image, prepare_views
from dream_cad.models.hunyuan3d_mini.schedule import GuidedVelocity, ScheduleConfig, sample
from dream_cad.models.hunyuan3d_mini.shape_vae import (
    GeometryDecoder,
    ShapeVAE,
    ShapeVAEConfig,
    fourier_features,
)
from dream_cad.models.hunyuan3d_mini.surface_points import normalize_vertices, select_points
from dream_cad.nn.dinov2 import Dinov2Config, Dinov2Embeddings
from tests.reference import formula_weights
from tests.reference.cases import Case

Outputs = dict[str, Any]


def filled(case: Case, module: nn.Module, prefix: str | None = None) -> Any:
    formula_weights.fill(module, case.prefix if prefix is None else prefix)
    return module.eval()


def build_conditioner(data: Mapping[str, Any]) -> Conditioner:
    return Conditioner(
        ConditionerConfig(
            parse_section(Dinov2Config, "conditioner", data["dinov2"]),
            image_size=data["image_size"],
            use_cls_token=data["use_cls_token"],
        )
    )


def dit_config(data: Mapping[str, Any]) -> DiTConfig:
    return parse_section(DiTConfig, "model", data)


def vae_config(data: Mapping[str, Any]) -> ShapeVAEConfig:
    return parse_section(ShapeVAEConfig, "vae", data)


def preprocess(case: Case) -> Outputs:
    size, border = case.config["size"], case.config["border_ratio"]
    if case.has("image"):
        image = Image.fromarray(case.input("image"))
        picture, mask = prepare_image(image, size=size, border_ratio=border)
        return {"image_tensor": picture, "mask_tensor": mask}
    images = {name: Image.fromarray(case.arrays[f"image_{name}"]) for name in case.config["order"]}
    picture, mask, views = prepare_views(images, size=size, border_ratio=border)
    return {"image_tensor": picture, "mask_tensor": mask, "view_idxs": np.array(views)}


def conditioner(case: Case) -> Outputs:
    module: Conditioner = filled(case, build_conditioner(case.config))
    if "view_num" not in case.config:
        tokens = module(case.tensor("image"))
        free = unconditional(tokens)
        shape = np.array(free.shape)
        return {"tokens": tokens, "unconditional": free[:, :2], "unconditional_shape": shape}
    indices = case.config["view_idxs"]
    tokens = module.views(case.tensor("image"), indices)
    width = tokens.shape[-1]
    marks = torch.stack([view_embedding(index, width) for index in indices])
    if case.expected()["view_embed"].shape[0] == case.config["view_num"]:
        marks = torch.stack([view_embedding(i, width) for i in range(case.config["view_num"])])
    return {
        "tokens": tokens,
        "unconditional_shape": np.array(unconditional(tokens).shape),
        "view_embed": marks,
    }


def position_table(case: Case) -> Outputs:
    config = parse_section(Dinov2Config, "conditioner", case.config["dinov2"])
    module = Dinov2Embeddings(config)
    formula_weights.fill(module, case.prefix + "embeddings.")
    side = case.config["image_size"] // config.patch_size
    table = module.positions(side, side)
    return {"table_sub": table[:, ::37], "rows": np.array([table.shape[1]])}


def embed_time(case: Case) -> Outputs:
    config = case.config
    settings = {"max_period": config["max_period"], "time_factor": config["time_factor"]}
    inputs = {"embedding": "t", "guidance_embedding": "guidance"}
    return {
        name: timestep_embedding(case.tensor(key), config["dim"], **settings)
        for name, key in inputs.items()
        if case.has(key)
    }


def dit_block(case: Case) -> Outputs:
    data = {key: value for key, value in case.config.items() if key != "kind"}
    config = dit_config(data)
    if case.config["kind"] == "single":
        block = filled(case, SingleBlock(config))
        return {"x": block(case.tensor("x"), case.tensor("vec"))}
    block = filled(case, DoubleBlock(config))
    img, txt = block(case.tensor("img"), case.tensor("txt"), case.tensor("vec"))
    return {"img": img, "txt": txt}


def dit(case: Case) -> Outputs:
    network = filled(case, Hunyuan3DDiT(dit_config(case.config)))
    guidance = case.tensor("guidance") if case.has("guidance") else None
    return {"y": network(case.tensor("x"), case.tensor("t"), case.tensor("cond"), guidance)}


def schedule_config(data: Mapping[str, Any]) -> ScheduleConfig:
    keys = ("scheduler", "num_train_timesteps", "shift", "pcm_timesteps")
    return ScheduleConfig(**{key: data[key] for key in keys if data.get(key) is not None})


def schedule(case: Case) -> Outputs:
    config, steps = schedule_config(case.config), case.config["num_inference_steps"]
    return {"timesteps": config.timesteps(steps), "sigmas": config.sigmas(steps)}


def sampler(case: Case) -> Outputs:
    network = filled(case, Hunyuan3DDiT(dit_config(case.config["dit"])))
    velocity = GuidedVelocity(network, case.tensor("cond"), case.config["guidance_scale"])
    steps = case.config["num_inference_steps"]
    states = sample(velocity, case.tensor("latents"), schedule_config(case.config), steps)
    return {"trajectory": torch.stack(list(states))}


def fourier(case: Case) -> Outputs:
    return {"embedding": fourier_features(case.tensor("x"), case.config["num_freqs"])}


def vae_block(case: Case) -> Outputs:
    config = case.config
    block = SelfAttentionBlock(
        config["width"], config["heads"], qkv_bias=config["qkv_bias"], qk_norm=config["qk_norm"]
    )
    return {"y": filled(case, block)(case.tensor("x"))}


def geo_decoder(case: Case) -> Outputs:
    data = case.config
    config = ShapeVAEConfig(
        width=data["width"],
        heads=data["heads"],
        num_freqs=data["num_freqs"],
        qkv_bias=data["qkv_bias"],
        qk_norm=data["qk_norm"],
        geo_decoder_mlp_expand_ratio=data["mlp_expand_ratio"],
        geo_decoder_downsample_ratio=data["downsample_ratio"],
        geo_decoder_ln_post=data["enable_ln_post"],
    )
    decoder: GeometryDecoder = filled(case, GeometryDecoder(config))
    memory = decoder.remember(case.tensor("latents"))
    return {"logits": _like(case, "logits", decoder(case.tensor("queries"), memory))}


def _like(case: Case, output: str, logits: torch.Tensor) -> torch.Tensor:
    """Cases keep the channel axis of one logit."""
    return logits[..., None] if case.expected()[output].ndim > logits.ndim else logits


def vae(case: Case) -> Outputs:
    module: ShapeVAE = filled(case, ShapeVAE(vae_config(case.config)))
    tokens = module.decode(case.tensor("latents"))
    memory = module.geo_decoder.remember(tokens)
    logits = module.geo_decoder(case.tensor("queries"), memory)
    return {"tokens": tokens, "logits": _like(case, "logits", logits)}


def vae_encoder(case: Case) -> Outputs:
    if case.has("vertices"):
        scale = case.config["scale"]
        return {"normalised": normalize_vertices(case.input("vertices"), scale)}
    config = replace(vae_config(case.config), with_encoder=True)
    module: ShapeVAE = filled(case, ShapeVAE(config))
    if case.has("query_points"):
        queries, points = (
            torch.cat((case.tensor(f"{part}_points"), case.tensor(f"{part}_feats")), dim=-1)
            for part in ("query", "data")
        )
    else:
        order = case.tensor("permutation_random"), case.tensor("permutation_sharp")
        queries, points = select_points(case.tensor("surface"), config, order)
    mean, logvar = module.encode(queries, points)
    return {
        "query_points": queries[..., :3],
        "input_points": points[..., :3],
        "tokens": module.encoder(queries, points),
        "moments": module.pre_kl(module.encoder(queries, points)),
        "mean": mean,
        "logvar": logvar,
    }


def attention_topk(case: Case) -> Outputs:
    config = case.config
    q, k, v = case.tensor("q"), case.tensor("k"), case.tensor("v")
    if config["mode"] == "coarse":
        out = topk_attention(q, k, v, stride=config["stride"])
        return {"out_sub": out[:, :, ::10]}
    out = grouped_attention(q, k, v, counts=config["counts"], mode=config["topk_mode"])
    return {"out_sub": out[:, :, ::2]}
