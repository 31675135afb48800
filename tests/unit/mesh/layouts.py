"""Meshes that are hard to unwrap, and checks that hold for every UV layout."""

from __future__ import annotations

import numpy as np
import trimesh
from scipy.ndimage import distance_transform_edt

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
