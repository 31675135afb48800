"""The part after the network at 20,000 faces: unwrap, bake, export; against plain loops.

``python -m benchmarks.texturing [--faces 20000] [--size 1024] [--runs 3]`` writes
results/texturing.json. Albedo and normals are formulas instead of a network's, the same for both
ways. CPU seconds stand beside wall seconds because they hardly depend on what else runs. The
layouts are compared on three shapes: coverage, overlapping texels, how evenly texels are spread
(5th and 95th percentile of texels per area over the mean, weighted by area), the vertices that an
engine gets, and the error of a fine pattern read back from a baked map, which says how sharp a
texture of that size is. Coverage and overlap are taken on 24 procedural objects as well.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.ndimage import map_coordinates
from scipy.spatial import cKDTree
from skimage.measure import marching_cubes

from benchmarks import texturing_reference
from benchmarks.environment import describe_machine, summarize, write_result
from dream_cad.mesh.bake import bake_normal_map
from dream_cad.mesh.box_unwrap import box_project_unwrap
from dream_cad.mesh.data import MeshData
from dream_cad.mesh.export import mesh_bytes
from dream_cad.mesh.normals import indexed_normals, vertex_normals
from dream_cad.mesh.packed_unwrap import packed_unwrap
from dream_cad.mesh.simplify import simplify
from dream_cad.mesh.tangents import encode_tangent_space, vertex_tangents
from dream_cad.mesh.texels import count_overlaps, rasterize_texels
from dream_cad.mesh.texture_fill import dilate, dilation_rounds, to_uint8
from dream_cad.mesh.unwrap import UvAtlas, unwrap_uv
from jobs.nano.catalogue import CATEGORIES
from jobs.nano.measure import held_out_items
from jobs.nano.truth import truth_mesh

PADDING = 4
GRID = 110
Unwrap = Callable[[MeshData, int], UvAtlas]


def blob(x: Any, y: Any, z: Any) -> Any:
    """The smooth shape of the reference case real_grid_160."""
    wave = 0.08 * np.sin(6 * x + 1) * np.cos(5 * y) * np.sin(4 * z + 0.5)
    return 0.55 - np.sqrt(x**2 + 1.3 * y**2 + 0.8 * z**2) + wave


def chair(x: Any, y: Any, z: Any) -> Any:
    """A seat, a back and four legs."""
    boxes: list[tuple[tuple[float, ...], tuple[float, ...]]]
    boxes = [((0, 0, 0), (0.5, 0.5, 0.06)), ((-0.45, 0, 0.45), (0.06, 0.5, 0.5))]
    boxes += [((a, b, -0.4), (0.06, 0.06, 0.4)) for a in (-0.42, 0.42) for b in (-0.42, 0.42)]
    sides = [
        np.maximum.reduce([abs(p - c) - h for p, c, h in zip((x, y, z), centre, half, strict=True)])
        for centre, half in boxes
    ]
    return -np.minimum.reduce(sides)


def knot(x: Any, y: Any, z: Any) -> Any:
    """A tube along a trefoil: thin and bent everywhere, the hard case for packing."""
    t = np.linspace(0, 2 * np.pi, 400)
    line = [np.sin(t) + 2 * np.sin(2 * t), np.cos(t) - 2 * np.cos(2 * t), -np.sin(3 * t)]
    points = np.stack([x, y, z], axis=-1).reshape(-1, 3)
    distance = cKDTree(0.27 * np.stack(line, axis=1)).query(points)[0]
    return 0.13 - distance.reshape(x.shape)


SHAPES = {"blob": blob, "chair": chair, "knot": knot}
LAYOUTS: dict[str, Unwrap] = {
    "packed": lambda mesh, size: packed_unwrap(
        mesh.vertices, mesh.faces, texture_size=size, padding=PADDING
    ),
    "box": lambda mesh, size: box_project_unwrap(
        mesh.vertices, mesh.faces, indexed_normals(mesh.vertices, mesh.faces)
    ),
    "xatlas": lambda mesh, size: unwrap_uv(
        mesh.vertices, mesh.faces, texture_size=size, padding=PADDING
    ),
}


def build(name: str, faces: int) -> MeshData:
    """Return a shape with about so many faces."""
    axis = np.linspace(-1, 1, GRID)
    field = SHAPES[name](*np.meshgrid(axis, axis, axis, indexing="ij"))
    vertices, corners, _, _ = marching_cubes(field, 0.0, spacing=(2 / (GRID - 1),) * 3)
    dense = MeshData((vertices - 1).astype(np.float32), corners.astype(np.int32))
    return simplify(dense, faces)


def albedo(points: NDArray[np.float32]) -> NDArray[np.float32]:
    """Colours (P, 3) at points, in the network's place."""
    colors: NDArray[np.float32] = 0.5 + 0.5 * np.sin(points * np.float32(9) + np.float32(1))
    return colors


