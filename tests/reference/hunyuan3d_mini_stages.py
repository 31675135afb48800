"""Map each stage of the Hunyuan3D-2mini cases to our modules, built from the case's config."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from PIL import Image

from dream_cad.models.hunyuan3d_mini.dit import Hunyuan3DDiT
from dream_cad.models.hunyuan3d_mini.preprocess import prepare_image
from dream_cad.models.hunyuan3d_mini.schedule import GuidedVelocity, sample
from dream_cad.models.hunyuan3d_mini.shape_vae import ShapeVAE
from tests.reference import formula_weights
from tests.reference.cases import Case
from tests.reference.hunyuan3d_mini_mesh_stages import (
    evaluate_grid,
    mesh_facts,
    postprocess,
    surface,
    surface_mesh,
    volume,
)
from tests.reference.hunyuan3d_mini_networks import (
    Outputs,
    attention_topk,
    build_conditioner,
    conditioner,
    dit,
    dit_block,
    dit_config,
    embed_time,
    filled,
    fourier,
    geo_decoder,
    position_table,
    preprocess,
    sampler,
    schedule,
    schedule_config,
    vae,
    vae_block,
    vae_config,
    vae_encoder,
)


def end_to_end(case: Case) -> Outputs:
    config, prefixes = case.config, case.config["prefixes"]
    encoder = build_conditioner(config["conditioner"])
    formula_weights.fill(encoder, prefixes["conditioner"])
    network = filled(case, Hunyuan3DDiT(dit_config(config["dit"])), prefixes["dit"])
    module: ShapeVAE = filled(case, ShapeVAE(vae_config(config["vae"])), prefixes["vae"])
    picture, _ = prepare_image(
        Image.fromarray(case.input("image")),
        size=config["image_size"],
        border_ratio=config["border_ratio"],
    )
    tokens = encoder.eval()(picture)
    velocity = GuidedVelocity(network, tokens, config["guidance_scale"])
    times = schedule_config(config)
    *_, latents = sample(velocity, case.tensor("latents"), times, config["num_inference_steps"])
    grid = evaluate_grid(case, module, latents / module.config.scale_factor).numpy()
    mesh = surface_mesh(case, grid)
    missing = np.isnan(grid)
    return mesh_facts(mesh.vertices, mesh.faces) | {
        "tokens_sub": tokens[:, ::4],
        "latents_out": latents,
        "grid_sub": grid[::5, ::5, ::5] + np.float32(config.get("offset", 0.0)),
        "grid_size": np.array(grid.shape),
        "count": np.array([np.count_nonzero(~missing)]),
    }


STAGES: dict[str, Callable[[Case], Outputs]] = {
    "preprocess": preprocess,
    "conditioner": conditioner,
    "position_table": position_table,
    "timestep_embedding": embed_time,
    "dit_block": dit_block,
    "dit": dit,
    "schedule": schedule,
    "sampler": sampler,
    "fourier": fourier,
    "vae": vae,
    "vae_block": vae_block,
    "geo_decoder": geo_decoder,
    "vae_encoder": vae_encoder,
    "volume": volume,
    "surface": surface,
    "postprocess": postprocess,
    "end_to_end": end_to_end,
    "attention_topk": attention_topk,
}
