from __future__ import annotations

import numpy as np
import pytest

from dream_cad.exceptions import GenerationError, InvalidConfigError
from dream_cad.mesh.charts import cut_into_charts
from dream_cad.mesh.packed_unwrap import packed_unwrap
from tests.unit.mesh.layouts import MESHES, check_layout, least_gap
from tests.unit.mesh.shapes import from_trimesh, sphere


@pytest.mark.parametrize("name", MESHES)
def test_charts_never_overlap(name: str) -> None:
    mesh = MESHES[name]
    atlas = packed_unwrap(mesh.vertices, mesh.faces, texture_size=512, padding=2)
    coverage = check_layout(mesh, atlas)
    assert coverage > 0.55


@pytest.mark.parametrize(("texture_size", "padding"), [(256, 2), (512, 4), (128, 5)])
def test_charts_keep_their_distance(texture_size: int, padding: int) -> None:
    mesh = MESHES["torus"]
    atlas = packed_unwrap(mesh.vertices, mesh.faces, texture_size=texture_size, padding=padding)
    chart = cut_into_charts(mesh.vertices, mesh.faces).label
    assert least_gap(atlas, chart, texture_size) >= padding


def test_texels_are_spread_evenly() -> None:
    """A chart looks at its side within some 60 degrees, hence no face shrinks to below a half."""
    mesh = sphere(4)
    atlas = packed_unwrap(mesh.vertices, mesh.faces, texture_size=512, padding=2)
    a, b, c = np.moveaxis(mesh.vertices[mesh.faces].astype(np.float64), 1, 0)
    surface = np.linalg.norm(np.cross(b - a, c - a), axis=1)
    u, v, w = np.moveaxis(atlas.uvs[atlas.faces].astype(np.float64), 1, 0)
    side1, side2 = v - u, w - u
    drawn = side1[:, 0] * side2[:, 1] - side1[:, 1] * side2[:, 0]
    assert (drawn > 0).all()  # no chart is mirrored
    density = drawn / surface
    assert density.min() > 0.5 * density.max()


def test_vertices_are_shared_inside_charts() -> None:
    mesh = sphere(4)
    atlas = packed_unwrap(mesh.vertices, mesh.faces, texture_size=512, padding=2)
    assert len(mesh.vertices) < len(atlas.vmapping) < 1.3 * len(mesh.vertices)


def test_same_mesh_gives_the_same_atlas() -> None:
    mesh = MESHES["nested boxes"]
    first, second = (
        packed_unwrap(mesh.vertices, mesh.faces, texture_size=256, padding=2) for _ in range(2)
    )
    assert np.array_equal(first.uvs, second.uvs)
    assert np.array_equal(first.faces, second.faces)


def test_bad_sizes_and_too_many_charts_are_refused() -> None:
    mesh = MESHES["sphere"]
    with pytest.raises(InvalidConfigError):
        packed_unwrap(mesh.vertices, mesh.faces, texture_size=8, padding=0)
    with pytest.raises(InvalidConfigError):
        packed_unwrap(mesh.vertices, mesh.faces, texture_size=64, padding=60)
    dust = _scattered_triangles(600)
    with pytest.raises(GenerationError, match="do not fit"):
        packed_unwrap(dust.vertices, dust.faces, texture_size=16, padding=2)


def _scattered_triangles(count: int):
    rng = np.random.default_rng(3)
    centres = rng.uniform(-1, 1, (count, 1, 3))
    corners = centres + rng.normal(scale=0.02, size=(count, 3, 3))
    import trimesh

    faces = np.arange(3 * count).reshape(-1, 3)
    return from_trimesh(trimesh.Trimesh(corners.reshape(-1, 3), faces, process=False))
