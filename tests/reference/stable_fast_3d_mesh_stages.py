"""The mesh stages of the Stable Fast 3D cases: unwrapping, rasterising, filling."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import trimesh
from numpy.typing import NDArray

from dream_cad.mesh import box_unwrap
from dream_cad.mesh.bake import bake_normal_map
from dream_cad.mesh.data import MeshData
from dream_cad.mesh.normals import indexed_normals
from dream_cad.mesh.remesh import remesh
from dream_cad.mesh.tangents import published_tangents
from dream_cad.mesh.texels import rasterize_texels
from dream_cad.mesh.texture_fill import dilate, dilation_rounds, to_uint8
from dream_cad.mesh.uv_overlap import triangles_overlap
from dream_cad.surface.marching_tets import march_tets
from dream_cad.surface.tet_grid import TetGrid, tet_grid
from tests.reference.cases import Case

Outputs = dict[str, Any]

# The cases' notes: an exact overlap test gives nearly the layers that upstream's rounding gave.
MIN_SAME_LAYER = 0.98
MIN_SAME_UV = 0.97
# Another layer of one face stretches its neighbours' by this much at most.
_LAYER_STRETCH = 0.01
_AREA_TOLERANCE = 0.05
# Spec, section 12: (x, y, z) -> (-y, z, -x); half a turn from the frame of our own exports.
GLTF_FROM_PUBLISHED = np.array([[0, -1, 0], [0, 0, 1], [-1, 0, 0]], dtype=np.float32)


def vertex_normals(case: Case) -> Outputs:
    vertices, faces = case.input("v_pos"), case.input("t_pos_idx")
    pairs = np.concatenate([faces[:, [0, 1]], faces[:, [1, 2]], faces[:, [2, 0]]])
    return {
        "v_scaled": vertices,  # stored after scaling
        "v_nrm": indexed_normals(vertices, faces),
        "edges": np.unique(np.sort(pairs, axis=1), axis=0),
    }


def mesh_after_unwrap(case: Case) -> Outputs:
    """Normals and tangents are those of the stored UV; ``v_tex`` is our own."""
    vertices, faces = case.input("v_pos"), case.input("t_pos_idx")
    atlas = box_unwrap.box_project_unwrap(
        vertices,
        faces,
        indexed_normals(vertices, faces),
        island_padding=case.config["island_padding"],
    )
    split = vertices[atlas.vmapping]
    normals = indexed_normals(split, atlas.faces)
    stored = case.expected()["v_tex"]
    return {
        "v_pos_split": split,
        "v_tex": atlas.uvs,
        "v_nrm": normals,
        "v_tng": published_tangents(split, atlas.faces, stored[atlas.faces], normals),
    }


def uv_unwrap(case: Case) -> Outputs:
    """Every step of the unwrap starts from the stored result of the step before it."""
    if case.has("pairs"):
        pairs = case.input("pairs")
        return {"overlap": triangles_overlap(pairs[:, 0], pairs[:, 1])}
    vertices, faces = case.input("v_pos"), case.input("t_pos_idx")
    want = case.expected()
    normals = indexed_normals(vertices, faces)
    positions, directions = box_unwrap.align(vertices, normals)
    stored = want["rot_pos"], want["rot_nrm"]
    side, face_uvs = box_unwrap.project_on_box(*stored, faces)
    rotated = box_unwrap.rotate_sides(*stored, faces, want["face_uv_box"], want["cube_face"])
    layer = box_unwrap.assign_layers(
        want["rot_pos"], faces, want["face_uv_rotated"], want["cube_face"]
    )
    placed = box_unwrap.place(
        want["face_uv_rotated"],
        want["atlas_index"],
        island_padding=case.config["island_padding"],
    )
    return {
        "v_nrm": normals,
        "rot_pos": same_signs(positions, want["rot_pos"]),
        "rot_nrm": same_signs(directions, want["rot_nrm"]),
        "face_uv_box": face_uvs,
        "cube_face": side,
        "face_uv_rotated": rotated,
        "atlas_index": layer,
        "placed_uv": placed,
    }


def same_signs(actual: NDArray[Any], want: NDArray[Any]) -> NDArray[Any]:
    """Turn axes around whose sign another LAPACK chose otherwise."""
    return actual * np.sign((actual * want).sum(axis=0))


def texture_bake(case: Case) -> Outputs:
    if case.has("image"):
        image, mask = case.input("image")[0], case.input("mask")[0, 0]
        grown = dilate(image.transpose(1, 2, 0), mask, case.config["iterations"])
        return {"out": grown.transpose(2, 0, 1)[None]}
    uvs, positions = case.input("v_tex"), case.input("v_pos")
    faces = np.arange(len(uvs), dtype=np.int32).reshape(-1, 3)
    texels = rasterize_texels(
        faces, uvs, texture_size=case.config["bake_resolution"], sample_at="corner"
    )
    seen = np.column_stack([texels.weights, texels.face.astype(np.float32)])
    return {
        "rast": texels.to_image(seen, (0, 0, 0, -1)),
        "mask": texels.mask,
        "pos": texels.to_image(texels.interpolate(positions)),
    }


def dither_uint8(case: Case) -> Outputs:
    plain, flat = case.input("x"), case.input("x_flat")
    seed = case.config["seed"]
    is_flat = (flat == np.array([0.5, 0.5, 1.0], np.float32)).all(axis=-1)
    return {
        "u8": to_uint8(plain, legacy_random(seed)),
        "u8_masked": to_uint8(flat, legacy_random(seed), where=is_flat),
    }


def legacy_random(seed: int) -> np.random.RandomState:
    """The generator behind ``numpy.random.seed``, which the cases were made with."""
    return np.random.RandomState(seed)


def same_fraction(got: NDArray[Any], want: NDArray[Any]) -> float:
    """The share of faces whose corners lie where they should, up to a layer's stretch."""
    off = np.abs(got - want).reshape(-1, 6).max(axis=1)
    return float((off < _LAYER_STRETCH).mean())


