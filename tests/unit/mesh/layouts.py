"""Meshes that are hard to unwrap, and checks that hold for every UV layout."""

from __future__ import annotations

import numpy as np
import trimesh
from scipy.ndimage import distance_transform_edt
from scipy.spatial import cKDTree
from skimage.measure import marching_cubes

from dream_cad.mesh.data import MeshData
from dream_cad.mesh.texels import count_overlaps, rasterize_texels
from dream_cad.mesh.unwrap import UvAtlas
from tests.unit.mesh.shapes import from_trimesh, sphere


def torus() -> MeshData:
    return from_trimesh(trimesh.creation.torus(0.35, 0.15, major_sections=32, minor_sections=16))


def nested_boxes() -> MeshData:
    """Three boxes in each other: every projection hides two of them."""
    parts = [trimesh.creation.box((size, size, size)) for size in (1.0, 0.7, 0.4)]
    return from_trimesh(trimesh.util.concatenate(parts).subdivide())


def crumpled() -> MeshData:
    """A sphere with noise of the size of its faces: folds, flips and slivers."""
    mesh = sphere(2)
    shift = np.random.default_rng(5).normal(scale=0.06, size=mesh.vertices.shape)
    return MeshData((mesh.vertices + shift).astype(np.float32), mesh.faces)


def knot() -> MeshData:
    """A tube along a trefoil: thin and bent everywhere, the hard case for packing."""
    turn = np.linspace(0, 2 * np.pi, 400)
    line = [np.sin(turn) + 2 * np.sin(2 * turn), np.cos(turn) - 2 * np.cos(2 * turn)]
    path = 0.27 * np.stack([*line, -np.sin(3 * turn)], axis=1)
    axis = np.linspace(-1, 1, 56)
    nodes = np.stack(np.meshgrid(axis, axis, axis, indexing="ij"), axis=-1)
    field = 0.13 - cKDTree(path).query(nodes.reshape(-1, 3))[0].reshape(nodes.shape[:3])
    vertices, faces, _, _ = marching_cubes(field, 0.0, spacing=(2 / 55,) * 3)
    return MeshData(vertices.astype(np.float32), faces.astype(np.int32))


def with_flat_faces() -> MeshData:
    """A box with faces of no area: three corners on a line, and one corner twice."""
    box = from_trimesh(trimesh.creation.box((1.0, 0.5, 0.25)))
    extra = np.array([[0, 1, 1], [2, 2, 2]], np.int32)
    return MeshData(box.vertices, np.concatenate([box.faces, extra]))


MESHES = {
    "sphere": sphere(3),
    "torus": torus(),
    "nested boxes": nested_boxes(),
    "crumpled": crumpled(),
    "flat faces": with_flat_faces(),
    "knot": knot(),
}


def check_layout(mesh: MeshData, atlas: UvAtlas, texture_size: int = 512) -> float:
    """Faces kept, UV inside the square, nothing overlaps; returns the coverage."""
    assert np.array_equal(atlas.vmapping[atlas.faces], mesh.faces)
    assert atlas.uvs.dtype == np.float32
    assert atlas.uvs.min() >= 0
    assert atlas.uvs.max() <= 1
    overlapping, covered = count_overlaps(atlas.faces, atlas.uvs, texture_size=texture_size)
    assert overlapping == 0
    return covered / texture_size**2


def least_gap(atlas: UvAtlas, chart: np.ndarray, texture_size: int) -> float:
    """The least distance in texels between texels of different charts (F,)."""
    texels = rasterize_texels(atlas.faces, atlas.uvs, texture_size=texture_size)
    owner = np.full(texture_size**2, -1)
    owner[texels.index] = chart[texels.face]
    owner = owner.reshape(texture_size, texture_size)
    gaps = []
    for number in np.unique(chart):
        others = (owner >= 0) & (owner != number)
        if others.any() and (owner == number).any():
            gaps.append(distance_transform_edt(~others)[owner == number].min())
    return float(min(gaps))