def bumps(points: NDArray[np.float32]) -> NDArray[np.float32]:
    """Wanted normals (P, 3) beside the surface's own, in the network's place."""
    wanted: NDArray[np.float32] = np.float32(0.2) * np.sin(points * np.float32(40))
    return wanted


def export(mesh: MeshData, atlas: UvAtlas, color: Any, normal: Any) -> bytes:
    """Return the GLB of a textured mesh."""
    flat = (normal == 0).all(axis=-1, keepdims=True)
    finished = replace(
        mesh,
        vertices=mesh.vertices[atlas.vmapping],
        faces=atlas.faces,
        uv_coords=atlas.uvs,
        texture=to_uint8(color),
        materials={
            "normal_texture": to_uint8(np.where(flat, np.array([0.5, 0.5, 1], np.float32), normal)),
            "roughness": 0.6,
            "metallic": 0.1,
        },
    )
    return mesh_bytes(finished, "glb")


def fast(mesh: MeshData, unwrap: Unwrap, size: int) -> tuple[bytes, Any, dict[str, float]]:
    """Unwrap, bake and export; returns the GLB, the maps and seconds by step."""
    laps = _Laps()
    atlas = unwrap(mesh, size)
    laps.lap("unwrap")
    vertices = mesh.vertices[atlas.vmapping]
    normals = vertex_normals(vertices, atlas.faces)
    tangents = vertex_tangents(vertices, atlas.faces, atlas.uvs, normals)
    texels = rasterize_texels(atlas.faces, atlas.uvs, texture_size=size)
    points = texels.interpolate(vertices)
    wanted = texels.interpolate(normals) + bumps(points)
    rounds, mask = dilation_rounds(size), texels.mask
    color = dilate(texels.to_image(albedo(points)), mask, rounds)
    normal = dilate(bake_normal_map(texels, wanted, normals, tangents), mask, rounds)
    laps.lap("bake")
    content = export(mesh, atlas, color, normal)
    laps.lap("export")
    return content, (color, normal), laps.seconds


def plain(mesh: MeshData, size: int) -> tuple[bytes, Any, dict[str, float]]:
    """Do the same as ``fast`` with the box layout, by loops."""
    laps = _Laps()
    normals = indexed_normals(mesh.vertices, mesh.faces)
    atlas = texturing_reference.unwrap(mesh.vertices, mesh.faces, normals)
    laps.lap("unwrap")
    vertices = mesh.vertices[atlas.vmapping]
    normals = vertex_normals(vertices, atlas.faces)
    tangents = vertex_tangents(vertices, atlas.faces, atlas.uvs, normals)
    hits = {
        texel: (face, a, b, c)
        for texel, face, a, b, c in texturing_reference.rasterize(atlas, size)
    }
    points, normal_at, tangent_at = (
        texturing_reference.interpolate(hits, atlas, values)
        for values in (vertices, normals, tangents)
    )
    tangent_at[:, 3] = np.sign(tangent_at[:, 3])
    mask = np.zeros(size**2, dtype=bool)
    mask[list(hits)] = True
    maps = []
    encoded = encode_tangent_space(normal_at + bumps(points), normal_at, tangent_at)
    for values in (albedo(points), encoded):
        image = np.zeros((size**2, 3), dtype=np.float32)
        image[list(hits)] = values
        square, is_filled = image.reshape(size, size, 3), mask.reshape(size, size)
        maps.append(texturing_reference.dilate(square, is_filled, dilation_rounds(size)))
    laps.lap("bake")
    content = export(mesh, atlas, *maps)
    laps.lap("export")
    return content, tuple(maps), laps.seconds


