"""Stages of the Hunyuan3D-Paint cases that are geometry: cameras, maps, baking, inpainting."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image

from dream_cad.models.hunyuan3d_mini.paint.back_projection import (
    ProjectedView,
    back_project,
    blend,
    depth_edges,
    splat,
)
from dream_cad.models.hunyuan3d_mini.paint.cameras import (
    CameraMatrices,
    PaintCamera,
    camera_label,
    camera_matrices,
    orthographic,
    view_matrix,
)
from dream_cad.models.hunyuan3d_mini.paint.inpaint import (
    TexturedFaces,
    diffuse_over_mesh,
    fill_texels,
)
from dream_cad.models.hunyuan3d_mini.paint.maps import (
    RenderMesh,
    as_uint8,
    depth_map,
    normal_map,
    position_map,
    render_mesh,
    render_view,
    resize,
)
from dream_cad.models.hunyuan3d_mini.paint.rasterize import interpolate, rasterize
from dream_cad.models.hunyuan3d_mini.paint.recentre import recentre
from dream_cad.models.hunyuan3d_mini.paint.unwrapped import unwrap_for_paint
from tests.reference.cases import Case

Outputs = dict[str, Any]

# The camera that looks beside the origin; its case names it in words only.
_OFF_CENTRE = {"elevation": 15, "azimuth": 40, "distance": 2.0, "center": (0.1, -0.2, 0.3)}


def camera(case: Case) -> Outputs:
    config = case.config
    if "pairs" in config:
        return {"index": np.array([camera_label(*pair) for pair in config["pairs"]])}
    views = [view_matrix(*view, distance=config["distance"]) for view in config["views"]]
    return {
        "mv": np.stack(views),
        "ortho": orthographic(config["ortho_scale"], config["near"], config["far"]),
        "mv_center": view_matrix(**_OFF_CENTRE),  # type: ignore[arg-type]
    }


def rasterizer(case: Case) -> Outputs:
    clip, faces = case.tensor("pos"), case.tensor("tri").long()
    drawn = rasterize(clip, faces, case.config["height"], case.config["width"])
    values = interpolate(drawn, faces, case.tensor("col")[0])
    return {"face": drawn.face, "bary": drawn.weights, "interp": values[None]}


def loaded_mesh(case: Case) -> RenderMesh:
    arrays = [case.input(name) for name in ("vertices", "faces", "uv")]
    return render_mesh(*arrays)


def set_mesh(case: Case) -> Outputs:
    arrays = [case.input(name) for name in ("vertices", "faces", "uv")]
    mesh = render_mesh(*arrays, diameter=case.config["scale_factor"])
    return {"pos": mesh.positions, "uv": mesh.uvs}


def matrices(view: tuple[int, int]) -> CameraMatrices:
    return camera_matrices(PaintCamera(*view, weight=1.0))


def render(case: Case) -> Outputs:
    config, mesh = case.config, loaded_mesh(case)
    if "size" in config:
        pictures = {}
        for name, draw in (("normal", normal_map), ("position", position_map)):
            seen = render_view(mesh, matrices(config[f"{name}_view"]), config["render"])
            pictures[name] = resize(as_uint8(draw(mesh, seen)), config["size"])
        return pictures
    seen = [render_view(mesh, matrices(view), config["resolution"]) for view in config["views"]]
    normals = torch.stack([normal_map(mesh, view) for view in seen])
    positions = torch.stack([position_map(mesh, view) for view in seen])
    return {
        "normal": normals,
        "position": positions,
        "depth": torch.stack([depth_map(mesh, view)[..., None] for view in seen]),
        "normal_u8": as_uint8(normals),
        "position_u8": as_uint8(positions),
    }


def waves(index: int, size: int) -> torch.Tensor:
    """The picture of view ``index`` that the back projection cases are made with."""
    y, x = np.meshgrid(*[np.linspace(0, 1, size)] * 2, indexing="ij")
    parts = [np.sin(7 * x + index), np.cos(5 * y + 2 * index), np.sin(9 * (x + y) - index)]
    picture = np.round(255 * (0.5 + 0.5 * np.stack(parts, axis=-1)))
    return torch.from_numpy((picture / 255).astype(np.float32))


def bake(case: Case) -> Outputs:
    config = case.config
    if "H" in config:
        return {
            "grid": splat(case.tensor("coords"), case.tensor("values"), config["H"], config["W"])
        }
    if "weights" in config:
        return blended(case)
    mesh = loaded_mesh(case)
    if "view" in config:
        seen = render_view(mesh, matrices(config["view"]), config["resolution"])
        return {"sketch": (depth_edges(mesh, seen) / 255.0)[..., None]}
    size, put = config["render"], []
    for i, view in enumerate(config["views"]):
        seen = render_view(mesh, matrices(view), size)
        put.append(back_project(mesh, seen, waves(i, size), config["texture"]))
    cosine = torch.stack([view.cosine[..., None] for view in put])
    return {
        "texture": torch.stack([view.texture for view in put]),
        "cos": cosine,
        "boundary": torch.zeros_like(cosine),
    }


def blended(case: Case) -> Outputs:
    """Blend the stored views; the skip case changes weight maps by way of their cosines."""
    weights, power = list(case.config["weights"]), case.config["exp"]
    textures, cosines = case.tensor("texture"), case.tensor("cos")[..., 0]
    if "skip" in case.name:
        half = cosines[0].clone()
        half[len(half) // 2 :] = 0
        # A weight is weight * cosine ** power: the cosine that makes the weight asked for.
        cosines[1] = cosines[0] * (0.5 * weights[0] / weights[1]) ** (1 / power)
        cosines[4] = half * (2.0 * weights[0] / weights[4]) ** (1 / power)
    views = [ProjectedView(*pair) for pair in zip(textures, cosines, strict=True)]
    texture, mask = blend(views, weights)
    return {"texture": texture, "mask": mask[..., None]}


def textured_faces(case: Case) -> TexturedFaces:
    if case.has("pos_idx"):
        names = ("pos", "pos_idx", "uv", "uv_idx")
    else:
        names = ("vertices", "faces", "uv", "faces")
    return TexturedFaces(*(case.input(name) for name in names))


def inpaint(case: Case) -> Outputs:
    painted = case.input("mask") > 0
    texture, mask = diffuse_over_mesh(case.input("texture"), painted, textured_faces(case))
    if "radius" in case.config:
        filled = fill_texels(texture, mask)
        return {"inpainted": filled, "saved": filled}
    mask255: NDArray[np.uint8] = mask.astype(np.uint8) * 255
    return {"texture": texture, "mask": mask255, "texture_cpp": texture, "mask_cpp": mask255}


def image(case: Case) -> Outputs:
    picture = Image.fromarray(case.input("image"))
    return {"image": np.asarray(recentre(picture, border_ratio=case.config["border_ratio"]))}


def uv(case: Case) -> Outputs:
    """Checked as a contract: charts differ between versions of xatlas."""
    vertices, faces = case.input("vertices"), case.input("faces")
    mesh = unwrap_for_paint(vertices, faces)
    assert np.array_equal(mesh.vertices[mesh.faces], vertices[faces])
    return {"vertices": mesh.vertices, "faces": mesh.faces, "uv": mesh.uvs}


GEOMETRY_STAGES: dict[str, Callable[[Case], Outputs]] = {
    "camera": camera,
    "rasterizer": rasterizer,
    "mesh": set_mesh,
    "render": render,
    "bake": bake,
    "inpaint": inpaint,
    "image": image,
    "uv": uv,
}
