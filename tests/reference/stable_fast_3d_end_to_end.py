"""The end-to-end cases of Stable Fast 3D: one RGBA crop to planes, and on to the mesh."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from PIL import Image

from dream_cad.models.stable_fast_3d.config import StableFast3DConfig
from dream_cad.models.stable_fast_3d.field import SceneField
from dream_cad.models.stable_fast_3d.network import StableFast3DNetwork
from dream_cad.models.stable_fast_3d.preprocess import condition_image, to_batch
from dream_cad.models.stable_fast_3d.surface import extract
from dream_cad.surface.tet_grid import tet_grid
from tests.reference.cases import Case
from tests.reference.stable_fast_3d_mesh_stages import published_textures

Outputs = dict[str, Any]


def _network(case: Case) -> StableFast3DNetwork:
    config = {key: value for key, value in case.config.items() if key != "bake_resolution"}
    network = StableFast3DNetwork(StableFast3DConfig.from_mapping(config))
    box = network.bbox.clone()
    case.fill(network)
    network.bbox.copy_(box)
    return network


def end_to_end(case: Case) -> Outputs:
    network = _network(case)
    config = network.config
    picture = condition_image(
        Image.fromarray(case.input("rgba"), "RGBA"), config.cond_image_size, config.background_color
    )
    images = to_batch([picture.rgb], config.cond_image_size)
    mask = to_batch([picture.mask], config.cond_image_size)
    direct = network.direct_codes(images)
    planes = network.scene_codes(direct)
    field = SceneField(planes[0], network.decoder, radius=config.radius)
    if "density" in case.expected():
        points = torch.from_numpy(2 * tet_grid(config.isosurface_resolution).vertices - 1)
        found = field.query(points * config.radius, "density", "vertex_offset")
        return {
            "rgb_cond": picture.rgb,
            "direct_codes": direct[0],
            "scene_codes": planes[0],
            "density": found["density"][:, 0],
            "vertex_offset": found["vertex_offset"],
        }
    surface = extract(
        field, resolution=config.isosurface_resolution, threshold=config.isosurface_threshold
    )
    at_vertices = field.query(torch.from_numpy(surface.vertices), "features", "perturb_normal")
    material = network.image_estimator(images * mask)
    assert network.global_estimator is not None
    return {
        "mt_v": surface.vertices,
        "mt_f": surface.faces,
        "albedo_at_mt_v": at_vertices["features"],
        "perturb_normal_at_mt_v": at_vertices["perturb_normal"],
        "roughness": material["roughness"][0],
        "metallic": material["metallic"][0],
        "sg_amplitudes": network.global_estimator(direct),
    } | bake(case, field, surface.vertices, surface.faces)


def bake(
    case: Case, field: SceneField, vertices: np.ndarray[Any, Any], faces: np.ndarray[Any, Any]
) -> Outputs:
    """The published textures on the stored layout, whose layers depend on rounding."""
    want = case.expected()
    face_uvs = want["out_uv"][want["out_f"]][:, ::-1]  # exported faces are reversed

    def query(points: np.ndarray[Any, Any]) -> tuple[np.ndarray[Any, Any], ...]:
        found = field.query(torch.from_numpy(points), "features", "perturb_normal")
        return found["features"].numpy(), found["perturb_normal"].numpy()

    return published_textures(vertices, faces, face_uvs, query, case.config["bake_resolution"])
