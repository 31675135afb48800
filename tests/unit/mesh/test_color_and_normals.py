from __future__ import annotations

import numpy as np
import pytest

from dream_cad.mesh.color import linear_to_srgb, sample_texture, srgb_to_linear
from dream_cad.mesh.data import MeshData
from dream_cad.mesh.normals import corner_normals, position_groups, vertex_normals
from tests.unit.mesh.shapes import checker, sphere


def test_srgb_curve_and_its_inverse() -> None:
    encoded = np.arange(256) / 255
    linear = srgb_to_linear(encoded)
    # Values of IEC 61966-2-1.
    assert linear[[0, 10, 128, 255]] == pytest.approx([0, 0.0030353, 0.2158605, 1], abs=1e-6)
    assert np.array_equal(np.rint(linear_to_srgb(linear) * 255), np.arange(256))


def test_texture_look_up_at_centres_between_and_outside() -> None:
    texture = checker(4, 8)
    centre = np.array([[(3 + 0.5) / 8, 1 - (2 + 0.5) / 4]])
    assert sample_texture(texture, centre)[0].tolist() == texture[2, 3].tolist()
    between = np.array([[4 / 8, 1 - (2 + 0.5) / 4]])
    mean = (texture[2, 3].astype(int) + texture[2, 4]) / 2
    assert sample_texture(texture, between)[0] == pytest.approx(mean, abs=0.5)
    corners = sample_texture(texture, np.array([[-1.0, 2.0], [2.0, -1.0]]))
    assert corners.tolist() == [texture[0, 0].tolist(), texture[3, 7].tolist()]


def test_normals_of_a_sphere_point_outwards() -> None:
    mesh = sphere(4)
    normals = vertex_normals(mesh.vertices, mesh.faces)
    assert (normals * mesh.vertices * 2).sum(axis=1) == pytest.approx(1, abs=1e-3)
    assert normals.dtype == np.float32


def test_normals_do_not_break_at_seams() -> None:
    mesh = sphere(2)
    corners = mesh.faces.ravel()
    split = MeshData(mesh.vertices[corners], np.arange(len(corners), dtype=np.int32).reshape(-1, 3))
    whole = vertex_normals(mesh.vertices, mesh.faces)
    assert np.allclose(vertex_normals(split.vertices, split.faces), whole[corners], atol=1e-6)


def test_lonely_vertices_and_flat_faces_get_a_unit_normal() -> None:
    vertices = np.zeros((4, 3), np.float32)
    normals = vertex_normals(vertices, np.array([[0, 1, 2]], np.int32))
    assert normals.tolist() == [[0, 0, 1]] * 4


def test_creases_are_flat_and_curves_smooth() -> None:
    corner = np.array([[0, 0, 0], [1, 0, 0], [0, 1, 0], [0, 0, 1]], np.float32)
    folded = np.array([[0, 1, 2], [0, 3, 1]], np.int32)
    sharp = corner_normals(corner, folded, crease_deg=40)
    assert np.allclose(sharp[0], [0, 0, 1])
    assert np.allclose(sharp[1], [0, 1, 0])
    blended = corner_normals(corner, folded, crease_deg=60)
    assert np.allclose(blended[0, 0], [0, 0.5**0.5, 0.5**0.5])


def test_minus_zero_is_zero() -> None:
    rows = np.array([[0.0, 1, 2], [-0.0, 1, 2], [0, 1, 3]], np.float32)
    assert len(np.unique(position_groups(rows))) == 2
    assert position_groups(rows)[0] == position_groups(rows)[1]
