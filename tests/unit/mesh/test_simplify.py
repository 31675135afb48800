from __future__ import annotations

import numpy as np
import pytest

from dream_cad.exceptions import InvalidConfigError, ShapeError
from dream_cad.mesh.data import MeshData
from dream_cad.mesh.simplify import simplify
from tests.unit.mesh.shapes import (
    checker,
    colored_sphere,
    position_colors,
    sphere,
    textured_quad,
    to_trimesh,
)


def test_fewer_faces_same_shape_same_colours() -> None:
    mesh = colored_sphere(4)
    small = simplify(mesh, 500)
    assert 450 <= len(small.faces) <= 500
    assert to_trimesh(small).is_watertight
    assert to_trimesh(small).volume == pytest.approx(to_trimesh(mesh).volume, rel=0.03)
    assert small.vertex_colors is not None
    difference = np.abs(position_colors(small.vertices).astype(int) - small.vertex_colors)
    assert np.percentile(difference, 95) <= 8
    assert small.faces.dtype == np.int32


def test_small_meshes_come_back_as_they_are() -> None:
    mesh = sphere(1)
    assert simplify(mesh, len(mesh.faces)) is mesh


def test_bad_requests_are_refused() -> None:
    with pytest.raises(InvalidConfigError, match="target_faces"):
        simplify(sphere(1), 3)
    many = textured_quad(checker())
    faces = np.tile(many.faces, (4, 1))
    textured = MeshData(many.vertices, faces, uv_coords=many.uv_coords, texture=many.texture)
    with pytest.raises(InvalidConfigError, match="texture"):
        simplify(textured, 4)
    with pytest.raises(ShapeError):
        simplify(MeshData(sphere(1).vertices, sphere(1).faces[:0]), 10)


def test_read_only_arrays_are_taken() -> None:
    mesh = sphere(4)
    mesh.vertices.flags.writeable = False
    mesh.faces.flags.writeable = False
    assert len(simplify(mesh, 500).faces) <= 500
