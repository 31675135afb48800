from __future__ import annotations

import numpy as np
import pytest
import trimesh

from dream_cad.exceptions import InvalidConfigError, ShapeError
from dream_cad.mesh.data import MeshData
from dream_cad.mesh.isotropic import remesh_isotropic
from dream_cad.mesh.remesh import remesh
from tests.unit.mesh.layouts import torus
from tests.unit.mesh.shapes import checker, colored_sphere, from_trimesh, textured_quad, to_trimesh


def stretched_sphere() -> MeshData:
    """An ellipsoid with needle triangles."""
    ball = trimesh.creation.uv_sphere(count=[12, 64])
    ball.merge_vertices()
    ball.update_faces(ball.nondegenerate_faces())
    ball.remove_unreferenced_vertices()
    ball.apply_scale((1.0, 0.5, 0.4))
    return from_trimesh(ball)


def smallest_angles(mesh: MeshData) -> np.ndarray:
    return np.degrees(to_trimesh(mesh).face_angles.min(axis=1))


def test_none_returns_the_mesh_itself() -> None:
    mesh = torus()
    assert remesh(mesh, "none", target_vertices=5) is mesh


@pytest.mark.parametrize("target", [None, 200, 900])
@pytest.mark.parametrize("make", [torus, stretched_sphere])
def test_triangles_become_even_and_the_shape_stays(make, target: int | None) -> None:
    mesh = make()
    result = remesh(mesh, "triangle", target_vertices=target)
    before, after = to_trimesh(mesh), to_trimesh(result)
    assert (
        len(result.vertices) == pytest.approx(target or len(mesh.vertices), rel=0.2)
        or target is None
    )
    assert after.is_watertight
    assert after.is_winding_consistent
    assert after.euler_number == before.euler_number
    assert after.area == pytest.approx(before.area, rel=0.07)
    assert after.volume == pytest.approx(before.volume, rel=0.12)
    angles = smallest_angles(result)
    assert np.median(angles) > 45
    assert np.percentile(angles, 2) > 25
    lengths = after.edges_unique_length
    assert lengths.std() < 0.3 * lengths.mean()


def test_refined_vertices_lie_on_the_old_surface() -> None:
    box = from_trimesh(trimesh.creation.box())
    result = remesh(box, "triangle", target_vertices=800)
    assert to_trimesh(result).is_watertight
    assert np.abs(result.vertices).max(axis=1) == pytest.approx(0.5, abs=0.03)
    assert len(result.vertices) == pytest.approx(800, rel=0.2)


def test_borders_stay() -> None:
    grid = np.stack(np.meshgrid(*[np.linspace(0, 1, 9)] * 2, indexing="ij"), -1).reshape(-1, 2)
    vertices = np.column_stack([grid, np.zeros(81)]).astype(np.float32)
    low = (np.arange(8)[:, None] * 9 + np.arange(8)).ravel()
    faces = np.concatenate(
        [np.stack([low, low + 9, low + 10], 1), np.stack([low, low + 10, low + 1], 1)]
    )
    new, corners = remesh_isotropic(vertices, faces)
    outline = trimesh.Trimesh(new, corners, process=False)
    assert outline.area == pytest.approx(1.0, abs=1e-6)
    rim = (vertices[:, :2] % 1 == 0).any(axis=1)
    old = {tuple(p) for p in vertices[rim].round(6).tolist()}
    assert old <= {tuple(p) for p in new.round(6).tolist()}


def test_colours_are_carried_over() -> None:
    mesh = colored_sphere(3)
    result = remesh(mesh, "triangle", target_vertices=300)
    expected = (result.vertices + 0.5) * 255
    assert np.abs(result.vertex_colors - expected).max() < 20


def test_same_mesh_gives_the_same_result() -> None:
    first, second = (remesh(torus(), "triangle", target_vertices=300) for _ in range(2))
    assert np.array_equal(first.vertices, second.vertices)
    assert np.array_equal(first.faces, second.faces)


def test_quads_are_refused_with_the_reason() -> None:
    with pytest.raises(InvalidConfigError, match=r"Instant Meshes.*GPL"):
        remesh(torus(), "quad")


@pytest.mark.parametrize("target", [3, 500_001])
def test_targets_out_of_range_are_refused(target: int) -> None:
    with pytest.raises(InvalidConfigError, match=r"4\.\.500000"):
        remesh(torus(), "triangle", target_vertices=target)


def test_unknown_modes_textures_and_empty_meshes_are_refused() -> None:
    with pytest.raises(InvalidConfigError, match="none, triangle, quad"):
        remesh(torus(), "voxel")
    with pytest.raises(InvalidConfigError, match="UV"):
        remesh(textured_quad(checker()), "triangle")
    mesh = torus()
    with pytest.raises(ShapeError):
        remesh(MeshData(mesh.vertices, mesh.faces[:0]), "triangle")
