"""Map each stage of the Hunyuan3D-2mini cases to our modules, built from the case's config."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any

import numpy as np
import torch
import trimesh
from numpy.typing import NDArray
from PIL import Image
from torch import nn

from dream_cad.mesh.cleanup import remove_degenerate_faces, remove_floaters, weld_vertices
from dream_cad.mesh.data import MeshData
from dream_cad.mesh.simplify import simplify
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
    ExactField,
    FlashField,
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
from dream_cad.surface.logit_grid import march_logits
from dream_cad.surface.marching import SurfaceMesh
from dream_cad.surface.volume import (
    VolumeSampler,
    adaptive_volume,
    grid_points,
    near_surface_mask,
)
from tests.reference import formula_weights
from tests.reference.cases import Case

Outputs = dict[str, Any]


def _filled(case: Case, module: nn.Module, prefix: str | None = None) -> Any:
    formula_weights.fill(module, case.prefix if prefix is None else prefix)
    return module.eval()


def _conditioner(data: Mapping[str, Any]) -> Conditioner:
    return Conditioner(
        ConditionerConfig(
            parse_section(Dinov2Config, "conditioner", data["dinov2"]),
            image_size=data["image_size"],
            use_cls_token=data["use_cls_token"],
        )
    )


def _dit_config(data: Mapping[str, Any]) -> DiTConfig:
    return parse_section(DiTConfig, "model", data)


def _vae_config(data: Mapping[str, Any]) -> ShapeVAEConfig:
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
    module: Conditioner = _filled(case, _conditioner(case.config))
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
    config = _dit_config(data)
    if case.config["kind"] == "single":
        block = _filled(case, SingleBlock(config))
        return {"x": block(case.tensor("x"), case.tensor("vec"))}
    block = _filled(case, DoubleBlock(config))
    img, txt = block(case.tensor("img"), case.tensor("txt"), case.tensor("vec"))
    return {"img": img, "txt": txt}


def dit(case: Case) -> Outputs:
    network = _filled(case, Hunyuan3DDiT(_dit_config(case.config)))
    guidance = case.tensor("guidance") if case.has("guidance") else None
    return {"y": network(case.tensor("x"), case.tensor("t"), case.tensor("cond"), guidance)}


def _schedule_config(data: Mapping[str, Any]) -> ScheduleConfig:
    keys = ("scheduler", "num_train_timesteps", "shift", "pcm_timesteps")
    return ScheduleConfig(**{key: data[key] for key in keys if data.get(key) is not None})


def schedule(case: Case) -> Outputs:
    config, steps = _schedule_config(case.config), case.config["num_inference_steps"]
    return {"timesteps": config.timesteps(steps), "sigmas": config.sigmas(steps)}


def sampler(case: Case) -> Outputs:
    network = _filled(case, Hunyuan3DDiT(_dit_config(case.config["dit"])))
    velocity = GuidedVelocity(network, case.tensor("cond"), case.config["guidance_scale"])
    steps = case.config["num_inference_steps"]
    states = sample(velocity, case.tensor("latents"), _schedule_config(case.config), steps)
    return {"trajectory": torch.stack(list(states))}


def fourier(case: Case) -> Outputs:
    return {"embedding": fourier_features(case.tensor("x"), case.config["num_freqs"])}


def vae_block(case: Case) -> Outputs:
    config = case.config
    block = SelfAttentionBlock(
        config["width"], config["heads"], qkv_bias=config["qkv_bias"], qk_norm=config["qk_norm"]
    )
    return {"y": _filled(case, block)(case.tensor("x"))}


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
    decoder: GeometryDecoder = _filled(case, GeometryDecoder(config))
    memory = decoder.remember(case.tensor("latents"))
    return {"logits": _like(case, "logits", decoder(case.tensor("queries"), memory))}


def _like(case: Case, output: str, logits: torch.Tensor) -> torch.Tensor:
    """Cases keep the channel axis of one logit."""
    return logits[..., None] if case.expected()[output].ndim > logits.ndim else logits


def vae(case: Case) -> Outputs:
    module: ShapeVAE = _filled(case, ShapeVAE(_vae_config(case.config)))
    tokens = module.decode(case.tensor("latents"))
    memory = module.geo_decoder.remember(tokens)
    logits = module.geo_decoder(case.tensor("queries"), memory)
    return {"tokens": tokens, "logits": _like(case, "logits", logits)}


def vae_encoder(case: Case) -> Outputs:
    if case.has("vertices"):
        scale = case.config["scale"]
        return {"normalised": normalize_vertices(case.input("vertices"), scale)}
    config = replace(_vae_config(case.config), with_encoder=True)
    module: ShapeVAE = _filled(case, ShapeVAE(config))
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


class _CaseField:
    """The decoder's field with the terms that the cases add to it."""

    def __init__(self, sampler: VolumeSampler, config: Mapping[str, Any]) -> None:
        self._sampler = sampler
        self._offset = float(config.get("offset", 0.0))
        self._ball = float(config.get("ball_gain", 0.0)), float(config.get("ball_radius", 0.0))
        self._gain = float(config.get("field_gain", 1.0))

    def coarse(self, points: torch.Tensor) -> torch.Tensor:
        return self._add(points, self._sampler.coarse(points))

    def fine(self, points: torch.Tensor) -> torch.Tensor:
        return self._add(points, self._sampler.fine(points))

    def _add(self, points: torch.Tensor, logits: torch.Tensor) -> torch.Tensor:
        gain, radius = self._ball
        ball = gain * (radius - points.norm(dim=-1))
        return ball + self._gain * logits - self._offset


