from __future__ import annotations

import numpy as np
import pytest
import trimesh
from numpy.typing import NDArray

from dream_cad.exceptions import InvalidConfigError, ShapeError
from dream_cad.mesh.data import MeshData
from dream_cad.mesh.edges import EdgeTable, connected_parts, directed_border
from dream_cad.mesh.holes import border_loops, fill_small_holes, span_loop


def ball(*gone: int) -> MeshData:
    """A sphere of 320 faces without some vertices' faces."""
    shape = trimesh.creation.icosphere(2, 0.5)
    kept = ~np.isin(shape.faces, gone).any(axis=1)
    return MeshData(shape.vertices.astype(np.float32), shape.faces[kept].astype(np.int32))


def as_trimesh(mesh: MeshData) -> trimesh.Trimesh:
    return trimesh.Trimesh(mesh.vertices, mesh.faces, process=False)


def test_edges_are_counted_once_with_their_faces() -> None:
    faces = np.array([[0, 1, 2], [2, 1, 3]])
    table = EdgeTable.of(faces)
    assert table.ends.tolist() == [[0, 1], [0, 2], [1, 2], [1, 3], [2, 3]]
    assert table.counts.tolist() == [1, 1, 2, 1, 1]
    pairs, shared = table.neighbours()
    assert sorted(pairs[0].tolist()) == [0, 1]
    assert shared.tolist() == [2]
    assert table.of_face[0].tolist() == [0, 2, 1]


def test_edges_of_nothing() -> None:
    table = EdgeTable.of(np.zeros((0, 3), np.int32))
    assert len(table.ends) == 0
    assert len(directed_border(np.zeros((0, 3), np.int32))) == 0


def test_parts_are_joined_by_pairs() -> None:
    label = connected_parts(np.array([[0, 2], [2, 3]]), 5)
    assert label[0] == label[2] == label[3]
    assert len({label[0], label[1], label[4]}) == 3


def test_a_closed_mesh_has_no_border_and_stays() -> None:
    closed, filled = fill_small_holes(ball(), 50)
    assert border_loops(closed.faces) == []
    assert filled == 0
    assert len(closed.faces) == 320


def test_holes_are_closed_with_faces_that_look_outwards() -> None:
    mesh = ball(0, 100)
    before = as_trimesh(mesh)
    closed, filled = fill_small_holes(mesh, 10)
    after = as_trimesh(closed)
    assert filled == 2
    assert after.is_watertight
    assert after.is_winding_consistent
    assert len(closed.faces) == len(mesh.faces) + sum(len(x) - 2 for x in border_loops(mesh.faces))
    assert before.volume < after.volume < trimesh.creation.icosphere(2, 0.5).volume


def test_larger_holes_stay_open() -> None:
    mesh = ball(0)
    (loop,) = border_loops(mesh.faces)
    closed, filled = fill_small_holes(mesh, len(loop) - 1)
    assert filled == 0
    assert len(border_loops(closed.faces)) == 1


def test_borders_that_touch_in_a_vertex_are_told_apart() -> None:
    # a fan of four faces around vertex 0 without two opposite ones: a bow tie
    faces = np.array([[0, 1, 2], [0, 3, 4]], np.int32)
    loops = border_loops(faces)
    assert sorted(map(sorted, loops)) == [[0, 1, 2], [0, 3, 4]]


def ring(count: int) -> NDArray[np.float32]:
    angle = np.arange(count) * 2 * np.pi / count
    return np.stack([np.cos(angle), np.sin(angle), np.zeros(count)], axis=1).astype(np.float32)


@pytest.mark.parametrize("count", [3, 4, 7, 30])
def test_a_flat_ring_is_spanned_by_its_own_area(count: int) -> None:
    points = ring(count)
    patch = span_loop(points, np.zeros((count, count), bool))
    assert patch.shape == (count - 2, 3)
    a, b, c = points[patch].transpose(1, 0, 2).astype(np.float64)
    normals = np.cross(b - a, c - a)
    assert (normals[:, 2] > 0).all()
    assert normals[:, 2].sum() / 2 == pytest.approx(count / 2 * np.sin(2 * np.pi / count), rel=1e-5)


def test_compact_triangles_are_preferred() -> None:
    points = np.array([[0, 0, 0], [3, 0, 0], [3, 1, 0], [0, 1, 0], [-0.5, 0.5, 0]], np.float32)
    patch = span_loop(points, np.zeros((5, 5), bool))
    inner = {
        tuple(sorted((a, b))) for a, b, c in patch.tolist() for a, b in ((a, b), (b, c), (c, a))
    }
    assert (0, 3) in inner
    assert (1, 4) not in inner


def test_a_loop_whose_diagonals_are_all_taken_stays_open() -> None:
    assert len(span_loop(ring(4), np.ones((4, 4), bool))) == 0
    assert len(span_loop(ring(3), np.ones((3, 3), bool))) == 1


def test_no_edge_gets_a_third_face() -> None:
    # a tetrahedron without two faces: the hole's one diagonal is an edge already, the other free
    shape = trimesh.creation.icosahedron()
    faces = shape.faces[2:].astype(np.int32)
    closed, _ = fill_small_holes(MeshData(shape.vertices.astype(np.float32), faces), 8)
    assert EdgeTable.of(closed.faces).counts.max() == 2


def test_wrong_calls_are_refused() -> None:
    with pytest.raises(InvalidConfigError, match="max_edges"):
        fill_small_holes(ball(), 257)
    mesh = ball()
    textured = MeshData(mesh.vertices, mesh.faces, uv_coords=mesh.vertices[:, :2])
    with pytest.raises(ShapeError, match="UV"):
        fill_small_holes(textured, 5)