class _Laps:
    """Wall seconds by step."""

    def __init__(self) -> None:
        self.seconds: dict[str, float] = {}
        self._last = time.perf_counter()

    def lap(self, name: str) -> None:
        now = time.perf_counter()
        self.seconds[name] = round(now - self._last, 3)
        self._last = now


def timed(call: Callable[[], Any]) -> tuple[float, float, Any]:
    """Wall seconds, CPU seconds and the result."""
    start, start_cpu = time.perf_counter(), time.process_time()
    result = call()
    return time.perf_counter() - start, time.process_time() - start_cpu, result


def layout_facts(mesh: MeshData, name: str, size: int) -> dict[str, Any]:
    """Coverage, overlap, evenness and cost of a layout."""
    wall, cpu, atlas = timed(lambda: LAYOUTS[name](mesh, size))
    overlapping, covered = count_overlaps(atlas.faces, atlas.uvs, texture_size=size)
    a, b, c = np.moveaxis(mesh.vertices[mesh.faces].astype(np.float64), 1, 0)
    surface = np.linalg.norm(np.cross(b - a, c - a), axis=1)
    u, v, w = np.moveaxis(atlas.uvs[atlas.faces].astype(np.float64), 1, 0)
    side1, side2 = v - u, w - u
    drawn = np.abs(side1[:, 0] * side2[:, 1] - side1[:, 1] * side2[:, 0])
    density = drawn / np.maximum(surface, 1e-12) / (drawn.sum() / surface.sum())
    order = np.argsort(density)
    share = np.cumsum(surface[order]) / surface.sum()
    low, high = (float(density[order][np.searchsorted(share, part)]) for part in (0.05, 0.95))
    return {
        "coverage": round(covered / size**2, 3),
        "overlapping_texels": overlapping,
        "density_p5_p95": [round(low, 2), round(high, 2)],
        "vertices": len(atlas.uvs),
        "pattern_error": round(pattern_error(mesh, atlas, size), 4),
        "wall_s": round(wall, 2),
        "cpu_s": round(cpu, 2),
    }


def pattern(points: NDArray[np.float32]) -> NDArray[np.float32]:
    """Grey waves (P, 3), some six texels of a 1024 texture long."""
    wave = np.sin(points * np.float32(200)).prod(axis=1, keepdims=True)
    return np.repeat(np.float32(0.5) + np.float32(0.5) * wave, 3, axis=1)


def pattern_error(mesh: MeshData, atlas: UvAtlas, size: int, count: int = 50_000) -> float:
    """Root of the mean squared error, of 1, of a baked pattern at points of the surface."""
    rng = np.random.default_rng(0)
    corners = mesh.vertices[mesh.faces].astype(np.float64)
    area = np.linalg.norm(
        np.cross(corners[:, 1] - corners[:, 0], corners[:, 2] - corners[:, 0]), axis=1
    )
    face = rng.choice(len(area), count, p=area / area.sum())
    weights = rng.dirichlet((1, 1, 1), count)
    points = np.einsum("pk,pkc->pc", weights, corners[face]).astype(np.float32)
    uvs = np.einsum("pk,pkc->pc", weights, atlas.uvs[atlas.faces][face])
    texels = rasterize_texels(atlas.faces, atlas.uvs, texture_size=size)
    baked = texels.to_image(pattern(texels.interpolate(mesh.vertices[atlas.vmapping])))
    filled = dilate(baked, texels.mask, dilation_rounds(size))
    # Row 0 holds v = 1; values are those of the texels' centres.
    at = np.stack([(1 - uvs[:, 1]) * size - 0.5, uvs[:, 0] * size - 0.5])
    read = map_coordinates(filled[..., 0], at, order=1, mode="nearest")
    return float(np.sqrt(np.mean((read - pattern(points)[:, 0]) ** 2)))