def _grid(case: Case, module: ShapeVAE, latents: torch.Tensor) -> torch.Tensor:
    """The grid of a case; NaN where nothing was evaluated."""
    config = case.config
    memory = module.geo_decoder.remember(module.decode(latents))
    resolution, mode = config["octree_resolution"], config.get("topk_mode")
    if mode is None:
        field = _CaseField(ExactField(module.geo_decoder, memory), config)
        return field.coarse(grid_points(resolution, config["bounds"]))
    chunk = config["num_chunks"]
    if mode == "plain":
        sampler: VolumeSampler = ExactField(module.geo_decoder, memory, chunk)
    else:
        sampler = FlashField(module.geo_decoder, memory, mode, chunk)
    return adaptive_volume(
        _CaseField(sampler, config),
        resolution,
        bounds=config["bounds"],
        min_resolution=config["min_resolution"],
        cells=config["mini_grid_num"],
        level=config.get("mc_level", 0.0),
    )


def volume(case: Case) -> Outputs:
    if "level" in case.config and "vae" not in case.config:
        mask = near_surface_mask(case.tensor("grid"), case.config["level"])
        return {"mask": mask.to(torch.uint8)}
    module: ShapeVAE = _filled(case, ShapeVAE(_vae_config(case.config["vae"])))
    grid = _grid(case, module, case.tensor("latents")).numpy()
    missing = np.isnan(grid)
    values = grid[~missing]
    return {
        "grid": grid,
        "grid_sub": grid[::5, ::5, ::5],
        "grid_size": np.array(grid.shape),
        "count": np.array([values.size]),
        "values_sub": np.where(missing, np.float32(-10000), grid)[::5, ::5, ::5],
        "isnan_bits": np.packbits(missing),
        "values": values,
        "values_head": values[:2000],
    }


def mesh_facts(vertices: NDArray[Any], faces: NDArray[Any]) -> Outputs:
    mesh = trimesh.Trimesh(vertices, faces, process=False)
    merged = trimesh.Trimesh(vertices, faces, process=True)
    return {
        "counts": np.array([len(vertices), len(faces)]),
        "exported_counts": np.array([len(merged.vertices), len(merged.faces)]),
        "bounds": mesh.bounds.astype(np.float32),
        "area": np.array([mesh.area], np.float32),
        "volume": np.array([mesh.volume], np.float32),
        "vertices_head": vertices[:200],
    }


