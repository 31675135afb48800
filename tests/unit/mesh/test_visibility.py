from __future__ import annotations

import numpy as np
import pytest
import trimesh

from dream_cad.exceptions import ShapeError
from dream_cad.mesh.data import MeshData
from dream_cad.mesh.views import View, look_at
from dream_cad.mesh.visibility import face_visibility, remove_hidden_faces

EYES = ((1, 0.1, 0.1), (-1, 0.1, 0.1), (0.1, 1, 0.1), (0.1, -1, 0.1), (0.1, 0.2, 1), (0.1, 0.2, -1))
VIEWS = [View(look_at(2 * np.array(eye) / np.linalg.norm(eye)), 40.0) for eye in EYES]


def joined(*shapes: trimesh.Trimesh) -> MeshData:
    both = trimesh.util.concatenate(shapes)
    return MeshData(both.vertices.astype(np.float32), both.faces.astype(np.int32))


def test_faces_are_seen_from_their_side_only() -> None:
    box = joined(trimesh.creation.box((0.5, 0.5, 0.5)))
    seen = face_visibility(box, VIEWS[:1], 64)
    normal = trimesh.Trimesh(box.vertices, box.faces, process=False).face_normals
    assert (seen[normal[:, 0] > 0.9] == 1).all()
    assert (seen[normal[:, 0] < -0.9] == 0).all()
    assert face_visibility(box, VIEWS, 64).max() <= 1


def test_a_ball_inside_a_ball_goes_and_the_outer_stays_whole() -> None:
    outer, inner = trimesh.creation.icosphere(2, 0.45), trimesh.creation.icosphere(2, 0.2)
    mesh = joined(outer, inner)
    cleared = remove_hidden_faces(mesh, face_visibility(mesh, VIEWS, 128))
    assert len(cleared.faces) == len(outer.faces)
    assert len(cleared.vertices) == len(outer.vertices)
    assert np.linalg.norm(cleared.vertices, axis=1).min() > 0.4


def test_nothing_hidden_changes_nothing() -> None:
    mesh = joined(trimesh.creation.icosphere(1, 0.45))
    assert remove_hidden_faces(mesh, np.ones(len(mesh.faces))) is mesh


def test_hidden_parts_whose_removal_would_leave_a_large_hole_stay() -> None:
    ball = trimesh.creation.icosphere(3, 0.45)
    mesh = joined(ball)
    lower = ball.triangles_center[:, 2] < 0
    seen = np.where(lower, 0.0, 0.6)
    kept = remove_hidden_faces(mesh, seen)
    assert len(kept.faces) == len(mesh.faces)
    opened = remove_hidden_faces(mesh, seen, max_hole_area=1.0)
    assert len(opened.faces) == pytest.approx((~lower).sum(), rel=0.05)


def test_a_face_goes_where_its_edges_are_the_cheapest_cut() -> None:
    mesh = joined(trimesh.creation.icosphere(2, 0.45))
    seen = np.full(len(mesh.faces), 0.6)
    seen[7] = 0.0
    # its three edges of some 0.14 are cheaper to cut than the 1 that it would cost to let it stay
    assert len(remove_hidden_faces(mesh, seen).faces) == len(mesh.faces) - 1


def test_a_visibility_is_wanted_for_each_face() -> None:
    mesh = joined(trimesh.creation.icosphere(1, 0.45))
    with pytest.raises(ShapeError, match="visibilities"):
        remove_hidden_faces(mesh, np.zeros(3))
