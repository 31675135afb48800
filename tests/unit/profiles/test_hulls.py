from __future__ import annotations

import numpy as np
import pytest
import trimesh

from dream_cad.exceptions import GenerationError, InvalidConfigError
from dream_cad.mesh.data import MeshData
from dream_cad.profiles.hulls import convex_hulls
from tests.unit.mesh.shapes import from_trimesh, sphere, textured_quad, to_trimesh


def table() -> MeshData:
    """A plate on four legs: its hull is ten times its volume."""
    boxes = [trimesh.creation.box((1, 0.1, 1))]
    for x in (-0.45, 0.45):
        for z in (-0.45, 0.45):
            leg = trimesh.creation.box((0.1, 0.8, 0.1))
            leg.apply_translation((x, -0.45, z))
            boxes.append(leg)
    return from_trimesh(trimesh.util.concatenate(boxes))


def volumes(hulls: tuple[MeshData, ...]) -> list[float]:
    return [float(to_trimesh(hull).volume) for hull in hulls]


def is_inside(points: np.ndarray, hull: MeshData, slack: float) -> np.ndarray:
    solid = to_trimesh(hull)
    to_plane = points[:, None] - solid.triangles_center[None]
    return (np.einsum("pfc,fc->pf", to_plane, solid.face_normals) <= slack).all(axis=1)


def test_a_hull_is_closed_convex_and_within_its_budget() -> None:
    (hull,) = convex_hulls(sphere(4), count=1, max_faces=100)
    solid = to_trimesh(hull)
    assert solid.is_watertight
    assert solid.is_convex
    assert 60 <= len(hull.faces) <= 100
    assert 0.85 < solid.volume / to_trimesh(sphere(4)).volume <= 1


def test_a_table_is_cut_into_plate_and_legs() -> None:
    mesh = table()
    (one,) = volumes(convex_hulls(mesh, count=1, max_faces=255))
    many = convex_hulls(mesh, count=8, max_faces=64)
    assert one == pytest.approx(0.9, rel=0.06)
    assert 5 <= len(many) <= 8
    assert sum(volumes(many)) < 0.2  # the table itself is 0.132
    assert all(to_trimesh(hull).is_convex and len(hull.faces) <= 64 for hull in many)
    covered = np.any([is_inside(mesh.vertices, hull, 0.02) for hull in many], axis=0)
    assert covered.all()


def test_what_is_convex_is_not_cut() -> None:
    assert len(convex_hulls(from_trimesh(trimesh.creation.box()), count=8, max_faces=64)) == 1


def test_the_same_mesh_gives_the_same_hulls() -> None:
    first, second = (convex_hulls(table(), count=4, max_faces=32) for _ in range(2))
    for one, other in zip(first, second, strict=True):
        assert np.array_equal(one.vertices, other.vertices)


def test_flat_things_get_a_body() -> None:
    (hull,) = convex_hulls(textured_quad(np.zeros((8, 8, 3), np.uint8)), count=4, max_faces=12)
    assert 0 < to_trimesh(hull).volume < 0.01


def test_bad_input() -> None:
    with pytest.raises(InvalidConfigError):
        convex_hulls(sphere(1), count=0, max_faces=64)
    with pytest.raises(InvalidConfigError):
        convex_hulls(sphere(1), count=1, max_faces=3)
    point = MeshData(np.ones((3, 3), np.float32), np.array([[0, 1, 2]], np.int32))
    with pytest.raises(GenerationError, match="single point"):
        convex_hulls(point, count=1, max_faces=64)