def _surface_mesh(case: Case, grid: NDArray[np.float32]) -> SurfaceMesh:
    config = case.config
    return march_logits(
        grid,
        bounds=config["bounds"],
        level=config.get("mc_level", 0.0),
        divisor=config["octree_resolution"] + 1,
    )


def surface(case: Case) -> Outputs:
    config = case.config
    extra: Outputs = {}
    if "vae" in config:
        module: ShapeVAE = _filled(case, ShapeVAE(_vae_config(config["vae"])))
        grid = _grid(case, module, case.tensor("latents")).numpy()
    elif "grid_size" in config:
        stored = sparse_grid(case)
        grid = stored
        extra["nan_vertices"] = case.expected()["nan_vertices"]
    else:
        grid = case.input("grid")
    mesh = _surface_mesh(case, grid)
    # `faces` of a given grid are those before the reversal, as the cases store them.
    faces = {"vertices": mesh.vertices, "faces": mesh.faces[:, ::-1]}
    return faces | mesh_facts(mesh.vertices, mesh.faces) | extra


def sparse_grid(case: Case) -> NDArray[np.float32]:
    """The grid that another case evaluated, rebuilt from its stored values."""
    with np.load(case.folder / "volume_adaptive_exact.npz") as stored:
        side = case.config["grid_size"]
        missing = np.unpackbits(stored["isnan_bits"])[: side**3].astype(bool)
        grid = np.full(side**3, np.nan, np.float32)
        grid[~missing] = stored["values"]
    return grid.reshape(side, side, side)


def postprocess(case: Case) -> Outputs:
    mesh = MeshData(case.input("vertices"), case.input("faces").astype(np.int32))
    if "face_ratio" in case.config:
        done = remove_floaters(mesh, case.config["face_ratio"])
    elif "max_faces" in case.config:
        done = simplify(mesh, case.config["max_faces"])
    else:
        done = remove_degenerate_faces(weld_vertices(mesh))
    unchanged = simplify(mesh, 5000) if "max_faces" in case.config else mesh
    facts = mesh_facts(done.vertices, done.faces)
    return facts | {"unchanged_counts": np.array([len(unchanged.vertices), len(unchanged.faces)])}


def end_to_end(case: Case) -> Outputs:
    config, prefixes = case.config, case.config["prefixes"]
    encoder = _conditioner(config["conditioner"])
    formula_weights.fill(encoder, prefixes["conditioner"])
    network = _filled(case, Hunyuan3DDiT(_dit_config(config["dit"])), prefixes["dit"])
    module: ShapeVAE = _filled(case, ShapeVAE(_vae_config(config["vae"])), prefixes["vae"])
    picture, _ = prepare_image(
        Image.fromarray(case.input("image")),
        size=config["image_size"],
        border_ratio=config["border_ratio"],
    )
    tokens = encoder.eval()(picture)
    velocity = GuidedVelocity(network, tokens, config["guidance_scale"])
    times = _schedule_config(config)
    *_, latents = sample(velocity, case.tensor("latents"), times, config["num_inference_steps"])
    grid = _grid(case, module, latents / module.config.scale_factor).numpy()
    mesh = _surface_mesh(case, grid)
    missing = np.isnan(grid)
    return mesh_facts(mesh.vertices, mesh.faces) | {
        "tokens_sub": tokens[:, ::4],
        "latents_out": latents,
        "grid_sub": grid[::5, ::5, ::5] + np.float32(config.get("offset", 0.0)),
        "grid_size": np.array(grid.shape),
        "count": np.array([np.count_nonzero(~missing)]),
    }


def attention_topk(case: Case) -> Outputs:
    config = case.config
    q, k, v = case.tensor("q"), case.tensor("k"), case.tensor("v")
    if config["mode"] == "coarse":
        out = topk_attention(q, k, v, stride=config["stride"])
        return {"out_sub": out[:, :, ::10]}
    out = grouped_attention(q, k, v, counts=config["counts"], mode=config["topk_mode"])
    return {"out_sub": out[:, :, ::2]}


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