def remesh_facts(case: Case) -> dict[str, trimesh.Trimesh]:
    """Our meshes by the names of the case's ``stats``; quads are not built (see ``remesh``)."""
    mesh = MeshData(case.input("v_pos"), case.input("t_pos_idx"))
    meshes = {}
    for name in case.data["stats"]:
        mode, _, target = name.partition("_")
        if mode == "triangle":
            wanted = int(target) if int(target) > 0 else None
            result = remesh(mesh, "triangle", target_vertices=wanted)
            meshes[name] = trimesh.Trimesh(result.vertices, result.faces, process=False)
    return meshes


def check_remesh(case: Case) -> None:
    """Vertices within the case's tolerance, area within 5 %, watertight (the case's note)."""
    meshes = remesh_facts(case)
    assert meshes
    for name, mesh in meshes.items():
        want = case.data["stats"][name]
        assert len(mesh.vertices) == pytest.approx(want["vertices"], rel=case.data["rtol"]), name
        assert mesh.area == pytest.approx(want["area"], rel=_AREA_TOLERANCE), name
        assert mesh.is_watertight == want["watertight"], name
        assert mesh.euler_number == want["euler"], name


def published_textures(
    vertices: NDArray[Any],
    faces: NDArray[Any],
    face_uvs: NDArray[Any],
    query: Callable[[NDArray[Any]], tuple[NDArray[Any], ...]],
    size: int,
) -> Outputs:
    """Bake and export as published: flat inward normals, texel corners, legacy dither."""
    atlas = box_unwrap.split_corners(faces, face_uvs)
    split = vertices[atlas.vmapping]
    normals = indexed_normals(split, atlas.faces)
    tangents = published_tangents(split, atlas.faces, atlas.uvs[atlas.faces], normals)
    texels = rasterize_texels(atlas.faces, atlas.uvs, texture_size=size, sample_at="corner")
    albedo, bumps = query(texels.interpolate(split))
    bump = bake_normal_map(texels, bumps, normals, tangents)
    random = legacy_random(0)
    grown = [
        dilate(image, texels.mask, dilation_rounds(size))
        for image in (texels.to_image(albedo), bump)
    ]
    is_flat = (grown[1] == np.array([0.5, 0.5, 1.0], np.float32)).all(axis=-1)
    return {
        "out_v": vertices @ GLTF_FROM_PUBLISHED.T,
        "out_f": faces,
        "bake_mask": texels.mask,
        "base_u8": to_uint8(grown[0], random),
        "bump_u8": to_uint8(grown[1], random, where=is_flat),
    }


def real_grid(case: Case) -> Outputs:
    """The analytic field of the case on the full grid; checks its statistics on the way."""
    grid = tet_grid(case.config["resolution"])
    radius = case.config["radius"]
    stats = case.data["stats"]["formula_grid"]
    check_grid(grid, stats)
    x, y, z = (2 * radius * grid.vertices.astype(np.float64) - radius).T
    wave = 0.08 * np.sin(6 * x + 1) * np.cos(5 * y) * np.sin(4 * z + 0.5)
    level = (0.55 - np.sqrt(x**2 + 1.3 * y**2 + 0.8 * z**2) + wave).astype(np.float32)
    raw = np.stack([np.sin(40 * x), np.cos(35 * y), np.sin(30 * z + 1)], axis=1)
    assert int((level > 0).sum()) == stats["inside_vertices"]
    plain = march_tets(grid, level)
    moved = march_tets(grid, level, lambda used: raw[used].astype(np.float32))
    for made, facts in ((plain, stats["mesh_without_deformation"]), (moved, stats["mesh"])):
        mesh = trimesh.Trimesh(2 * radius * made.vertices - radius, made.faces, process=False)
        assert (len(mesh.vertices), len(mesh.faces)) == (facts["vertices"], facts["faces"])
        assert mesh.area == pytest.approx(facts["area"], rel=1e-4)
        assert mesh.volume == pytest.approx(facts["signed_volume"], rel=1e-4)
        assert (mesh.is_watertight, mesh.euler_number) == (facts["watertight"], facts["euler"])
    vertices = np.float32(2 * radius) * moved.vertices - np.float32(radius)
    normals = indexed_normals(vertices, moved.faces)
    positions, directions = box_unwrap.align(vertices, normals)
    side, uvs = box_unwrap.project_on_box(positions, directions, moved.faces)
    uvs = box_unwrap.rotate_sides(positions, directions, moved.faces, uvs, side)
    layer = box_unwrap.assign_layers(positions, moved.faces, uvs, side)
    return {"atlas_hist": np.bincount(layer, minlength=13)}


def check_grid(grid: TetGrid, stats: dict[str, Any]) -> None:
    """Vertices and tetrahedra are the published ones, whatever their order."""
    whole = np.rint(grid.vertices.astype(np.float64) * grid.resolution).astype(np.int64)
    code = (whole[:, 0] * 1000 + whole[:, 1]) * 1000 + whole[:, 2]
    tets = np.sort(code[grid.tets], axis=1)
    tets = tets[np.lexsort(tets.T[::-1])]
    assert len(grid.vertices) == stats["grid_vertices"]
    assert len(grid.tets) == stats["tets"]
    for array, name in ((np.sort(code), "vertices"), (tets, "tets")):
        digest = hashlib.sha256(np.ascontiguousarray(array, dtype="<i8").tobytes()).hexdigest()
        assert digest == stats[f"sha256_{name}"]