def object_facts(faces: int, size: int) -> dict[str, dict[str, float]]:
    """Least and median coverage over held-out procedural objects, and all overlapping texels."""
    found: dict[str, list[tuple[float, int]]] = {"packed": [], "box": []}
    for item in held_out_items(len(CATEGORIES)):
        mesh = simplify(truth_mesh(item), faces)
        for name, values in found.items():
            atlas = LAYOUTS[name](mesh, size)
            overlapping, covered = count_overlaps(atlas.faces, atlas.uvs, texture_size=size)
            values.append((covered / size**2, overlapping))
    return {
        name: {
            "objects": len(values),
            "least_coverage": round(min(coverage for coverage, _ in values), 3),
            "median_coverage": round(float(np.median([coverage for coverage, _ in values])), 3),
            "overlapping_texels": sum(overlapping for _, overlapping in values),
        }
        for name, values in found.items()
    }


def measure(faces: int, size: int, runs: int) -> dict[str, Any]:
    """Time both ways on the blob, and compare the layouts on all shapes."""
    result: dict[str, Any] = {"machine": describe_machine(), "texture_size": size, "runs": runs}
    meshes = {name: build(name, faces) for name in SHAPES}
    mesh = meshes["blob"]
    result["faces"] = len(mesh.faces)
    taken: dict[str, list[tuple[float, float, Any]]] = {"packed": [], "box": []}
    for _ in range(runs):
        for name, times in taken.items():
            times.append(timed(partial(fast, mesh, LAYOUTS[name], size)))
    plain_wall, plain_cpu, reference = timed(lambda: plain(mesh, size))
    result["reference"] = {
        "what": "box layout, loops over faces and texels",
        "wall_s": round(plain_wall, 2),
        "cpu_s": round(plain_cpu, 2),
        "steps_wall_s": reference[2],
    }
    for name, times in taken.items():
        wall, cpu = ([run[kind] for run in times] for kind in (0, 1))
        result[name] = {
            "wall": summarize(wall),
            "cpu": summarize(cpu),
            "steps_wall_s": times[-1][2][2],
            "glb_bytes": len(times[-1][2][0]),
            "speedup_cpu": round(plain_cpu / float(np.median(cpu)), 1),
            "speedup_wall": round(plain_wall / float(np.median(wall)), 1),
        }
    result["same_maps_as_reference"] = _likeness(taken["box"][-1][2][1], reference[1])
    result["layouts"] = {
        shape: {name: layout_facts(made, name, size) for name in LAYOUTS}
        for shape, made in meshes.items()
    }
    result["packed_by_shape"] = {}
    for shape, made in meshes.items():
        wall_s, cpu_s, _ = timed(partial(fast, made, LAYOUTS["packed"], size))
        result["packed_by_shape"][shape] = {"wall_s": round(wall_s, 2), "cpu_s": round(cpu_s, 2)}
    result["objects"] = object_facts(faces, size)
    return result


def _likeness(maps: Any, others: Any) -> dict[str, float]:
    """Share of texels whose values differ by at most 1/255 from the reference's."""
    names = ("color", "normal")
    return {
        name: round(float((np.abs(a - b) <= 1 / 255).all(axis=-1).mean()), 5)
        for name, a, b in zip(names, maps, others, strict=True)
    }


def main() -> None:
    """Measure and write the result."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--faces", type=int, default=20_000)
    parser.add_argument("--size", type=int, default=1024)
    parser.add_argument("--runs", type=int, default=3)
    arguments = parser.parse_args()
    result = measure(arguments.faces, arguments.size, arguments.runs)
    write_result("texturing", result)
    sys.stdout.write(json.dumps(result, indent=1) + "\n")


if __name__ == "__main__":
    main()
