from __future__ import annotations

import numpy as np
import pytest
import trimesh

from dream_cad.exceptions import GenerationError, InvalidConfigError
from dream_cad.mesh.cleanup import (
    face_components,
    finish_mesh,
    normalize_to_unit_cube,
    remove_degenerate_faces,
    remove_small_components,
    weld_vertices,
)
from dream_cad.mesh.data import MeshData
from tests.unit.mesh.shapes import (
    checker,
    colored_sphere,
    from_trimesh,
    position_colors,
    sphere,
    textured_quad,
    to_trimesh,
)

EMPTY = MeshData(np.zeros((0, 3), np.float32), np.zeros((0, 3), np.int32))


def soup(mesh: MeshData) -> MeshData:
    """The same surface with no vertex shared."""
    corners = mesh.faces.ravel()
    colors = mesh.vertex_colors
    return MeshData(
        mesh.vertices[corners],
        np.arange(len(corners), dtype=np.int32).reshape(-1, 3),
        vertex_colors=None if colors is None else colors[corners],
    )


def two_spheres() -> MeshData:
    small = trimesh.creation.icosphere(1, 0.1)  # 80 faces of 1,360
    small.apply_translation((2, 0, 0))
    return from_trimesh(trimesh.util.concatenate([trimesh.creation.icosphere(3, 0.5), small]))


def test_weld_closes_a_soup() -> None:
    mesh = colored_sphere()
    welded = weld_vertices(soup(mesh))
    assert welded.vertices.shape == mesh.vertices.shape
    assert to_trimesh(welded).is_watertight
    assert np.array_equal(position_colors(welded.vertices), welded.vertex_colors)


def test_weld_tolerance() -> None:
    mesh = soup(sphere(2))
    noise = np.random.default_rng(0).uniform(-1, 1, mesh.vertices.shape) * 1e-9
    shaken = MeshData((mesh.vertices + noise * 50).astype(np.float32), mesh.faces)
    assert len(weld_vertices(shaken, 1e-3).vertices) == len(sphere(2).vertices)
    assert len(weld_vertices(shaken, 0).vertices) > len(sphere(2).vertices)


def test_weld_keeps_uv_seams() -> None:
    quad = textured_quad(checker())
    split = MeshData(
        np.concatenate([quad.vertices, quad.vertices]),
        np.array([[0, 1, 2], [4, 6, 7]], np.int32),
        uv_coords=np.concatenate([quad.uv_coords, quad.uv_coords + np.float32(0.25)]),
    )
    assert len(weld_vertices(split).vertices) == 8
    same = MeshData(split.vertices, split.faces, uv_coords=np.tile(quad.uv_coords, (2, 1)))
    assert len(weld_vertices(same).vertices) == 4


def test_degenerate_faces_and_unused_vertices_go() -> None:
    mesh = sphere(1)
    extra = np.concatenate([mesh.vertices, [[9, 9, 9]]]).astype(np.float32)
    faces = np.concatenate([mesh.faces, [[3, 3, 4], [5, 6, 5]]]).astype(np.int32)
    cleaned = remove_degenerate_faces(MeshData(extra, faces))
    assert len(cleaned.faces) == len(mesh.faces)
    assert len(cleaned.vertices) == len(mesh.vertices)
    assert to_trimesh(cleaned).is_watertight


def test_small_parts_go_and_large_ones_stay() -> None:
    mesh = two_spheres()
    assert len(np.unique(face_components(mesh))) == 2
    assert len(remove_small_components(mesh, 0.05).faces) == len(mesh.faces)
    kept = remove_small_components(mesh, 0.07)
    assert len(kept.faces) == 1280
    assert kept.vertices[:, 0].max() < 1
    assert to_trimesh(kept).is_watertight


def test_the_largest_part_always_stays() -> None:
    assert len(remove_small_components(two_spheres(), 1.0).faces) == 1280


def test_parts_are_connected_over_uv_seams() -> None:
    mesh = soup(sphere(1))
    assert len(np.unique(face_components(mesh))) == 1
    assert len(remove_small_components(mesh, 0.5).faces) == len(mesh.faces)


@pytest.mark.parametrize("value", [-0.1, 1.1, float("nan")])
def test_fraction_out_of_range_is_refused(value: float) -> None:
    with pytest.raises(InvalidConfigError, match="min_fraction"):
        remove_small_components(sphere(1), value)


def test_normalize() -> None:
    mesh = sphere(2)
    stretched = MeshData((mesh.vertices * [2, 8, 4] + [5, -3, 1]).astype(np.float32), mesh.faces)
    done = normalize_to_unit_cube(stretched)
    low, high = done.vertices.min(axis=0), done.vertices.max(axis=0)
    assert (high - low).max() == pytest.approx(1)
    assert high - low == pytest.approx(np.ptp(stretched.vertices, axis=0) / 8, abs=1e-6)
    assert low + high == pytest.approx(np.zeros(3), abs=1e-6)
    point = MeshData(np.full((3, 3), 4, np.float32), np.array([[0, 1, 2]], np.int32))
    assert (normalize_to_unit_cube(point).vertices == 0).all()


def test_empty_meshes_pass_through() -> None:
    for function in (weld_vertices, remove_degenerate_faces, normalize_to_unit_cube):
        assert len(function(EMPTY).faces) == 0
    assert len(remove_small_components(EMPTY, 0.5).faces) == 0


def test_finish_runs_every_step() -> None:
    mesh = finish_mesh(soup(two_spheres()), target_faces=400, min_component=0.1)
    assert 350 <= len(mesh.faces) <= 420
    assert to_trimesh(mesh).is_watertight
    assert np.ptp(mesh.vertices, axis=0).max() == pytest.approx(1)
    assert mesh.vertices.dtype == np.float32
    assert mesh.faces.dtype == np.int32


def test_finish_says_when_nothing_is_left() -> None:
    flat = MeshData(sphere(1).vertices, np.array([[0, 0, 1]], np.int32))
    with pytest.raises(GenerationError, match="Nothing is left"):
        finish_mesh(flat, target_faces=None, min_component=0.0)
