"""Stages of the Hunyuan3D-2mini cases from the latents to the mesh."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
import trimesh
from numpy.typing import NDArray

from dream_cad.mesh.cleanup import remove_degenerate_faces, remove_floaters, weld_vertices
from dream_cad.mesh.data import MeshData
from dream_cad.mesh.simplify import simplify
from dream_cad.models.hunyuan3d_mini.field import (
    ExactField,
    FlashField,
)
from dream_cad.models.hunyuan3d_mini.shape_vae import ShapeVAE
from dream_cad.surface.logit_grid import march_logits
from dream_cad.surface.marching import SurfaceMesh
from dream_cad.surface.volume import (
    VolumeSampler,
    adaptive_volume,
    grid_points,
    near_surface_mask,
)
from tests.reference.cases import Case
from tests.reference.hunyuan3d_mini_networks import Outputs, filled, vae_config


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


def evaluate_grid(case: Case, module: ShapeVAE, latents: torch.Tensor) -> torch.Tensor:
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
    module: ShapeVAE = filled(case, ShapeVAE(vae_config(case.config["vae"])))
    grid = evaluate_grid(case, module, case.tensor("latents")).numpy()
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


def surface_mesh(case: Case, grid: NDArray[np.float32]) -> SurfaceMesh:
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
        module: ShapeVAE = filled(case, ShapeVAE(vae_config(config["vae"])))
        grid = evaluate_grid(case, module, case.tensor("latents")).numpy()
    elif "grid_size" in config:
        stored = sparse_grid(case)
        grid = stored
        extra["nan_vertices"] = case.expected()["nan_vertices"]
    else:
        grid = case.input("grid")
    mesh = surface_mesh(case, grid)
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
